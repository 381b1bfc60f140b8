//! Certificates of a host: those in files, those inside kubeconfigs, and those its ports serve. Public facts only: a
//! private key is told by the digest of its public half, and never leaves its host.

use crate::{HostPath, Seen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything seen of a host's certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    /// The folder of the control plane's certificates (kubeadm's `certificatesDir`).
    pub pki_dir: HostPath,
    /// Certificates in files, authorities first.
    pub files: Vec<CertificateFile>,
    /// Certificates as the host's ports serve them.
    pub served: Vec<ServedCertificate>,
    /// The key pair service-account tokens are signed with, where the host has one.
    pub service_account: Option<KeyPairFacts>,
}

impl CertificateFacts {
    /// The certificate of a name.
    pub fn file(&self, name: &str) -> Option<&CertificateFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// A certificate in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFile {
    /// kubeadm's name for it (`apiserver`, `etcd-peer`, `admin.conf`), or `kubelet-client`, `kubelet-server`,
    /// `kubelet-serving`.
    pub name: String,
    /// Where it and its key lie.
    pub place: CertificatePlace,
    /// Name of the authority that has to sign it; none for an authority, and for one that signs itself.
    pub authority: Option<String>,
    /// The certificate.
    pub certificate: Seen<Certificate>,
    /// Its key.
    pub key: KeyState,
    /// Whether the present authority on this host signed it; none when that can't be told.
    pub signed_by_authority: Option<bool>,
}

impl CertificateFile {
    /// The file a person looks at.
    pub fn path(&self) -> &HostPath {
        match &self.place {
            CertificatePlace::Pair { cert, .. } => cert,
            CertificatePlace::Kubeconfig { path } => path,
            CertificatePlace::Link { current } => current,
        }
    }

    /// Whether it is an authority.
    pub fn is_authority(&self) -> bool {
        self.authority.is_none() && self.certificate.known().is_some_and(|c| c.is_authority)
    }
}

/// Where a certificate and its key lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum CertificatePlace {
    /// Two files.
    Pair {
        /// Certificate file.
        cert: HostPath,
        /// Key file.
        key: HostPath,
    },
    /// Inside a kubeconfig, both in base64.
    Kubeconfig {
        /// The kubeconfig.
        path: HostPath,
    },
    /// Both in one file, behind a link that the kubelet moves on when it rotates the certificate.
    Link {
        /// The link.
        current: HostPath,
    },
}

/// What of a key was seen beside its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum KeyState {
    /// It is the certificate's.
    Matches,
    /// It is another certificate's.
    Differs,
    /// There is none: an authority whose key is kept elsewhere.
    Missing,
    /// It could not be read.
    Unreadable(String),
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// SHA-256 (hex) of its DER.
    pub sha256: String,
    /// Subject, as X.509 tools print it: `O=system:nodes, CN=system:node:cp-1`.
    pub subject: String,
    /// Issuer, in the same form.
    pub issuer: String,
    /// Start of its validity, seconds since the Unix epoch.
    pub not_before_s: i64,
    /// End of its validity, seconds since the Unix epoch.
    pub not_after_s: i64,
    /// DNS names it is for, sorted.
    pub dns_names: Vec<String>,
    /// Addresses it is for, sorted.
    pub ip_addresses: Vec<String>,
    /// Extended key usages, sorted: `clientAuth`, `serverAuth`, others as dotted numbers.
    pub usages: Vec<String>,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// Kind of its key: `RSA-2048`, `EC-P256`.
    pub key_kind: String,
    /// SHA-256 (hex) of its public key (SubjectPublicKeyInfo).
    pub public_key_sha256: String,
    /// Name of the node whose identity it is, by the attributes of its subject: one organization `system:nodes`, one common
    /// name `system:node:NAME`, and nothing else.
    #[serde(default)]
    pub node: Option<String>,
}

const DAY_S: i64 = 86_400;
/// A leaf is told this long before its end, a short-lived one in the last third of its time.
const SOON_S: i64 = 30 * DAY_S;

impl Certificate {
    /// How long it is valid in all, in seconds.
    pub fn lifetime_s(&self) -> i64 {
        self.not_after_s.saturating_sub(self.not_before_s)
    }

    /// Whether a leaf has so little time left (or none) that it should be renewed.
    pub fn is_ending_at(&self, now_s: i64) -> bool {
        self.not_after_s.saturating_sub(now_s) < SOON_S.min(self.lifetime_s() / 3)
    }

    /// Whether it is valid at a time (seconds since the Unix epoch).
    pub fn is_valid_at(&self, now_s: i64) -> bool {
        (self.not_before_s..=self.not_after_s).contains(&now_s)
    }

    /// Whether two certificates say the same of whom they are for: subject, names, addresses and usages.
    pub fn has_profile_of(&self, other: &Self) -> bool {
        let profile = |c: &Self| {
            (c.subject.clone(), c.dns_names.clone(), c.ip_addresses.clone(), c.usages.clone(), c.is_authority)
        };
        profile(self) == profile(other)
    }
}

/// A certificate as a port serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServedCertificate {
    /// Who serves: `kube-apiserver`, `etcd`, `etcd peers`, `kubelet`, ...
    pub service: String,
    /// Address and port asked.
    pub address: String,
    /// Names of the certificates in files it may be; empty where the service makes its own in memory.
    pub names: Vec<String>,
    /// The certificate.
    pub certificate: Seen<Certificate>,
}

/// The two halves of a key pair, by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyPairFacts {
    /// The file with the public half.
    pub path: HostPath,
    /// SHA-256 (hex) of the public half (SubjectPublicKeyInfo).
    pub public_sha256: Seen<String>,
    /// SHA-256 (hex) of the public half of the private one.
    pub of_private_sha256: Seen<String>,
}

/// A certificate to be renewed: everything the steps need, with no secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Renewal {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub place: CertificatePlace,
    /// The certificate as the plan saw it: whom the new one is for is read here, and its file must still hold it.
    pub old: Certificate,
    /// The folder of the run, on the same file system.
    pub folder: HostPath,
    /// For [`CertificatePlace::Link`]: the file the link will point to.
    pub behind: Option<HostPath>,
    /// Validity of the new one, seconds since the Unix epoch.
    pub not_before_s: i64,
    /// End of it.
    pub not_after_s: i64,
    /// The authority's certificate on the host that signs.
    pub authority_cert: HostPath,
    /// The authority's key there.
    pub authority_key: HostPath,
    /// SHA-256 (hex) of the DER of the authority's certificate.
    pub authority_sha256: String,
    /// Addresses and names the new one is also for.
    pub added_names: Vec<String>,
    /// Where another host signs: the node whose identity it is, and the only one it may be.
    #[serde(default)]
    pub node: Option<String>,
    /// Whether the old key is gone: then nothing of it is moved aside.
    #[serde(default)]
    pub key_missing: bool,
}

/// One file of a renewal on its way: the old one goes to `old`, the new one comes from `new`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where the file belongs.
    pub place: HostPath,
    /// Where the old one goes; none when there is none.
    pub old: Option<HostPath>,
    /// Where the new one was made; none when its owner makes it anew.
    pub new: Option<HostPath>,
}

impl Renewal {
    /// Where its new key waits to be put in place.
    pub fn key_path(&self) -> HostPath {
        self.folder.join("keys").join(format!("{}.key", self.name))
    }

    /// Its files, in the order they are moved: keys before certificates, what a link points to before the link.
    pub fn moves(&self) -> Vec<Move> {
        let one = |place: &HostPath, name: String| Move {
            place: place.clone(),
            old: Some(self.folder.join("old").join(&name)),
            new: Some(self.folder.join("new").join(&name)),
        };
        let name = &self.name;
        match &self.place {
            CertificatePlace::Pair { cert, key } => {
                let mut of_key = one(key, format!("{name}.key"));
                of_key.old = of_key.old.filter(|_| !self.key_missing);
                vec![of_key, one(cert, format!("{name}.crt"))]
            }
            CertificatePlace::Kubeconfig { path } => vec![one(path, name.clone())],
            CertificatePlace::Link { current } => {
                let mut moves = Vec::new();
                if let Some(behind) = &self.behind {
                    moves.push(Move { old: None, ..one(behind, format!("{name}.pem")) });
                }
                moves.push(one(current, format!("{name}.link")));
                moves
            }
        }
    }
}
