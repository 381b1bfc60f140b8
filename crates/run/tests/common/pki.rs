//! Certificates for the hosts of the simulated world, where kubeadm and kubelet keep theirs; about to end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use camino::Utf8Path;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::sync::OnceLock;

/// PEM of a certificate and its key.
type Pair = (String, String);

struct Pki {
    authority: Pair,
    leaf: Pair,
}

/// Made once: the tests write them thousands of times.
fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = (params.self_signed(&key).unwrap().pem(), key.serialize_pem());
        let issuer = Issuer::from_ca_cert_pem(&authority.0, key).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["cp-1".to_owned(), "10.0.0.11".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, "system:node:cp-1");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem());
        Pki { authority, leaf }
    })
}

/// Writes them below a host's root.
pub(crate) fn write(root: &Utf8Path) {
    let Pki { authority, leaf } = pki();
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for (base, pair) in [("ca", authority), ("etcd/ca", authority), ("apiserver", leaf), ("etcd/peer", leaf)]
    {
        put(&format!("etc/kubernetes/pki/{base}.crt"), &pair.0);
        put(&format!("etc/kubernetes/pki/{base}.key"), &pair.1);
    }
    put("var/lib/kubelet/pki/kubelet.crt", &leaf.0);
    put("var/lib/kubelet/pki/kubelet.key", &leaf.1);
    put("var/lib/kubelet/pki/kubelet-client-1.pem", &format!("{}{}", leaf.0, leaf.1));
    let link = root.join("var/lib/kubelet/pki/kubelet-client-current.pem");
    std::os::unix::fs::symlink("/var/lib/kubelet/pki/kubelet-client-1.pem", link).unwrap();
    let kubeconfig = format!(
        "clusters: [{{name: c, cluster: {{server: https://10.0.0.11:6443}}}}]\ncontexts: [{{name: x, context: {{cluster: c, \
         user: u}}}}]\ncurrent-context: x\nusers:\n- name: u\n  user:\n    client-certificate-data: {}\n    client-key-data: \
         {}\n",
        STANDARD.encode(&leaf.0),
        STANDARD.encode(&leaf.1)
    );
    put("etc/kubernetes/scheduler.conf", &kubeconfig);
}
