//! What every TLS connection of this crate shares: the cryptography provider and the reading of PEM files.

use crate::fault::{Fault, Outcome};
use crate::host::HostErrorKind;
use camino::Utf8Path;
use std::io::Read as _;

/// Longest PEM file that is read: bundles of hundreds of certificates fit.
const MAX_PEM_BYTES: u64 = 4 << 20;

/// Makes aws-lc-rs the process's cryptography, once; libraries that find two linked in refuse to choose.
pub(crate) fn install_provider() {
    // an error only says that one is installed already
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Reads a PEM file that must hold a block whose label ends with `label`. No error text quotes its content.
pub(crate) fn read_pem(label: &str, path: &Utf8Path) -> Outcome<Vec<u8>> {
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Fault::io(format_args!("open {path}"), &e))?;
    file.take(MAX_PEM_BYTES).read_to_end(&mut pem).map_err(|e| Fault::io(format_args!("read {path}"), &e))?;
    let wanted = format!("{label}-----");
    let found = pem.split(|b| *b == b'\n').any(|line| {
        let line = line.trim_ascii();
        line.starts_with(b"-----BEGIN ") && line.ends_with(wanted.as_bytes())
    });
    if found { Ok(pem) } else { Err(Fault::failed(format!("{path}: holds no PEM block {label}"))) }
}

/// Whether a failed connect means "not there (yet)" or TLS trouble, which waiting does not mend.
pub(crate) fn connect_kind(error: &(dyn std::error::Error + 'static)) -> HostErrorKind {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<rustls::Error>() {
            return HostErrorKind::Failed;
        }
        // an io::Error names its inner error's cause as its own and so hides the inner one from the chain
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = inner.map(|e| e as &(dyn std::error::Error + 'static)).or_else(|| cause.source());
    }
    HostErrorKind::Unavailable
}
