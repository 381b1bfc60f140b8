//! The fingerprint of a CA certificate: what tells clusters apart when nothing answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Longer than any certificate.
const MAX_PEM_BYTES: usize = 64 << 10;

/// SHA-256 (hex) of the DER of the first certificate in a text that holds PEM (RFC 7468): a file, or a stored object.
pub(crate) fn sha256_of_first(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let start = text.find(BEGIN)? + BEGIN.len();
    let rest = text.get(start..)?;
    let body = rest.get(..rest.find(END).filter(|end| *end <= MAX_PEM_BYTES)?)?;
    // In JSON the line breaks are written as `\n`.
    let body: String = body.replace("\\n", "").chars().filter(|c| !c.is_whitespace()).collect();
    let der = STANDARD.decode(body).ok()?;
    Some(crate::local::files::hex(&Sha256::digest(der)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The same certificate must have one fingerprint, in a file, in protobuf and in JSON.
    #[test]
    fn one_certificate_one_fingerprint() {
        let body = STANDARD.encode([7_u8; 100]);
        let (first, last) = body.split_at(64);
        let file = format!("# comment\n{BEGIN}\n{first}\n{last}\n{END}\n{BEGIN}\nAAAA\n{END}\n");
        let json = format!("{{\"ca.crt\":\"{BEGIN}\\n{first}\\n{last}\\n{END}\\n\"}}");
        let expected = sha256_of_first(file.as_bytes()).unwrap();
        assert_eq!(expected, crate::local::files::hex(&Sha256::digest([7_u8; 100])));
        assert_eq!(sha256_of_first(json.as_bytes()).unwrap(), expected);
        assert_eq!(
            sha256_of_first([b"\x0a\xff\x00", file.as_bytes()].concat().as_slice()).unwrap(),
            expected
        );
        assert_eq!(sha256_of_first(b"-----BEGIN CERTIFICATE-----"), None);
    }
}
