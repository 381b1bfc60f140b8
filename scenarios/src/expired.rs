//! A cluster that was off for two years: every leaf certificate signed anew by the cluster's own authorities, with an end
//! a year ago. Keys and authorities stay; so it is the cluster that it would be.

use crate::Cluster;
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::net::Ipv4Addr;
use std::time::SystemTime;
use testbed::Host;
use time::{Duration, OffsetDateTime};

const PKI: &str = "/etc/kubernetes/pki";
const KUBELET: &str = "/var/lib/kubelet/pki";
const YEAR: Duration = Duration::days(365);

/// Whom a certificate is for (kubeadm `phases/certs/certlist.go`, `phases/kubeconfig`).
struct Profile {
    organization: Option<&'static str>,
    common_name: String,
    names: Vec<String>,
    server: bool,
    client: bool,
}

impl Profile {
    fn client(organization: Option<&'static str>, common_name: impl Into<String>) -> Self {
        Self { organization, common_name: common_name.into(), names: Vec::new(), server: false, client: true }
    }
}

/// Lets every leaf certificate of a stopped control-plane host, or of a worker, end a year ago.
///
/// # Errors
/// When a file is not as kubeadm and kubelet write it.
pub fn expire(cluster: &Cluster, host: &Host) -> Result<()> {
    let first = cluster.set.host("cp1")?;
    let ca = authority(first, "ca")?;
    if host.name.starts_with("cp") {
        let (etcd, proxy) = (authority(first, "etcd/ca")?, authority(first, "front-proxy-ca")?);
        let endpoint = cluster.set.host("lb").map_or(host.ip, |lb| lb.ip);
        for (base, profile) in pairs(host, endpoint) {
            let by = if base.starts_with("etcd/") || base == "apiserver-etcd-client" {
                &etcd
            } else if base == "front-proxy-client" {
                &proxy
            } else {
                &ca
            };
            let key = host.read(&format!("{PKI}/{base}.key"))?;
            host.write(&format!("{PKI}/{base}.crt"), signed(by, &profile, &key)?)?;
        }
        for (name, profile) in kubeconfigs() {
            kubeconfig(host, name, &ca, &profile)?;
        }
    }
    let node = Profile::client(Some("system:nodes"), format!("system:node:{}", host.name));
    kubelet(host, &ca, &node)
}

type Authority = Issuer<'static, KeyPair>;

fn authority(host: &Host, base: &str) -> Result<Authority> {
    let key = key(&host.read(&format!("{PKI}/{base}.key"))?)?;
    let certificate = String::from_utf8(host.read(&format!("{PKI}/{base}.crt"))?)?;
    Ok(Issuer::from_ca_cert_pem(&certificate, key)?)
}

fn key(pem: &[u8]) -> Result<KeyPair> {
    let text = std::str::from_utf8(pem)?;
    let start = text.find("-----BEGIN ").and_then(|_| {
        text.match_indices("-----BEGIN ").map(|(at, _)| at).find(|at| {
            text.get(*at..).and_then(|rest| rest.lines().next()).is_some_and(|l| l.contains("PRIVATE KEY"))
        })
    });
    let block = start.and_then(|at| text.get(at..)).context("no private key")?;
    Ok(KeyPair::from_pem(block)?)
}

fn signed(by: &Authority, profile: &Profile, of_key: &[u8]) -> Result<String> {
    let mut params = CertificateParams::new(profile.names.clone())?;
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = profile.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, profile.common_name.as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let usages = [
        (profile.server, ExtendedKeyUsagePurpose::ServerAuth),
        (profile.client, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    params.extended_key_usages = usages.into_iter().filter(|(given, _)| *given).map(|(_, u)| u).collect();
    let now = OffsetDateTime::from(SystemTime::now());
    (params.not_before, params.not_after) = (now - YEAR * 2, now - YEAR);
    Ok(params.signed_by(&key(of_key)?, by)?.pem())
}

fn pairs(host: &Host, endpoint: Ipv4Addr) -> Vec<(&'static str, Profile)> {
    let (name, ip) = (host.name.clone(), host.ip.to_string());
    let text = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let service = "kubernetes.default.svc.cluster.local";
    let mut api =
        text(&[&name, "kubernetes", "kubernetes.default", "kubernetes.default.svc", service, "localhost"]);
    api.extend(["10.96.0.1".to_owned(), ip.clone(), "127.0.0.1".to_owned()]);
    if endpoint != host.ip {
        api.push(endpoint.to_string());
    }
    let member = || Profile {
        names: text(&[&name, "localhost", &ip, "127.0.0.1", "::1"]),
        server: true,
        ..Profile::client(None, name.clone())
    };
    let server =
        Profile { names: api, server: true, client: false, ..Profile::client(None, "kube-apiserver") };
    vec![
        ("apiserver", server),
        (
            "apiserver-kubelet-client",
            Profile::client(Some("kubeadm:cluster-admins"), "kube-apiserver-kubelet-client"),
        ),
        ("apiserver-etcd-client", Profile::client(None, "kube-apiserver-etcd-client")),
        ("etcd/server", member()),
        ("etcd/peer", member()),
        ("etcd/healthcheck-client", Profile::client(None, "kube-etcd-healthcheck-client")),
        ("front-proxy-client", Profile::client(None, "front-proxy-client")),
    ]
}

fn kubeconfigs() -> [(&'static str, Profile); 4] {
    [
        ("admin.conf", Profile::client(Some("kubeadm:cluster-admins"), "kubernetes-admin")),
        ("super-admin.conf", Profile::client(Some("system:masters"), "kubernetes-super-admin")),
        ("controller-manager.conf", Profile::client(None, "system:kube-controller-manager")),
        ("scheduler.conf", Profile::client(None, "system:kube-scheduler")),
    ]
}

fn kubeconfig(host: &Host, name: &str, ca: &Authority, profile: &Profile) -> Result<()> {
    let path = format!("/etc/kubernetes/{name}");
    let Ok(text) = host.read(&path) else { return Ok(()) }; // super-admin.conf is on the first host alone
    let text = String::from_utf8(text)?;
    let value = |field: &str| {
        text.lines().find_map(|line| line.trim().strip_prefix(field)).map(str::trim).map(str::to_owned)
    };
    let (old, key) = (value("client-certificate-data:"), value("client-key-data:"));
    let (Some(old), Some(key)) = (old, key) else { bail!("{path} holds no identity") };
    let new = signed(ca, profile, &STANDARD.decode(key)?)?;
    host.write(&path, text.replace(&old, &STANDARD.encode(new)))
}

/// The node's own: the file behind kubelet's link, and the pair kubelet signed itself.
fn kubelet(host: &Host, ca: &Authority, profile: &Profile) -> Result<()> {
    let link = host.path(&format!("{KUBELET}/kubelet-client-current.pem"));
    if let Ok(behind) = link.read_link_utf8() {
        let text = host.read(behind.as_str())?;
        let whole = String::from_utf8(text.clone())?;
        let key_block = whole
            .match_indices("-----BEGIN ")
            .map(|(at, _)| whole.get(at..).unwrap_or_default())
            .find(|rest| rest.lines().next().is_some_and(|line| line.contains("PRIVATE KEY")))
            .context("no key behind kubelet's link")?;
        host.write(behind.as_str(), format!("{}{key_block}", signed(ca, profile, &text)?))?;
    } else {
        kubeconfig(host, "kubelet.conf", ca, profile)?;
    }
    let own = host.read(&format!("{KUBELET}/kubelet.key"))?;
    let serving = Profile {
        names: vec![host.name.clone()],
        server: true,
        client: false,
        ..Profile::client(None, format!("{}@0", host.name))
    };
    host.write(&format!("{KUBELET}/kubelet.crt"), signed(ca, &serving, &own)?)
}
