//! What every TLS connection of this crate shares: the cryptography provider and the reading of PEM files; and the
//! certificate that a port shows.

use crate::fault::{Fault, Outcome};
use crate::host::HostErrorKind;
use camino::Utf8Path;
use rekindle_model::Seen;
use rekindle_model::certificate::Certificate;
use rekindle_model::seen::chain;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest wait for a port of this machine to show its certificate: no longer than etcd is given to say whether it has a
/// quorum, for which everybody waits.
const SERVED_TIMEOUT: Duration = Duration::from_secs(2);

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
    if causes(error).any(|cause| cause.is::<rustls::Error>()) {
        HostErrorKind::Failed
    } else {
        HostErrorKind::Unavailable
    }
}

/// An error and all that caused it. An io::Error names its inner error's cause as its own, and so hides the inner one from
/// the chain of sources.
pub(crate) fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |cause| {
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inner.map(|inner| inner as &(dyn std::error::Error + 'static)).or_else(|| cause.source())
    })
}

/// Keeps the certificate a server shows, and takes any: it is looked at, not trusted.
#[derive(Debug)]
struct Keeper {
    shown: Mutex<Option<Vec<u8>>>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Keeper {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// The certificate that a port of this machine shows to a client without one. Blocking, bounded in time.
pub(crate) fn served_certificate(address: &str) -> Seen<Certificate> {
    match shown(address) {
        Ok(der) => Seen::from_result(rekindle_pki::read::certificate(&der)),
        Err(fault) => Seen::Unknown(format!("{address}: {}", fault.what)),
    }
}

fn shown(address: &str) -> Outcome<Vec<u8>> {
    let address: SocketAddr = address.parse().map_err(|_| Fault::failed("not an address and port"))?;
    if !crate::api::is_this_machine(&address.ip().to_string()) {
        return Err(Fault::refused("not an address of this machine"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let keeper = Arc::new(Keeper { shown: Mutex::new(None), schemes });
    let failed = |error: &dyn std::error::Error| Fault::failed(chain(error));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .dangerous()
        .with_custom_certificate_verifier(keeper.clone())
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), ServerName::IpAddress(address.ip().into()))
        .map_err(|e| failed(&e))?;
    let mut stream = TcpStream::connect_timeout(&address, SERVED_TIMEOUT)
        .map_err(|e| Fault::unavailable(format!("connect: {e}")))?;
    stream
        .set_read_timeout(Some(SERVED_TIMEOUT))
        .and_then(|()| stream.set_write_timeout(Some(SERVED_TIMEOUT)))
        .map_err(|e| Fault::io("set a time limit", &e))?;
    // A server that wants a client certificate ends the handshake, but has shown its own by then.
    let ended = connection.complete_io(&mut stream);
    let shown = keeper.shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (shown, ended) {
        (Some(der), _) => Ok(der),
        (None, Err(error)) => Err(Fault::unavailable(format!("TLS: {error}"))),
        (None, Ok(_)) => Err(Fault::failed("it showed no certificate")),
    }
}
