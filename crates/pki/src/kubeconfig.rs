//! The identity inside a kubeconfig: found by parsing, replaced in the text, so that every other byte stays as it is.

use crate::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rekindle_model::Redacted;
use serde::Deserialize;

/// Larger than any kubeconfig.
const MAX_BYTES: usize = 4 << 20;

/// Who a kubeconfig's present context is.
#[derive(Debug)]
pub struct Identity {
    /// Its client certificate, PEM.
    pub certificate: Vec<u8>,
    /// Its client key, PEM.
    pub key: Redacted<Vec<u8>>,
    /// The authority servers are checked against, PEM.
    pub authority: Option<Vec<u8>>,
    /// Both as they stand in the text.
    written: Redacted<(String, String)>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "current-context", default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(rename = "certificate-authority-data")]
    authority: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
struct User {
    #[serde(rename = "client-certificate-data")]
    certificate: Option<String>,
    #[serde(rename = "client-key-data")]
    key: Option<String>,
}

/// The identity of the present context.
///
/// # Errors
/// [`Error::NoIdentity`] when it holds no client certificate of its own (a token, or paths of files).
pub fn identity(text: &str) -> Result<Identity, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLarge(MAX_BYTES));
    }
    // The parser's error may quote the text, and the text holds a key.
    let config: Config = serde_saphyr::from_str(text).map_err(|_| Error::Kubeconfig)?;
    let context = config.contexts.iter().find(|c| c.name == config.current_context);
    let context = context.map(|c| &c.context).ok_or(Error::NoIdentity("its present context is not there"))?;
    let user = config.users.iter().find(|u| u.name == context.user).map(|u| &u.user);
    let user = user.ok_or(Error::NoIdentity("the user of its present context is not there"))?;
    let (Some(certificate), Some(key)) = (&user.certificate, &user.key) else {
        return Err(Error::NoIdentity("it holds no client certificate of its own"));
    };
    let cluster = config.clusters.iter().find(|c| c.name == context.cluster);
    let authority = cluster.and_then(|c| c.cluster.authority.as_ref());
    Ok(Identity {
        certificate: decode(certificate)?,
        key: Redacted::new(decode(key)?),
        authority: authority.map(|text| decode(text)).transpose()?,
        written: Redacted::new((certificate.clone(), key.clone())),
    })
}

fn decode(text: &str) -> Result<Vec<u8>, Error> {
    STANDARD.decode(text.trim()).map_err(|_| Error::Kubeconfig)
}

/// The same text with another identity in its place.
///
/// # Errors
/// As [`identity`], and when the old one does not stand in the text in one piece.
pub fn with_identity(
    text: &str,
    certificate: &str,
    key: &Redacted<String>,
) -> Result<Redacted<String>, Error> {
    let old = identity(text)?;
    let (old_certificate, old_key) = old.written.expose();
    if old_certificate.is_empty() || old_key.is_empty() || !text.contains(old_certificate.as_str()) {
        return Err(Error::NoIdentity("its client certificate is not written in one piece"));
    }
    if !text.contains(old_key.as_str()) {
        return Err(Error::NoIdentity("its client key is not written in one piece"));
    }
    let new = text
        .replace(old_certificate.as_str(), &STANDARD.encode(certificate))
        .replace(old_key.as_str(), &STANDARD.encode(key.expose()));
    let check = identity(&new)?;
    if check.certificate != certificate.as_bytes() || check.key.expose() != key.expose().as_bytes() {
        return Err(Error::NoIdentity("its identity can't be replaced in its text"));
    }
    Ok(Redacted::new(new))
}
