//! An agent that stands by, while another one writes.

use super::config::Config;
use super::lease::Lease;
use super::metrics;
use super::serve::{self, Pages};
use super::signals::{End, Signals};
use crate::connect;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::Utf8Path;
use rekindle_model::etcd::EtcdEndpoint;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Who this agent is to others: the same after a restart, another one for each state dir.
pub(super) fn identity(state_dir: &Utf8Path, writer: &str) -> Result<String, Failure> {
    let path = state_dir.join("agent.id");
    let doing = || format!("cannot make {path}");
    if !path.exists() {
        let mut file = tempfile::NamedTempFile::new_in(state_dir).doing(doing)?;
        let id = uuid::Uuid::now_v7().to_string();
        std::io::Write::write_all(&mut file, id.as_bytes()).doing(doing)?;
        file.as_file().sync_all().doing(doing)?;
        file.persist(&path).doing(doing)?;
    }
    let id = std::fs::read_to_string(&path).doing(|| format!("cannot read {path}"))?;
    let id = uuid::Uuid::parse_str(id.trim()).doing(|| format!("{path} holds no UUID"))?;
    Ok(format!("{writer}_{id}"))
}

/// Waits for the Lease, where one is configured; an end when the agent is told otherwise meanwhile.
pub(super) async fn wait(
    config: &Config,
    listener: &Arc<TcpListener>,
    signals: &mut Signals,
    output: &Output,
) -> Result<(Option<Lease>, Option<End>), Failure> {
    let settings = &config.settings;
    let Some(kubernetes) = settings.kubernetes.clone() else { return Ok((None, None)) };
    let mut lease = Lease::new(kubernetes, identity(&settings.state_dir, settings.writer.as_str())?);
    let served = tokio::spawn(serve::run(listener.clone(), Arc::new(Standby)));
    let end = tokio::select! {
        () = lease.acquire(output, async || reaches_etcd(&settings.endpoints).await) => None,
        end = signals.end(None, output) => Some(end),
    };
    served.abort();
    let _ = served.await;
    Ok((Some(lease), end))
}

/// Whether one of them answers.
async fn reaches_etcd(endpoints: &[EtcdEndpoint]) -> bool {
    let host = connect::local("/".into());
    for endpoint in endpoints {
        if host.etcd_status(endpoint).await.is_ok() {
            return true;
        }
    }
    false
}

struct Standby;

impl Pages for Standby {
    fn metrics(&self) -> String {
        metrics::standby()
    }

    fn complaints(&self) -> Vec<String> {
        Vec::new()
    }
}
