//! Errors. The caller names the file; nothing of its content is quoted, as it may hold a key.

/// Why bytes could not be read, or a certificate not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No PEM block of the kind looked for (RFC 7468).
    #[error("it holds no PEM block {0}")]
    NoBlock(&'static str),
    /// Larger than any such file.
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    /// A certificate that does not parse (RFC 5280).
    #[error("its certificate does not parse")]
    Certificate,
    /// A key that does not parse, or is of a kind that is not supported (RSA, EC P-256, P-384, P-521, Ed25519 are).
    #[error("its key does not parse, or is of a kind that is not supported")]
    Key,
    /// A kubeconfig that does not parse.
    #[error("it does not parse as a kubeconfig")]
    Kubeconfig,
    /// A kubeconfig without an identity that can be renewed.
    #[error("{0}")]
    NoIdentity(&'static str),
    /// A certificate that can't be made again as it is.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// The key is not the certificate's.
    #[error("the authority's key is not that of its certificate")]
    AuthorityKey,
    /// What is asked for is not what is to be renewed.
    #[error("the request is for {asked}, but {wanted} is to be renewed")]
    AnotherProfile {
        /// Whom the request is for.
        asked: String,
        /// Whom it should be for.
        wanted: String,
    },
    /// Asked for from another host, and not proved to be that of its node.
    #[error("node {node} is given no certificate: {why}")]
    NotOfNode {
        /// The node.
        node: String,
        /// Why not.
        why: &'static str,
    },
    /// The library that makes keys and certificates failed.
    #[error("cannot {doing}")]
    Make {
        /// `make a key`, `sign`.
        doing: &'static str,
        /// The cause.
        #[source]
        source: rcgen::Error,
    },
}
