//! The log: what changed of the stream, one line each.

use super::Agent;
use rekindle_agent::{Health, Rpo};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What lasts no longer than this is no line in the log: a switch to another member, a busy second.
const SETTLE: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut health = agent.health.clone();
    let mut teller = Teller::default();
    while health.changed().await.is_ok() {
        let lines = teller.lines(&health.borrow_and_update());
        lines.iter().for_each(|line| agent.say(line));
    }
}

#[derive(Default)]
struct Teller {
    following: Option<String>,
    gaps: usize,
    was_full: bool,
    unknown_since: Option<Instant>,
    unknown_told: bool,
}

impl Teller {
    fn lines(&mut self, health: &Health) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(url) = health.following.as_ref().filter(|url| self.following.as_ref() != Some(url)) {
            lines.push(format!("following {url}"));
            self.following = Some(url.clone());
        }
        for gap in health.gaps.iter().skip(self.gaps) {
            lines.push(format!(
                "error: revisions {} to {} were compacted before they were received ({:?}): a full is taken now",
                gap.first, gap.last, gap.cause
            ));
        }
        self.gaps = health.gaps.len();
        if health.spool_full != self.was_full {
            self.was_full = health.spool_full;
            lines.push(if self.was_full {
                "error: the spool is full: nothing is received until the vault takes what waits".into()
            } else {
                "the spool has room again".into()
            });
        }
        match &health.rpo {
            Rpo::Known { .. } => {
                if std::mem::take(&mut self.unknown_told) {
                    lines.push(format!(
                        "all is durable here again, up to revision {}",
                        health.durable_revision
                    ));
                }
                self.unknown_since = None;
            }
            Rpo::Unknown { why, .. } => {
                let since = *self.unknown_since.get_or_insert_with(Instant::now);
                if since.elapsed() > SETTLE && !self.unknown_told {
                    self.unknown_told = true;
                    lines.push(format!("error: what would be lost is not known: {why}"));
                    lines.extend(refusals(health));
                }
            }
        }
        lines
    }
}

fn refusals(health: &Health) -> impl Iterator<Item = String> {
    health.members.iter().filter_map(|member| {
        let why = member.state.as_ref().err()?;
        Some(format!("  {}: {why}", member.url))
    })
}
