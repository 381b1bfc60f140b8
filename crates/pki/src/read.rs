//! Reading certificates and keys.

use crate::Error;
use crate::pem::block;
use rcgen::{KeyPair, PublicKeyData};
use rekindle_model::Redacted;
use rekindle_model::certificate::Certificate;
use sha2::{Digest, Sha256};
use std::net::{Ipv4Addr, Ipv6Addr};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Most names of one certificate that are kept.
const MAX_NAMES: usize = 1000;

/// DER of the first certificate in a PEM text: the one a server or client shows first (RFC 8446, 4.4.2).
///
/// # Errors
/// When it holds none.
pub fn first_certificate(pem: &[u8]) -> Result<Vec<u8>, Error> {
    Ok(block(pem, "CERTIFICATE")?.expose().clone())
}

/// The certificate of a DER.
///
/// # Errors
/// When it does not parse.
pub fn certificate(der: &[u8]) -> Result<Certificate, Error> {
    let parsed = parse(der)?;
    let mut found = Certificate {
        sha256: sha256(der),
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        not_before_s: parsed.validity().not_before.timestamp(),
        not_after_s: parsed.validity().not_after.timestamp(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        usages: usages(&parsed)?,
        is_authority: parsed.is_ca(),
        key_kind: key_kind(parsed.public_key()),
        public_key_sha256: sha256(parsed.public_key().raw),
        node: node(&parsed),
    };
    for name in alternative_names(&parsed)? {
        match name {
            GeneralName::DNSName(name) => found.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => found.ip_addresses.push(address(bytes)),
            other => found.dns_names.push(other.to_string()),
        }
    }
    found.dns_names.sort();
    found.ip_addresses.sort();
    Ok(found)
}

/// The node whose identity a certificate is. Its subject as text does not tell: an organization may be called
/// `system:nodes, CN=system:node:w1`.
fn node(parsed: &X509Certificate<'_>) -> Option<String> {
    let subject = parsed.subject();
    let (mut organizations, mut names) = (subject.iter_organization(), subject.iter_common_name());
    let (organization, name) = (organizations.next()?.as_str().ok()?, names.next()?.as_str().ok()?);
    let name = name.strip_prefix("system:node:")?;
    // a DNS subdomain, as names of nodes are (RFC 1123)
    let of_host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let sound = !name.is_empty() && name.chars().all(of_host);
    let alone = subject.iter_attributes().count() == 2;
    (alone && organization == "system:nodes" && sound).then(|| name.to_owned())
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|_| Error::Certificate)
}

pub(crate) fn alternative_names<'c>(
    parsed: &'c X509Certificate<'_>,
) -> Result<Vec<&'c GeneralName<'c>>, Error> {
    let names = parsed.subject_alternative_name().map_err(|_| Error::Certificate)?;
    Ok(names.map(|names| names.value.general_names.iter().take(MAX_NAMES).collect()).unwrap_or_default())
}

fn address(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ipv4Addr::from(v4).to_string();
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(v6) => Ipv6Addr::from(v6).to_string(),
        Err(_) => "an address of another length".into(),
    }
}

fn usages(parsed: &X509Certificate<'_>) -> Result<Vec<String>, Error> {
    let Some(found) = parsed.extended_key_usage().map_err(|_| Error::Certificate)? else {
        return Ok(Vec::new());
    };
    let usage = found.value;
    let known = [
        (usage.any, "anyExtendedKeyUsage"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let mut all: Vec<String> =
        known.iter().filter(|(given, _)| *given).map(|(_, name)| (*name).to_owned()).collect();
    all.extend(usage.other.iter().take(MAX_NAMES).map(ToString::to_string));
    all.sort();
    Ok(all)
}

/// OIDs of the curves that keys of a control plane are on (RFC 5480, 2.1.1.1).
const CURVES: [(&str, &str); 3] =
    [("1.2.840.10045.3.1.7", "EC-P256"), ("1.3.132.0.34", "EC-P384"), ("1.3.132.0.35", "EC-P521")];

fn key_kind(key: &SubjectPublicKeyInfo<'_>) -> String {
    match key.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA-{}", key.key_size()),
        Ok(PublicKey::EC(_)) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
            let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
            CURVES.iter().find(|(oid, _)| *oid == curve).map_or("EC", |(_, name)| name).to_owned()
        }
        _ if key.algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".into(),
        _ => "unknown".into(),
    }
}

/// Whether an authority signed a certificate: by name and by signature (RFC 5280, 6.1.3). Validity is not looked at.
///
/// # Errors
/// When one of them does not parse.
pub fn is_signed_by(der: &[u8], authority: &[u8]) -> Result<bool, Error> {
    let (parsed, authority) = (parse(der)?, parse(authority)?);
    let same_name = parsed.issuer().as_raw() == authority.subject().as_raw();
    Ok(same_name && parsed.verify_signature(Some(authority.public_key())).is_ok())
}

/// SHA-256 (hex) of the public half of the first private key in a PEM text.
///
/// # Errors
/// When there is none, or it is of a kind that is not supported.
pub fn public_half_sha256(pem: &[u8]) -> Result<String, Error> {
    Ok(sha256(&key_pair(pem)?.subject_public_key_info()))
}

/// SHA-256 (hex) of the public key in a PEM text: of a `PUBLIC KEY` block (SubjectPublicKeyInfo).
///
/// # Errors
/// When there is none.
pub fn public_key_sha256(pem: &[u8]) -> Result<String, Error> {
    let der = block(pem, "PUBLIC KEY")?;
    let (_, key) = SubjectPublicKeyInfo::from_der(der.expose()).map_err(|_| Error::Key)?;
    Ok(sha256(key.raw))
}

/// The first private key of a PEM text: PKCS#8, PKCS#1 or SEC1.
pub(crate) fn key_pair(pem: &[u8]) -> Result<KeyPair, Error> {
    let der: Redacted<Vec<u8>> = block(pem, "PRIVATE KEY")?;
    KeyPair::try_from(der.expose().as_slice()).map_err(|_| Error::Key)
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
