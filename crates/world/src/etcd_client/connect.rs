//! The transport to one etcd: TLS from files, a bounded connect, and errors that keep their causes.

use super::CONNECT;
use crate::fault::{Fault, Outcome};
use crate::host::HostErrorKind;
use crate::local::paths::Root;
use crate::tls;
use camino::Utf8Path;
use etcd_client::{Certificate, Channel, Client, Error, Identity, TlsOptions};
use rekindle_model::HostPath;
use rekindle_model::etcd::EtcdEndpoint;
use rekindle_model::seen::chain;
use std::future::Future;
use std::time::Duration;
use tonic::Code;
use tonic::transport::Endpoint;

/// An open connection to one member.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    channel: Channel,
    tls: bool,
}

/// Added to a connection closed under a call over TLS. In TLS 1.3 the server looks at the client's certificate after
/// the client takes the handshake for done; its alert then races with the first request, and may get lost.
pub(super) const CLOSED: &str = "the member stopped, or does not accept this client certificate";

impl Connection {
    /// Connects, with the TLS handshake done, so that "refused" and "bad certificate" are told apart here.
    pub(super) async fn open(endpoint: &EtcdEndpoint, root: &Utf8Path) -> Outcome<Self> {
        let transport = transport(endpoint, root)?;
        let connected = tokio::time::timeout(CONNECT, transport.connect()).await;
        let channel = connected
            .map_err(|_| Fault::unavailable(format!("no connection within {} s", CONNECT.as_secs())))?
            .map_err(|e| Fault { kind: tls::connect_kind(&e), what: format!("connect: {}", chain(&e)) })?;
        Ok(Self { channel: Channel::Tonic(channel), tls: endpoint.url.starts_with("https:") })
    }

    /// The channel itself, for calls that the client does not have; cheap.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A client on this connection; cheap.
    pub(super) async fn client(&self) -> Outcome<Client> {
        Client::from_channel(self.channel.clone(), None).await.map_err(fault)
    }

    /// Waits for a call, at most `limit`.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Outcome<T> {
        match tokio::time::timeout(limit, call).await {
            Ok(Err(error)) if self.tls && closed(&error) => {
                let fault = fault(error);
                Err(Fault { what: format!("{}: {CLOSED}", fault.what), ..fault })
            }
            Ok(answer) => answer.map_err(fault),
            Err(_) => Err(Fault::unavailable(format!("no answer within {} s", limit.as_secs()))),
        }
    }
}

fn transport(endpoint: &EtcdEndpoint, root: &Utf8Path) -> Outcome<Endpoint> {
    let bad_url = |e: &dyn std::error::Error| Fault::failed(format!("not an endpoint: {}", chain(e)));
    let transport = Endpoint::from_shared(endpoint.url.clone()).map_err(|e| bad_url(&e))?;
    // Windows of 2 MiB: a snapshot streams at the speed of the disk instead of 64 KiB per round trip.
    let transport = transport
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .initial_stream_window_size(2 << 20)
        .initial_connection_window_size(4 << 20);
    match transport.uri().scheme_str() {
        Some("http") => Ok(transport),
        Some("https") => {
            tls::install_provider();
            let options = tls_options(endpoint, transport.uri().host().unwrap_or_default(), root)?;
            transport.tls_config(options).map_err(|e| Fault::failed(format!("TLS identity: {}", chain(&e))))
        }
        _ => Err(Fault::failed("not an endpoint: neither http nor https")),
    }
}

fn tls_options(endpoint: &EtcdEndpoint, host: &str, root: &Utf8Path) -> Outcome<TlsOptions> {
    // The name to verify without the brackets that a URL puts around an IPv6 address.
    let mut options = TlsOptions::new().domain_name(host.trim_start_matches('[').trim_end_matches(']'));
    let read = |what: &str, path: &HostPath| tls::read_pem(what, &Root::new(root).resolve(path)?);
    if let Some(cacert) = &endpoint.cacert {
        options = options.ca_certificate(Certificate::from_pem(read("CERTIFICATE", cacert)?));
    }
    if let (Some(cert), Some(key)) = (&endpoint.cert, &endpoint.key) {
        let identity = Identity::from_pem(read("CERTIFICATE", cert)?, read("PRIVATE KEY", key)?);
        options = options.identity(identity);
    }
    Ok(options)
}

/// Whether the connection was closed under a call: by an alert, a reset or a broken pipe, whichever the race shows. A
/// status that etcd sends has no cause on this side.
fn closed(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if std::error::Error::source(status).is_some())
}

/// A failed call, with the causes that the gRPC library keeps behind the status.
pub(super) fn fault(error: Error) -> Fault {
    let Error::GRpcStatus(status) = &error else {
        return Fault::failed(error.to_string());
    };
    let mut what =
        if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
    let source = std::error::Error::source(status);
    if let Some(source) = source {
        what = format!("{what}: {}", chain(source));
    }
    let kind = match (status.code(), source) {
        (Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled, _) => HostErrorKind::Unavailable,
        (Code::NotFound, _) => HostErrorKind::NotFound,
        (Code::FailedPrecondition | Code::ResourceExhausted, _) => HostErrorKind::Refused,
        // no status from etcd: the connection broke
        (Code::Unknown | Code::Internal, Some(source)) => tls::connect_kind(source),
        _ => HostErrorKind::Failed,
    };
    Fault { kind, what }
}
