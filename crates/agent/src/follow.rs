//! Following: one watch of all keys, at whichever member serves, from the last revision on that was received.

use camino::Utf8PathBuf;
use etcd_disk::segment::{GapCause, GapSeen, Origin};
use rekindle_model::etcd::EtcdEndpoint;
use rekindle_world::etcd_client::{MemberClient, Watch, WatchContent, WatchMessage};
use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::found::Found;
use crate::health::Health;
use crate::leases;
use crate::order::{Order, Row};
use crate::probe::Probe;
use crate::prove::Prove;
use crate::sink::{self, Command, Cut, Told};
use crate::spool::{self, Spool};
use crate::{Error, now_ms};

/// Messages between the watch and the disk; each is at most a few MB.
const QUEUE: usize = 16;
/// Leases waiting to be asked for.
const LEASE_QUEUE: usize = 1024;
/// Known leases are forgotten together beyond this many, and asked for again.
const LEASES_KNOWN_MAX: usize = 1 << 20;
/// Between two attempts when no member serves.
const RETRY: Duration = Duration::from_millis(200);
/// Progress is asked for this often.
const PROGRESS: Duration = Duration::from_millis(500);
/// A watch that proves nothing for this long is left, and one that is silent although progress is asked for for twice as
/// long. Doubled each time, and the next one asks for the other of fragments and whole messages: a revision of tens of
/// thousands of keys takes long to cut into fragments, and a long backlog of large values needs them.
const PATIENCE: Duration = Duration::from_millis(1500);
const PATIENCE_DOUBLED_MAX: u32 = 6;

/// What to follow, and where to.
#[derive(Debug, Clone)]
pub struct FollowConfig {
    /// The members, in order of preference.
    pub endpoints: Vec<EtcdEndpoint>,
    /// Where the endpoints' certificate files lie under.
    pub root: Utf8PathBuf,
    /// The folder of segments.
    pub spool: Utf8PathBuf,
    /// The cluster's timeline.
    pub timeline: [u8; 16],
    /// The cluster; `None`: that of the spool, or else of the first member that answers.
    pub cluster_id: Option<u64>,
    /// Where to begin when the spool is empty; `None`: with the next revision.
    pub from_revision: Option<i64>,
    /// This agent's name in the segments.
    pub writer: String,
    /// A segment is closed when it has this many bytes,
    pub segment_bytes: u64,
    /// or changes that are older than this.
    pub segment_age: Duration,
    /// With this many bytes in the spool nothing more is received, until some of its closed segments are taken away. What
    /// etcd compacts meanwhile is a gap.
    pub spool_bytes_max: u64,
    /// This often a member is asked for a full HashKV, which proves the newest revisions and holds that member up; `None`: only
    /// those that compactions leave are asked for, which cost nothing.
    pub prove_every: Option<Duration>,
}

/// Follows until `stop` is done, then closes the last segment. Revisions are durable in the spool within a second of their
/// commit; `health` tells whether they are.
///
/// # Errors
/// [`Error::Spool`] and [`Error::Segment`] when the spool cannot be used. Members that fail are never an error: the next
/// one is tried, and `health` says so.
pub async fn follow(
    config: FollowConfig,
    health: watch::Sender<Health>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    if config.endpoints.is_empty() {
        return Err(Error::NoEndpoint);
    }
    let mut stop = pin!(stop);
    let spool = Spool::open(&config.spool)?;
    let newest = spool.newest(config.timeline);
    let mut found = Found {
        cluster_id: config.cluster_id.or(newest.map(|newest| newest.origin.cluster_id)),
        last: newest.map(|newest| newest.last).or(config.from_revision.map(|first| first - 1)),
        next: 0,
    };
    let health = Arc::new(health);
    // the first member decides what was left open
    let (client, url) = loop {
        tokio::select! {
            member = found.member(&config, &health) => if let Some(member) = member { break member },
            () = &mut stop => return Ok(()),
        }
        tokio::time::sleep(RETRY).await;
    };
    let (Some(cluster_id), Some(last)) = (found.cluster_id, found.last) else {
        return Err(Error::NoEndpoint);
    };
    let (commands, queue) = mpsc::channel(QUEUE);
    let (durable, durable_seen) = watch::channel(last);
    let cut = Cut {
        origin: Origin { cluster_id, timeline: config.timeline },
        writer: config.writer.clone(),
        segment_bytes: config.segment_bytes,
        segment_age: config.segment_age,
    };
    let (spool_bytes, spooled) = watch::channel(0);
    let told = Told { durable, spool_bytes };
    let mut sink = tokio::task::spawn_blocking(move || sink::run(&spool, &cut, queue, &told));
    let (followed, followed_seen) = watch::channel(None);
    let switch = Arc::new(Notify::new());
    let (leases, lease_queue) = mpsc::channel(LEASE_QUEUE);
    // ends with this function, however that ends
    let mut helpers = JoinSet::new();
    helpers.spawn(leases::ask(lease_queue, followed_seen.clone(), commands.clone()));
    let probe = Probe {
        endpoints: config.endpoints.clone(),
        root: config.root.clone(),
        cluster_id,
        durable: durable_seen,
        followed: followed_seen,
        health: Arc::clone(&health),
        switch: Arc::clone(&switch),
        commands: commands.clone(),
    };
    helpers.spawn(probe.run());
    if let Some(every) = config.prove_every {
        let prove = Prove {
            endpoints: config.endpoints.clone(),
            root: config.root.clone(),
            cluster_id,
            every,
            health: Arc::clone(&health),
            commands: commands.clone(),
        };
        helpers.spawn(prove.run());
    }
    let mut follower = Follower {
        order: Order::behind(last, newest.and_then(|newest| newest.digest)),
        found,
        commands,
        followed,
        switch,
        leases,
        leases_known: HashSet::new(),
        health,
        spooled,
        in_vain: 0,
        was_full: false,
    };
    let ended = tokio::select! {
        () = follower.run(&config, (client, url)) => Ok(()),
        () = &mut stop => Ok(()),
        written = &mut sink => Err(written),
    };
    drop(follower);
    // they hold senders: only without them the sink comes to its end
    helpers.shutdown().await;
    let written = match ended {
        Ok(()) => sink.await,
        Err(written) => written,
    };
    written.map_err(|_| Error::Sink)?
}

/// Why a member was left.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error("{0}")]
    Fault(String),
    #[error(transparent)]
    Broken(crate::order::Broken),
    #[error("for {} ms it sent nothing that proves that nothing is missing", .0.as_millis())]
    Unproved(Duration),
    #[error("the spool cannot be written")]
    Spool,
    #[error("the spool is full")]
    Full,
}

struct Follower {
    order: Order,
    found: Found,
    commands: mpsc::Sender<Command>,
    followed: watch::Sender<Option<Arc<MemberClient>>>,
    switch: Arc<Notify>,
    leases: mpsc::Sender<i64>,
    leases_known: HashSet<i64>,
    health: Arc<watch::Sender<Health>>,
    /// Bytes in the spool.
    spooled: watch::Receiver<u64>,
    /// Watches since the last revision that ended without one.
    in_vain: u32,
    /// The spool was full since the last revision that was received.
    was_full: bool,
}

impl Follower {
    /// Follows one member after the other; ends when the sink has.
    async fn run(&mut self, config: &FollowConfig, first: (Arc<MemberClient>, String)) {
        let mut member = Some(first);
        loop {
            self.found.last = Some(self.order.last);
            if self.is_full(config) {
                tokio::time::sleep(RETRY).await;
                continue;
            }
            let Some((client, url)) = member.take() else {
                member = self.found.member(config, &self.health).await;
                if member.is_none() {
                    tokio::time::sleep(RETRY).await;
                }
                continue;
            };
            self.followed.send_replace(Some(Arc::clone(&client)));
            let left = self.follow(config, &client, &url).await;
            self.followed.send_replace(None);
            self.health.send_modify(|health| {
                health.following = None;
                if let Some(member) = health.members.iter_mut().find(|m| m.url == url) {
                    member.state = Err(left);
                }
            });
            if self.commands.is_closed() {
                return;
            }
        }
    }

    /// Looks at the spool itself: whoever takes segments away does not say so.
    fn is_full(&mut self, config: &FollowConfig) -> bool {
        let known = *self.spooled.borrow() >= config.spool_bytes_max;
        // one that cannot be listed is not written either: the sink will say so
        let full = known && spool::bytes(&config.spool).is_ok_and(|bytes| bytes >= config.spool_bytes_max);
        self.was_full |= full;
        self.spooled.mark_unchanged();
        self.health.send_if_modified(|health| std::mem::replace(&mut health.spool_full, full) != full);
        full
    }

    /// Follows one member until it is to be left: why.
    async fn follow(&mut self, config: &FollowConfig, client: &MemberClient, url: &str) -> String {
        let mut gap = None;
        loop {
            // what was left incomplete comes again
            let mut watch = match client.watch(self.order.begin(), self.in_vain.is_multiple_of(2)).await {
                Ok(watch) => watch,
                Err(fault) => return fault.what,
            };
            let behind = Command::Behind { last: self.order.last, gap: gap.take() };
            if self.commands.send(behind).await.is_err() {
                return Left::Spool.to_string();
            }
            match self.receive(config, &mut watch, url).await {
                Ok(compact_revision) => gap = Some(self.jump(compact_revision)),
                Err(Left::Broken(_)) if !self.order.is_proved() && self.is_compacted(client).await => {
                    // rows of the last revision are compacted away: nothing can be compared
                    self.order = Order::behind(self.order.last, None);
                }
                Err(why) => {
                    self.in_vain = self.in_vain.saturating_add(1);
                    return why.to_string();
                }
            }
        }
    }

    fn patience(&self) -> Duration {
        PATIENCE * (1 << self.in_vain.min(PATIENCE_DOUBLED_MAX))
    }

    /// The member is compacted exactly to the last revision.
    async fn is_compacted(&self, client: &MemberClient) -> bool {
        client.compact_revision().await.is_ok_and(|told| told == Some(self.order.last))
    }

    /// etcd has compacted what was due: a gap, up to what it still has whole.
    fn jump(&mut self, compact_revision: i64) -> GapSeen {
        let first = self.order.last + 1;
        // of the compact revision itself, rows may be gone
        let last = compact_revision.max(first);
        let cause = if self.was_full { GapCause::SpoolFull } else { GapCause::Compacted };
        let gap = GapSeen { at_ms: now_ms(), first, last, cause };
        self.order = Order::behind(last, None);
        self.health.send_modify(|health| health.gaps.push(gap));
        gap
    }

    /// Receives until the watch ends: the compact revision if that ended it, else why.
    async fn receive(&mut self, config: &FollowConfig, watch: &mut Watch, url: &str) -> Result<i64, Left> {
        self.health.send_modify(|health| {
            health.following = Some(url.to_owned());
            health.watches += 1;
        });
        let switch = Arc::clone(&self.switch);
        let mut spooled = self.spooled.clone();
        let mut asking = tokio::time::interval(PROGRESS);
        let (mut heard, mut advanced, mut last) = (Instant::now(), Instant::now(), self.order.last);
        loop {
            tokio::select! {
                message = watch.next() => {
                    heard = Instant::now();
                    let message = message.map_err(|fault| Left::Fault(fault.what))?;
                    if let Some(compact_revision) = self.message(message).await? {
                        return Ok(compact_revision);
                    }
                    if self.order.last > last {
                        (last, advanced, self.in_vain) = (self.order.last, heard, 0);
                    }
                }
                _ = asking.tick() => {
                    if heard.elapsed() > 2 * self.patience() {
                        return Err(Left::Unproved(heard.elapsed()));
                    }
                    watch.request_progress().map_err(|fault| Left::Fault(fault.what))?;
                }
                () = switch.notified() => if advanced.elapsed() > self.patience() {
                    return Err(Left::Unproved(advanced.elapsed()));
                },
                told = spooled.changed() => {
                    told.map_err(|_| Left::Spool)?;
                    if *spooled.borrow_and_update() >= config.spool_bytes_max {
                        return Err(Left::Full);
                    }
                }
            }
        }
    }

    async fn message(&mut self, message: WatchMessage) -> Result<Option<i64>, Left> {
        let received_ms = now_ms();
        if let Some(known) = self.found.cluster_id.filter(|known| *known != message.cluster_id) {
            let found = message.cluster_id;
            return Err(Left::Fault(format!("it is of the cluster {found:x}, not {known:x}")));
        }
        let command = match message.content {
            WatchContent::Compacted { compact_revision } => return Ok(Some(compact_revision)),
            WatchContent::Created => return Ok(None),
            WatchContent::Progress if !self.order.is_proved() => return Ok(None),
            WatchContent::Progress => Command::Progress { at_ms: received_ms, revision: message.revision },
            WatchContent::Changes { changes, complete } => {
                let rows = changes.into_iter().map(Row::from).collect();
                let rows = self.order.take(rows, complete).map_err(Left::Broken)?;
                rows.iter().for_each(|row| self.see_lease(row.lease));
                self.was_full = false;
                Command::Rows { received_ms, rows, complete }
            }
        };
        self.commands.send(command).await.map_err(|_| Left::Spool)?;
        Ok(None)
    }

    /// A lease never seen before is asked for; if too many wait, the next sight of it will do.
    fn see_lease(&mut self, id: i64) {
        if id == 0 || self.leases_known.contains(&id) || self.leases.try_send(id).is_err() {
            return;
        }
        if self.leases_known.len() >= LEASES_KNOWN_MAX {
            self.leases_known.clear();
        }
        self.leases_known.insert(id);
    }
}
