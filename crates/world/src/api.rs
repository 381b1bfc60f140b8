//! Requests to an API server with a kubeconfig's identity, and health requests on this machine.
//!
//! One connection per request. Both go through the `kube` client, which knows kubeconfigs, TLS identities and tokens;
//! nothing is retried and no redirect followed here: callers decide by the status code.

use crate::fault::{Fault, Outcome};
use crate::host::{ApiRequest, HostErrorKind, HttpAnswer};
use crate::local::paths::Root;
use crate::tls;
use camino::{Utf8Path, Utf8PathBuf};
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use kube::config::{AuthInfo, Config, KubeConfigOptions, Kubeconfig};
use rekindle_model::HostPath;
use rekindle_model::etcd::EtcdEndpoint;
use rekindle_model::seen::chain;
use std::io::Read as _;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

/// Longest body of an answer.
const MAX_BODY_BYTES: usize = 32 << 20;
/// Longest kubeconfig.
const MAX_KUBECONFIG_BYTES: u64 = 4 << 20;
/// Longest wait for one answer of a member to its peers.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);
/// A name that kubeadm and every other installer puts into the certificate of an API server: pods reach it by that.
const API_SERVER_NAME: &str = "kubernetes";

/// Makes one HTTP request to an API server with the identity of a kubeconfig under `root`. Any status is an answer.
///
/// With [`ApiRequest::server`] the certificate is checked against the kubeconfig's CA and for the name `kubernetes`,
/// not for the address asked: `127.0.0.1` is usually not in it.
///
/// # Errors
/// `Unavailable`: no connection or no answer in time. `NotFound`: no such file. `Failed`: a kubeconfig that can't be
/// used, and TLS trouble. The text names the kubeconfig, the server and the request, and holds no secret.
pub async fn api(request: &ApiRequest, root: &Utf8Path) -> Outcome<HttpAnswer> {
    let mut config = config(request, root).await.map_err(|fault| named(&request.kubeconfig, fault))?;
    let server = config.cluster_url.to_string();
    let what = format!("{} {}{}", request.method, server.trim_end_matches('/'), request.path);
    let timeout = Duration::from_millis(request.timeout_ms);
    config.connect_timeout = Some(timeout);
    let built = Request::builder()
        .method(request.method.as_str())
        .uri(request.path.as_str())
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, request.content_type.as_str())
        .body(Body::from(request.body.clone()));
    let built = built.map_err(|e| Fault::failed(format!("{what}: not a request: {e}")))?;
    exchange(config, built, timeout).await.map_err(|fault| named(&what, fault))
}

/// Makes one GET on this machine, `http` or `https`, the certificate not verified. Any status is an answer.
///
/// # Errors
/// `Refused`: the host of the URL is neither `localhost` nor an address of this machine (an unverified certificate
/// says nothing about who answers elsewhere). `Unavailable`: no connection or no answer in time.
pub async fn http_get(url: &str, timeout_ms: u64) -> Outcome<HttpAnswer> {
    get_here(url, None, Duration::from_millis(timeout_ms)).await
}

/// Whether the etcd of this machine answers its peers: it does so once its own checks at the start are over, while its
/// port takes connections and shakes hands before (etcd `server/embed/etcd.go`, `servePeers`).
///
/// # Errors
/// An endpoint that is not this machine's, an identity that can't be read or is not accepted.
pub async fn serves_peers(endpoint: &EtcdEndpoint, root: &Utf8Path) -> Outcome<bool> {
    let root = Root::new(root);
    let resolved = |path: &HostPath| root.resolve(path).map(Utf8PathBuf::into_string);
    let mut identity = None;
    if let (Some(cert), Some(key)) = (&endpoint.cert, &endpoint.key) {
        identity = Some(AuthInfo {
            client_certificate: Some(resolved(cert)?),
            client_key: Some(resolved(key)?),
            ..AuthInfo::default()
        });
    }
    let url = format!("{}/version", endpoint.url.trim_end_matches('/'));
    match get_here(&url, identity, PEER_TIMEOUT).await {
        Ok(_) => Ok(true),
        Err(fault) if fault.kind == HostErrorKind::Unavailable => Ok(false),
        Err(fault) => Err(fault),
    }
}

async fn get_here(url: &str, identity: Option<AuthInfo>, timeout: Duration) -> Outcome<HttpAnswer> {
    let uri: Uri = url.parse().map_err(|e| Fault::failed(format!("{url}: not a URL: {e}")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(Fault::failed(format!("{url}: neither http nor https")));
    }
    if !is_this_machine(uri.host().unwrap_or_default()) {
        return Err(Fault::refused(format!("{url}: not an address of this machine")));
    }
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let mut server = uri.into_parts();
    server.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    let server = Uri::from_parts(server).map_err(|e| Fault::failed(format!("{url}: not a URL: {e}")))?;
    let mut config = Config::new(server);
    config.accept_invalid_certs = true;
    config.auth_info = identity.unwrap_or_default();
    config.root_cert = Some(Vec::new()); // none at all, so that no store of the system is looked for
    config.connect_timeout = Some(timeout);
    let request = Request::get(path).body(Body::empty());
    let request = request.map_err(|e| Fault::failed(format!("{url}: not a request: {e}")))?;
    exchange(config, request, timeout).await.map_err(|fault| named(&url, fault))
}

fn named(what: &dyn std::fmt::Display, fault: Fault) -> Fault {
    Fault { what: format!("{what}: {}", fault.what), ..fault }
}

async fn exchange(mut config: Config, request: Request<Body>, limit: Duration) -> Outcome<HttpAnswer> {
    tls::install_provider();
    config.default_retry = false;
    config.proxy_url = None;
    let client = kube::Client::try_from(config)
        .map_err(|e| Fault::from_error(HostErrorKind::Failed, "prepare the connection", &e))?;
    let exchanged = async {
        let answer = client.send(request).await.map_err(|e| refused(&e))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|e| Fault::failed(format!("read the answer: {}", chain(&*e))))?;
        Ok(HttpAnswer { status, body: body.to_bytes().to_vec() })
    };
    let late = || Fault::unavailable(format!("no answer within {} ms", limit.as_millis()));
    tokio::time::timeout(limit, exchanged).await.unwrap_or_else(|_| Err(late()))
}

fn refused(error: &kube::Error) -> Fault {
    let kind = match error {
        kube::Error::Service(_) | kube::Error::HyperError(_) => tls::connect_kind(error),
        _ => HostErrorKind::Failed,
    };
    Fault { kind, what: chain(error) }
}

/// Whether an address is this machine's own: the kernel routes it to itself, with the same address as the source.
pub(crate) fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host == "localhost" {
        return true;
    }
    let Ok(address) = host.parse::<IpAddr>() else { return false };
    let any: IpAddr = if address.is_ipv4() { [0_u8; 4].into() } else { [0_u16; 8].into() };
    // connecting a datagram socket only asks the routing table; nothing is sent
    let routed =
        UdpSocket::bind((any, 0)).and_then(|s| s.connect((address, 9)).and_then(|()| s.local_addr()));
    address.is_loopback() || routed.is_ok_and(|source| source.ip() == address)
}

/// The settings of a kubeconfig's context, with the request's server in the place of its own.
async fn config(request: &ApiRequest, root: &Utf8Path) -> Outcome<Config> {
    let path = Root::new(root).resolve(&request.kubeconfig)?;
    let mut kubeconfig = read_kubeconfig(&path)?;
    root_files(&mut kubeconfig, &request.kubeconfig, root)?;
    let bad = |e: &dyn std::error::Error| Fault::from_error(HostErrorKind::Failed, "not usable", e);
    let options = KubeConfigOptions { context: request.context.clone(), cluster: None, user: None };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| bad(&e))?;
    if let Some(server) = &request.server {
        config.cluster_url =
            server.parse().map_err(|e| Fault::failed(format!("{server}: not a URL: {e}")))?;
        config.tls_server_name = config.tls_server_name.or_else(|| Some(API_SERVER_NAME.to_owned()));
    }
    Ok(config)
}

fn read_kubeconfig(path: &Utf8Path) -> Outcome<Kubeconfig> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| Fault::io(format_args!("open {path}"), &e))?;
    file.take(MAX_KUBECONFIG_BYTES)
        .read_to_string(&mut text)
        .map_err(|e| Fault::io(format_args!("read {path}"), &e))?;
    // A parser's error may quote the text, and the text holds keys.
    Kubeconfig::from_yaml(&text).map_err(|_| Fault::failed("not a kubeconfig: it does not parse"))
}

/// Makes the files that a kubeconfig names paths of this machine: relative ones lie beside it, others under `root`.
fn root_files(kubeconfig: &mut Kubeconfig, from: &HostPath, root: &Utf8Path) -> Outcome<()> {
    let root = Root::new(root);
    let beside = from.parent().unwrap_or(Utf8Path::new("/"));
    let clusters = kubeconfig.clusters.iter_mut().filter_map(|c| c.cluster.as_mut());
    let users = kubeconfig.auth_infos.iter_mut().filter_map(|u| u.auth_info.as_mut());
    let files = clusters
        .map(|c| &mut c.certificate_authority)
        .chain(users.flat_map(|u| [&mut u.client_certificate, &mut u.client_key, &mut u.token_file]));
    for file in files.flatten().filter(|f| !f.is_empty()) {
        let named = HostPath(Utf8PathBuf::from(beside).join(file.as_str()));
        *file = root.resolve(&named)?.into_string();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    // Health endpoints are asked without verifying who answers, so only this machine may be asked.
    #[tokio::test]
    async fn only_this_machine_is_asked_without_verification() {
        assert!(is_this_machine("127.0.0.1") && is_this_machine("[::1]") && is_this_machine("localhost"));
        for url in ["http://192.0.2.7/healthz", "https://example.org/", "http://8.8.8.8:10248/"] {
            let fault = http_get(url, 500).await.unwrap_err();
            assert_eq!(fault.kind, HostErrorKind::Refused, "{url}: {}", fault.what);
        }
    }

    // A kubelet that is up says ok, one that is down refuses, and one that hangs must not hang the check.
    #[tokio::test]
    async fn answers_refusals_and_silence_are_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/healthz?verbose", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 28];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(b"HTTP/1.1 503 No\r\ncontent-length: 5\r\n\r\nsorry").await.unwrap();
            let (silent, _) = listener.accept().await.unwrap();
            (asked, silent, listener)
        });
        let answer = http_get(&url, 2000).await.unwrap();
        assert_eq!(answer, HttpAnswer { status: 503, body: b"sorry".to_vec() });
        let fault = http_get(&url, 300).await.unwrap_err();
        assert_eq!(fault.kind, HostErrorKind::Unavailable, "{}", fault.what);
        let (asked, silent, listener) = server.await.unwrap();
        assert_eq!(&asked, b"GET /healthz?verbose HTTP/1.");
        drop((silent, listener));
        let fault = http_get(&url, 2000).await.unwrap_err();
        assert_eq!(fault.kind, HostErrorKind::Unavailable, "{}", fault.what);
    }
}
