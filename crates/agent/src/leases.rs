//! The TTLs of leases: a watch tells only their ids, so each new one is asked for at once.

use etcd_disk::segment::LeaseSeen;
use rekindle_world::etcd_client::MemberClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

use crate::now_ms;
use crate::sink::Command;

/// Between two attempts when no member answers.
const RETRY: Duration = Duration::from_millis(200);

/// Asks the member that is followed for each lease, until one answers.
pub(crate) async fn ask(
    mut ids: mpsc::Receiver<i64>,
    followed: watch::Receiver<Option<Arc<MemberClient>>>,
    commands: mpsc::Sender<Command>,
) {
    while let Some(id) = ids.recv().await {
        let told = loop {
            let client = followed.borrow().clone();
            if let Some(client) = client
                && let Ok(told) = client.lease(id).await
            {
                break told;
            }
            tokio::time::sleep(RETRY).await;
        };
        let gone = told.remaining_s < 0;
        let granted_ttl_s = if gone { 0 } else { told.granted_s };
        let lease = LeaseSeen { at_ms: now_ms(), id, granted_ttl_s, remaining_s: told.remaining_s.max(-1) };
        if commands.send(Command::Lease(lease)).await.is_err() {
            return;
        }
    }
}
