//! PEM (RFC 7468): blocks of a file, and a certificate as one.

use crate::Error;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rekindle_model::Redacted;

/// Larger than any file with certificates: a bundle of hundreds fits.
const MAX_BYTES: usize = 4 << 20;
/// Most blocks of a file.
const MAX_BLOCKS: usize = 1000;

/// The content of the first block whose label ends so.
pub(crate) fn block(text: &[u8], label: &'static str) -> Result<Redacted<Vec<u8>>, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLarge(MAX_BYTES));
    }
    let blocks = x509_parser::pem::Pem::iter_from_buffer(text).take(MAX_BLOCKS);
    let mut of_label = blocks.flatten().filter(|pem| pem.label.ends_with(label));
    of_label.next().map(|pem| Redacted::new(pem.contents)).ok_or(Error::NoBlock(label))
}

/// DER of a certificate as a PEM block.
pub fn certificate_pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text + "-----END CERTIFICATE-----\n"
}
