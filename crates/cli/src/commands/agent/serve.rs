//! `GET /metrics` and `GET /healthz` over HTTP/1.1, one request a connection: little enough to need no library.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// A longer head is no scraper's.
const HEAD_MAX_BYTES: usize = 8 << 10;
/// Longest time for a whole exchange.
const EXCHANGE: Duration = Duration::from_secs(5);
/// Connections at the same time; more wait.
const CONNECTIONS: usize = 16;

/// What is served.
pub(super) trait Pages: Send + Sync + 'static {
    /// `/metrics`
    fn metrics(&self) -> String;
    /// `/healthz`: what is wrong, if anything is.
    fn complaints(&self) -> Vec<String>;
}

/// Serves until it is dropped.
pub(super) async fn run(listener: Arc<TcpListener>, pages: Arc<impl Pages>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // out of descriptors, most likely
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            // who asked has gone away, or never said what for
            let _ = tokio::time::timeout(EXCHANGE, exchange(stream, &*pages)).await;
            drop(place);
        });
    }
}

async fn exchange(mut stream: TcpStream, pages: &dyn Pages) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 || head.len() > HEAD_MAX_BYTES {
            return Ok(());
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let path = words.nth(1).and_then(|target| target.split('?').next());
    let (status, body) = match (line.starts_with("GET "), path) {
        (true, Some("/metrics")) => ("200 OK", pages.metrics()),
        (true, Some("/healthz")) => match pages.complaints() {
            complaints if complaints.is_empty() => ("200 OK", "ok\n".into()),
            complaints => ("503 Service Unavailable", complaints.join("\n") + "\n"),
        },
        (true, _) => ("404 Not Found", "/metrics or /healthz\n".into()),
        (false, _) => ("405 Method Not Allowed", "only GET\n".into()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
