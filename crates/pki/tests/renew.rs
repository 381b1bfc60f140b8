//! Certificates made anew with authorities of each kind of key, over bytes alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SignatureAlgorithm,
};
use rekindle_model::certificate::{CertificatePlace, Renewal};
use rekindle_model::{HostPath, Redacted};
use rekindle_pki::{Error, certificate_pem, kubeconfig, read, renew};

const NOW_S: i64 = 1_795_348_800;
const DAY_S: i64 = 86_400;

/// An authority, PEM: certificate and key.
struct Authority {
    certificate: String,
    key: Redacted<Vec<u8>>,
}

fn at(seconds: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn authority(name: &str, algorithm: &'static SignatureAlgorithm) -> Authority {
    let key = key(algorithm);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = (at(NOW_S - 900 * DAY_S), at(NOW_S + 2700 * DAY_S));
    let certificate = params.self_signed(&key).unwrap().pem();
    Authority { certificate, key: Redacted::new(key.serialize_pem().into_bytes()) }
}

/// A server certificate that ended a year ago: DER.
fn expired(by: &Authority, common_name: &str, algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
    let names = vec!["cp-1".to_owned(), "10.0.0.1".to_owned(), "::1".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = (at(NOW_S - 730 * DAY_S), at(NOW_S - 365 * DAY_S));
    let signer = KeyPair::from_pem(std::str::from_utf8(by.key.expose()).unwrap()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&by.certificate, signer).unwrap();
    params.signed_by(&key(algorithm), &issuer).unwrap().der().to_vec()
}

fn renewal(old: &[u8], by: &Authority, added: &[&str]) -> Renewal {
    let ca = read::first_certificate(by.certificate.as_bytes()).unwrap();
    Renewal {
        name: "etcd-server".into(),
        place: CertificatePlace::Pair { cert: "/c".into(), key: "/k".into() },
        old: read::certificate(old).unwrap(),
        folder: HostPath::from("/rekindle-x"),
        behind: None,
        not_before_s: NOW_S - 300,
        not_after_s: NOW_S + 365 * DAY_S,
        authority_cert: "/ca.crt".into(),
        authority_key: "/ca.key".into(),
        authority_sha256: read::certificate(&ca).unwrap().sha256,
        added_names: added.iter().map(|name| (*name).to_owned()).collect(),
        node: None,
        key_missing: false,
    }
}

// The profile of the old one (subject in its order, names, usages, kind of key) comes back with a new key, whatever keys
// authority and leaf have; an added address is the only difference.
#[test]
fn the_profile_is_kept_whatever_the_keys() {
    for of_authority in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P256_SHA256] {
        for of_leaf in [&rcgen::PKCS_RSA_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let ca = authority("etcd-ca", of_authority);
            let old = expired(&ca, "cp-1", of_leaf);
            let wanted = renewal(&old, &ca, &["10.0.0.99"]);
            assert!(
                read::is_signed_by(&old, &read::first_certificate(ca.certificate.as_bytes()).unwrap())
                    .unwrap()
            );
            let key = renew::new_key(&wanted.old.key_kind).unwrap();
            let request = renew::request(&old, &wanted.added_names, &key).unwrap();
            let pem = renew::sign(&wanted, &request, ca.certificate.as_bytes(), &ca.key).unwrap();
            let made = read::certificate(&read::first_certificate(pem.as_bytes()).unwrap()).unwrap();
            assert_eq!(made.subject, "O=system:nodes, CN=cp-1");
            assert_eq!(
                (made.dns_names.clone(), made.usages.clone()),
                (wanted.old.dns_names.clone(), wanted.old.usages.clone())
            );
            assert_eq!(made.ip_addresses, ["10.0.0.1", "10.0.0.99", "::1"]);
            assert_eq!(made.key_kind, wanted.old.key_kind);
            assert_ne!(made.public_key_sha256, wanted.old.public_key_sha256);
            assert_eq!(made.public_key_sha256, read::public_half_sha256(key.expose().as_bytes()).unwrap());
            assert_eq!((made.not_before_s, made.not_after_s), (wanted.not_before_s, wanted.not_after_s));
        }
    }
}

// A host that asks for another identity than the plan saw gets none; nor does anybody from another authority, or from
// a key that is not the authority's.
#[test]
fn nobody_gets_another_identity() {
    let ca = authority("kubernetes", &rcgen::PKCS_ECDSA_P256_SHA256);
    let other = authority("kubernetes", &rcgen::PKCS_ECDSA_P256_SHA256);
    let old = expired(&ca, "system:node:w1", &rcgen::PKCS_ECDSA_P256_SHA256);
    let wanted = renewal(&old, &ca, &[]);
    let key = renew::new_key("EC-P256").unwrap();
    let greedy = expired(&ca, "system:node:cp-1", &rcgen::PKCS_ECDSA_P256_SHA256);
    let request = renew::request(&greedy, &[], &key).unwrap();
    let refused = renew::sign(&wanted, &request, ca.certificate.as_bytes(), &ca.key).unwrap_err();
    assert!(matches!(refused, Error::AnotherProfile { .. }), "{refused}");
    let request = renew::request(&old, &["evil.example".into()], &key).unwrap();
    let refused = renew::sign(&wanted, &request, ca.certificate.as_bytes(), &ca.key).unwrap_err();
    assert!(matches!(refused, Error::AnotherProfile { .. }), "{refused}");
    let request = renew::request(&old, &[], &key).unwrap();
    let refused = renew::sign(&wanted, &request, ca.certificate.as_bytes(), &other.key).unwrap_err();
    assert!(matches!(refused, Error::AuthorityKey), "{refused}");
    assert!(renew::sign(&wanted, &request, other.certificate.as_bytes(), &other.key).is_err());
    assert!(renew::sign(&wanted, &request, ca.certificate.as_bytes(), &ca.key).is_ok());
    let foreign = read::first_certificate(other.certificate.as_bytes()).unwrap();
    assert!(!read::is_signed_by(&old, &foreign).unwrap(), "same name, another key");
}

/// A client certificate for this subject.
fn of_subject(by: &Authority, organizations: &[&str], common_name: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for organization in organizations {
        params.distinguished_name.push(DnType::OrganizationName, *organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let signer = KeyPair::from_pem(std::str::from_utf8(by.key.expose()).unwrap()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&by.certificate, signer).unwrap();
    params.signed_by(&key(&rcgen::PKCS_ECDSA_P256_SHA256), &issuer).unwrap().der().to_vec()
}

// A worker was taken over. It reports a subject that reads like its own and is the controller-manager's, or one that no
// authority has signed: it gets neither. What the authority had signed for its node it gets again, and without its old
// certificate nothing.
#[test]
fn a_host_that_was_taken_over_gains_nothing() {
    let ca = authority("kubernetes", &rcgen::PKCS_ECDSA_P256_SHA256);
    let other = authority("kubernetes", &rcgen::PKCS_ECDSA_P256_SHA256);
    let key = renew::new_key("EC-P256").unwrap();
    let signed = |old: &[u8], with: &[u8]| {
        let wanted = Renewal { node: Some("w1".into()), ..renewal(old, &ca, &[]) };
        let request = renew::request(old, &[], &key).unwrap() + &certificate_pem(with);
        renew::sign(&wanted, &request, ca.certificate.as_bytes(), &ca.key)
    };
    let own = of_subject(&ca, &["system:nodes"], "system:node:w1");
    assert_eq!(read::certificate(&own).unwrap().node.as_deref(), Some("w1"));
    assert!(signed(&own, &own).is_ok());
    let posing = of_subject(&ca, &["system:nodes, CN=system:node:w1"], "system:kube-controller-manager");
    let told = read::certificate(&posing).unwrap();
    assert!(told.subject.starts_with("O=system:nodes, CN=system:node:w1"), "{}", told.subject);
    assert_eq!(told.node, None);
    let forged = of_subject(&other, &["system:nodes"], "system:node:w1");
    let of_another = of_subject(&ca, &["system:nodes"], "system:node:cp-1");
    for (old, with, why) in [
        (&posing, &posing, "the subject is not that of the node"),
        (&of_another, &of_another, "the subject is not that of the node"),
        (&forged, &forged, "not signed by this authority"),
        (&forged, &own, "not the one that the plan saw"),
    ] {
        let refused = signed(old, with).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    let wanted = Renewal { node: Some("w1".into()), ..renewal(&own, &ca, &[]) };
    let request = renew::request(&own, &[], &key).unwrap();
    let bare = renew::sign(&wanted, &request, ca.certificate.as_bytes(), &ca.key).unwrap_err().to_string();
    assert!(bare.contains("does not come with the request"), "{bare}");
}

// A kubeconfig keeps every byte but those of its identity, and an identity in files of its own is not touched.
#[test]
fn a_kubeconfig_keeps_everything_else() {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let ca = authority("kubernetes", &rcgen::PKCS_ECDSA_P256_SHA256);
    let old = expired(&ca, "admin", &rcgen::PKCS_ECDSA_P256_SHA256);
    let (old_pem, old_key) = (certificate_pem(&old), renew::new_key("EC-P256").unwrap());
    let text = format!(
        "apiVersion: v1\nkind: Config\n# a comment\nclusters:\n- name: c\n  cluster:\n    certificate-authority-data: {}\n    \
         server: https://10.0.0.1:6443\ncontexts:\n- name: x\n  context: {{cluster: c, user: u}}\ncurrent-context: x\nusers:\n\
         - name: other\n  user: {{token: t}}\n- name: u\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        encode(&ca.certificate),
        encode(&old_pem),
        encode(old_key.expose()),
    );
    assert_eq!(kubeconfig::identity(&text).unwrap().certificate, old_pem.as_bytes());
    let (new_pem, new_key) = (certificate_pem(&old[..]), renew::new_key("RSA-2048").unwrap());
    let new = kubeconfig::with_identity(&text, &new_pem, &new_key).unwrap();
    let back = new.expose().replace(&encode(new_key.expose()), &encode(old_key.expose()));
    assert_eq!(back, text);
    assert_eq!(format!("{new:?}"), "[redacted]");
    let in_files = text
        .replace("client-certificate-data", "client-certificate")
        .replace("client-key-data", "client-key");
    assert!(matches!(kubeconfig::identity(&in_files), Err(Error::NoIdentity(_))));
    let told = kubeconfig::identity(&text.replace("users:", "users: [")).unwrap_err().to_string();
    assert!(!told.contains("LS0t"), "{told}");
}

proptest! {
    // Files of a host are input: whatever stands in them is read or refused, and nothing is quoted.
    #[test]
    fn hostile_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000), cut in 0usize..400) {
        let _ = read::certificate(&bytes);
        let _ = read::first_certificate(&bytes);
        let _ = read::public_half_sha256(&bytes);
        let _ = read::public_key_sha256(&bytes);
        let _ = kubeconfig::identity(&String::from_utf8_lossy(&bytes));
        let pem = certificate_pem(&bytes);
        if let Ok(der) = read::first_certificate(pem.as_bytes()) {
            prop_assert_eq!(&der, &bytes);
        }
        let _ = read::first_certificate(&pem.as_bytes()[..cut.min(pem.len())]);
    }
}
