//! Making a certificate anew: a key and a request for it where the old one lies, a signature where the authority is.
//!
//! The request says for whom (subject, names, usages) by the old certificate, as `kubeadm certs renew` does; the signer
//! checks the result against the plan, so that no host can ask for somebody else's certificate. For another host's node the
//! plan only knows what that host said: there the old certificate comes with the request, and its signature is proved.

use crate::Error;
use crate::read::{alternative_names, certificate, first_certificate, is_signed_by, key_pair, parse, sha256};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, RsaKeySize, SanType,
};
use rekindle_model::Redacted;
use rekindle_model::certificate::{Certificate, Renewal};
use std::net::IpAddr;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// A new key of this kind (`RSA-2048`, `EC-P256`, ...), PEM (PKCS#8).
///
/// # Errors
/// For kinds that are not known.
pub fn new_key(kind: &str) -> Result<Redacted<String>, Error> {
    let made = match kind {
        "RSA-2048" => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        "RSA-3072" => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        "RSA-4096" => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        "EC-P256" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        "EC-P384" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        "Ed25519" => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        other => return Err(Error::Unsupported(format!("a key of kind {other}"))),
    };
    let made = made.map_err(|source| Error::Make { doing: "make a key", source })?;
    Ok(Redacted::new(made.serialize_pem()))
}

/// A certificate signing request (PEM, RFC 2986) for a key, that asks for what the old certificate (DER) is for, and
/// for these names and addresses too.
///
/// # Errors
/// When the old one holds something that can't be asked for again.
pub fn request(old: &[u8], added_names: &[String], key: &Redacted<String>) -> Result<String, Error> {
    let old = parse(old)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&old)?;
    params.subject_alt_names = names(&old, added_names)?;
    params.key_usages = key_usages(&old)?;
    params.extended_key_usages = extended_usages(&old)?;
    let key = key_pair(key.expose().as_bytes())?;
    let made = params.serialize_request(&key).and_then(|request| request.pem());
    made.map_err(|source| Error::Make { doing: "make a request", source })
}

/// The subject, kept in its order and with its kinds of strings.
fn subject(old: &X509Certificate<'_>) -> Result<DistinguishedName, Error> {
    let mut name = DistinguishedName::new();
    for attribute in old.subject().iter_attributes() {
        let oid: Vec<u64> = attribute.attr_type().iter().map(Iterator::collect).ok_or(Error::Certificate)?;
        let kind = DnType::from_oid(&oid);
        if name.get(&kind).is_some() {
            return Err(Error::Unsupported(format!("a subject with two of one kind ({})", old.subject())));
        }
        let text = attribute.as_str().map_err(|_| Error::Unsupported("the subject's kind of text".into()))?;
        let printable = text.parse().ok().map(DnValue::PrintableString);
        name.push(kind, printable.unwrap_or_else(|| DnValue::Utf8String(text.to_owned())));
    }
    Ok(name)
}

fn names(old: &X509Certificate<'_>, added: &[String]) -> Result<Vec<SanType>, Error> {
    let mut all = Vec::new();
    for name in alternative_names(old)? {
        let name = match name {
            GeneralName::DNSName(name) => dns(name)?,
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                SanType::IpAddress(address.map_err(|_| Error::Certificate)?)
            }
            other => return Err(Error::Unsupported(format!("the alternative name {other}"))),
        };
        all.push(name);
    }
    for name in added {
        let name = name.parse().map_or_else(|_| dns(name), |address| Ok(SanType::IpAddress(address)))?;
        if !all.contains(&name) {
            all.push(name);
        }
    }
    Ok(all)
}

fn dns(name: &str) -> Result<SanType, Error> {
    name.try_into().map(SanType::DnsName).map_err(|_| Error::Unsupported(format!("the name {name}")))
}

fn key_usages(old: &X509Certificate<'_>) -> Result<Vec<KeyUsagePurpose>, Error> {
    let Some(found) = old.key_usage().map_err(|_| Error::Certificate)? else { return Ok(Vec::new()) };
    let usage = found.value;
    let all = [
        (usage.digital_signature(), KeyUsagePurpose::DigitalSignature),
        (usage.non_repudiation(), KeyUsagePurpose::ContentCommitment),
        (usage.key_encipherment(), KeyUsagePurpose::KeyEncipherment),
        (usage.data_encipherment(), KeyUsagePurpose::DataEncipherment),
        (usage.key_agreement(), KeyUsagePurpose::KeyAgreement),
    ];
    Ok(all.into_iter().filter(|(given, _)| *given).map(|(_, usage)| usage).collect())
}

fn extended_usages(old: &X509Certificate<'_>) -> Result<Vec<ExtendedKeyUsagePurpose>, Error> {
    let Some(found) = old.extended_key_usage().map_err(|_| Error::Certificate)? else {
        return Ok(Vec::new());
    };
    let usage = found.value;
    if let Some(other) = usage.other.first() {
        return Err(Error::Unsupported(format!("the key usage {other}")));
    }
    let all = [
        (usage.any, ExtendedKeyUsagePurpose::Any),
        (usage.server_auth, ExtendedKeyUsagePurpose::ServerAuth),
        (usage.client_auth, ExtendedKeyUsagePurpose::ClientAuth),
        (usage.code_signing, ExtendedKeyUsagePurpose::CodeSigning),
        (usage.email_protection, ExtendedKeyUsagePurpose::EmailProtection),
        (usage.time_stamping, ExtendedKeyUsagePurpose::TimeStamping),
        (usage.ocsp_signing, ExtendedKeyUsagePurpose::OcspSigning),
    ];
    Ok(all.into_iter().filter(|(given, _)| *given).map(|(_, usage)| usage).collect())
}

/// Signs a request (PEM) with an authority's certificate and key (PEM). Returns the new certificate, PEM.
///
/// # Errors
/// When the key is not the authority's, the authority is not the one the plan names, the request's own signature does
/// not hold, or what it asks for is not what is to be renewed.
pub fn sign(
    wanted: &Renewal,
    request: &str,
    authority: &[u8],
    key: &Redacted<Vec<u8>>,
) -> Result<String, Error> {
    let authority_der = first_certificate(authority)?;
    let key = key_pair(key.expose())?;
    let known = certificate(&authority_der)?;
    if known.public_key_sha256 != sha256(&key.subject_public_key_info()) {
        return Err(Error::AuthorityKey);
    }
    if known.sha256 != wanted.authority_sha256 {
        return Err(Error::Unsupported("another authority than the one seen".into()));
    }
    let make = |doing| move |source| Error::Make { doing, source };
    let mut asked = CertificateSigningRequestParams::from_pem(request).map_err(make("read the request"))?;
    let leaf = [
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::ContentCommitment,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DataEncipherment,
        KeyUsagePurpose::KeyAgreement,
    ];
    asked.params.key_usages.retain(|usage| leaf.contains(usage));
    asked.params.is_ca = IsCa::ExplicitNoCa;
    asked.params.use_authority_key_identifier_extension = true;
    asked.params.not_before = at(wanted.not_before_s)?;
    asked.params.not_after = at(wanted.not_after_s)?;
    let issuer = Issuer::from_ca_cert_der(&authority_der.as_slice().into(), key)
        .map_err(make("read the authority"))?;
    let made = asked.signed_by(&issuer).map_err(make("sign"))?;
    check(wanted, made.der(), &authority_der)?;
    if let Some(node) = &wanted.node {
        prove_node(wanted, node, request, made.der(), &authority_der)?;
    }
    Ok(crate::certificate_pem(made.der()))
}

/// That the authority has signed the very same before, and that it is that node's identity by its attributes.
fn prove_node(
    wanted: &Renewal,
    node: &str,
    request: &str,
    made: &[u8],
    authority: &[u8],
) -> Result<(), Error> {
    let refused = |why| Err(Error::NotOfNode { node: node.to_owned(), why });
    let Ok(old) = first_certificate(request.as_bytes()) else {
        return refused("its old one does not come with the request");
    };
    let (held, made) = (certificate(&old)?, certificate(made)?);
    if held.sha256 != wanted.old.sha256 {
        return refused("its old one is not the one that the plan saw");
    }
    if !is_signed_by(&old, authority)? {
        return refused("its old one is not signed by this authority");
    }
    if held.node.as_deref() != Some(node) || made.node.as_deref() != Some(node) {
        return refused("the subject is not that of the node");
    }
    if !made.has_profile_of(&expected(&held, &wanted.added_names)) {
        return refused("the old one is for other names or usages");
    }
    Ok(())
}

fn at(seconds: i64) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| Error::Unsupported(format!("the time {seconds}")))
}

/// Whether a new certificate (DER) is the one wanted: for whom the old one was, by that authority.
///
/// # Errors
/// When it is not.
pub fn check(wanted: &Renewal, made: &[u8], authority: &[u8]) -> Result<(), Error> {
    let expected = expected(&wanted.old, &wanted.added_names);
    let found = certificate(made)?;
    if !found.has_profile_of(&expected) {
        return Err(Error::AnotherProfile { asked: told(&found), wanted: told(&expected) });
    }
    if is_signed_by(made, authority)? { Ok(()) } else { Err(Error::AuthorityKey) }
}

/// The old one's profile with the added names.
fn expected(old: &Certificate, added: &[String]) -> Certificate {
    let mut expected = old.clone();
    for name in added {
        let list =
            if name.parse::<IpAddr>().is_ok() { &mut expected.ip_addresses } else { &mut expected.dns_names };
        if !list.contains(name) {
            list.push(name.clone());
        }
    }
    expected.ip_addresses.sort();
    expected.dns_names.sort();
    expected
}

fn told(one: &Certificate) -> String {
    let names: Vec<&str> = one.dns_names.iter().chain(&one.ip_addresses).map(String::as_str).collect();
    format!("{} [{}] ({})", one.subject, names.join(", "), one.usages.join(", "))
}
