//! A connection that is kept open to one member, for whoever follows its changes: [`MemberClient`], and the [`Watch`] of
//! the whole key space.
//!
//! The watch asks for what a gap-free stream needs: a leader (a member cut off from its cluster ends the watch), and
//! progress (a quiet stream shows that it is alive). A large revision may come in fragments. Messages are those
//! of etcd's `rpc.proto`; they are decoded here because etcd-client does not tell fragments.

use super::connect::Connection;
use super::{CALL, hash_kv, status};
use crate::fault::{Fault, Outcome};
use crate::host::HostErrorKind;
use camino::Utf8Path;
use etcd_client::Channel;
use futures::channel::mpsc;
use prost::{Message, Oneof};
use rekindle_model::etcd::{EtcdEndpoint, EtcdStatus, HashKv};
use std::time::Duration;

/// Largest message accepted: etcd's `--max-request-bytes` is 1.5 MB unless set, and a fragment has one request more.
const MAX_MESSAGE_BYTES: usize = 63 << 20;
/// Requests under way on a watch: the first one, and progress.
const REQUESTS: usize = 4;
/// A watch that begins too early is told so as soon as it stands.
const TOLD_AT_ONCE: Duration = Duration::from_millis(500);
/// All keys, as a range: from the first possible one on, without an end.
const ALL: &[u8] = &[0];

/// One member, over one connection.
#[derive(Debug)]
pub struct MemberClient {
    url: String,
    connection: Connection,
}

/// What a member knows of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTtl {
    /// The TTL it was granted, seconds; 0 when it is gone.
    pub granted_s: i64,
    /// What is left, seconds; -1 when it is gone.
    pub remaining_s: i64,
}

impl MemberClient {
    /// Connects; the certificate files of `endpoint` lie under `root`.
    ///
    /// # Errors
    /// As [`super::call`].
    pub async fn open(endpoint: &EtcdEndpoint, root: &Utf8Path) -> Outcome<Self> {
        let url = endpoint.url.clone();
        match Connection::open(endpoint, root).await {
            Ok(connection) => Ok(Self { url, connection }),
            Err(fault) => Err(named(&url, "connect", fault)),
        }
    }

    /// The member's status.
    ///
    /// # Errors
    /// As [`super::call`]; so with all calls here.
    pub async fn status(&self) -> Outcome<EtcdStatus> {
        status(&self.connection).await.map_err(|fault| named(&self.url, "Status", fault))
    }

    /// The store's revision by a linearizable read: no write that was acknowledged before the call is above it.
    pub async fn agreed_revision(&self) -> Outcome<i64> {
        let call = async {
            let mut client = self.connection.client().await?;
            let options = etcd_client::GetOptions::new().with_count_only();
            let answer = self.connection.within(CALL, client.get("health", Some(options))).await?;
            answer.header().map(|h| h.revision()).ok_or_else(|| Fault::failed("no header"))
        };
        call.await.map_err(|fault| named(&self.url, "Range", fault))
    }

    /// HashKV at a revision; 0 is the newest. Reads every row, unless it is that of a recent compaction.
    pub async fn hash_kv(&self, revision: i64) -> Outcome<HashKv> {
        hash_kv(&self.connection, revision).await.map_err(|fault| named(&self.url, "HashKV", fault))
    }

    /// A lease's TTL.
    pub async fn lease(&self, id: i64) -> Outcome<LeaseTtl> {
        let call = async {
            let mut client = self.connection.client().await?;
            let answer = self.connection.within(CALL, client.lease_time_to_live(id, None)).await?;
            Ok(LeaseTtl { granted_s: answer.granted_ttl(), remaining_s: answer.ttl() })
        };
        call.await.map_err(|fault| named(&self.url, "LeaseTimeToLive", fault))
    }

    /// Watches all keys from a revision on; 0 is now. With `fragments`, messages stay at about the size of etcd's largest
    /// requests; but etcd's time to cut a revision grows with the square of its keys (`sendFragments` in its
    /// `api/v3rpc/watch.go`), seconds for some ten thousand. Without, a message of more than 63 MiB ends the watch.
    pub async fn watch(&self, from_revision: i64, fragments: bool) -> Outcome<Watch> {
        self.watch_range(ALL, from_revision, fragments).await
    }

    /// The compact revision, if the member has compacted: told by a watch of one key that begins too early, at no cost.
    pub async fn compact_revision(&self) -> Outcome<Option<i64>> {
        let mut watch = self.watch_range(&[], 1, false).await?;
        loop {
            match tokio::time::timeout(TOLD_AT_ONCE, watch.next()).await {
                Err(_) => return Ok(None),
                Ok(message) => match message?.content {
                    WatchContent::Compacted { compact_revision } => return Ok(Some(compact_revision)),
                    WatchContent::Created => {}
                    WatchContent::Changes { .. } | WatchContent::Progress => return Ok(None),
                },
            }
        }
    }

    /// From the first possible key to `end`: none of one key alone, a zero byte of all.
    async fn watch_range(&self, end: &[u8], from_revision: i64, fragment: bool) -> Outcome<Watch> {
        let opened = tokio::time::timeout(CALL, self.open_watch(end, from_revision, fragment)).await;
        let opened = opened.unwrap_or_else(|_| Err(Fault::unavailable("no answer to the watch")));
        opened.map_err(|fault| named(&self.url, "Watch", fault))
    }

    async fn open_watch(&self, end: &[u8], from_revision: i64, fragment: bool) -> Outcome<Watch> {
        let Channel::Tonic(channel) = self.connection.channel() else {
            return Err(Fault::failed("not a connection that can watch"));
        };
        let (mut requests, stream) = mpsc::channel(REQUESTS);
        let create = WatchCreate {
            key: ALL.to_vec(),
            range_end: end.to_vec(),
            start_revision: from_revision,
            progress_notify: true,
            fragment,
        };
        send(&mut requests, WatchUnion::Create(create))?;
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        grpc.ready().await.map_err(|e| Fault::from_error(HostErrorKind::Unavailable, "not ready", &e))?;
        let mut request = tonic::Request::new(stream);
        request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
        let path = http::uri::PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec = tonic_prost::ProstCodec::<WatchRequest, WatchResponse>::new();
        let answer = grpc.streaming(request, path, codec).await.map_err(status_fault)?;
        Ok(Watch { url: self.url.clone(), requests, responses: answer.into_inner() })
    }
}

fn named(url: &str, call: &str, fault: Fault) -> Fault {
    Fault { what: format!("{url}: {call}: {}", fault.what), ..fault }
}

fn status_fault(status: tonic::Status) -> Fault {
    super::connect::fault(etcd_client::Error::GRpcStatus(status))
}

fn send(requests: &mut mpsc::Sender<WatchRequest>, union: WatchUnion) -> Outcome<()> {
    match requests.try_send(WatchRequest { union: Some(union) }) {
        // enough are under way
        Err(full) if full.is_full() => Ok(()),
        Err(_) => Err(Fault::unavailable("the watch has ended")),
        Ok(()) => Ok(()),
    }
}

/// A stream of all changes of one member. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    url: String,
    requests: mpsc::Sender<WatchRequest>,
    responses: tonic::Streaming<WatchResponse>,
}

/// What a member sends on a watch.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchMessage {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The member's revision when it was sent.
    pub revision: i64,
    /// The content.
    pub content: WatchContent,
}

/// The kinds of message.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchContent {
    /// The watch stands.
    Created,
    /// Changes, in order.
    Changes {
        /// The changes.
        changes: Vec<Change>,
        /// No part of the last revision is still to come.
        complete: bool,
    },
    /// All changes up to the message's revision have been sent.
    Progress,
    /// The watch has ended: the revision it was to begin with has been compacted.
    Compacted {
        /// The first revision that can be watched from.
        compact_revision: i64,
    },
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The key was deleted.
    pub deleted: bool,
    /// The new state; of a deletion key and revision alone.
    pub kv: etcd_disk::proto::KeyValue,
}

impl Watch {
    /// Asks the member to send its progress now.
    ///
    /// # Errors
    /// `Unavailable` when the watch has ended.
    pub fn request_progress(&mut self) -> Outcome<()> {
        send(&mut self.requests, WatchUnion::Progress(WatchProgress {}))
            .map_err(|fault| named(&self.url, "Watch", fault))
    }

    /// The next message. Cancel-safe.
    ///
    /// # Errors
    /// The watch has ended: `Unavailable` when another member, or this one later, may serve it.
    pub async fn next(&mut self) -> Outcome<WatchMessage> {
        let message = self.responses.message().await.map_err(status_fault);
        let message = message
            .and_then(|message| message.ok_or_else(|| Fault::unavailable("the member ended the stream")));
        message.and_then(understood).map_err(|fault| named(&self.url, "Watch", fault))
    }
}

fn understood(message: WatchResponse) -> Outcome<WatchMessage> {
    let header = message.header.unwrap_or_default();
    let content = if message.compact_revision > 0 {
        WatchContent::Compacted { compact_revision: message.compact_revision }
    } else if message.canceled {
        return Err(Fault::unavailable(format!("cancelled by the member: {}", message.cancel_reason)));
    } else if message.created {
        WatchContent::Created
    } else if message.events.is_empty() {
        WatchContent::Progress
    } else {
        let changes = message.events.into_iter().map(change).collect::<Outcome<Vec<Change>>>()?;
        WatchContent::Changes { changes, complete: !message.fragment }
    };
    Ok(WatchMessage { cluster_id: header.cluster_id, revision: header.revision, content })
}

fn change(event: Event) -> Outcome<Change> {
    let kv = event.kv.ok_or_else(|| Fault::failed("an event without a key"))?;
    match event.kind {
        0 => Ok(Change { deleted: false, kv }),
        1 => Ok(Change { deleted: true, kv }),
        other => Err(Fault::failed(format!("an event of the unknown kind {other}"))),
    }
}

#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(oneof = "WatchUnion", tags = "1, 3")]
    union: Option<WatchUnion>,
}

#[derive(Clone, PartialEq, Oneof)]
enum WatchUnion {
    #[prost(message, tag = "1")]
    Create(WatchCreate),
    #[prost(message, tag = "3")]
    Progress(WatchProgress),
}

#[derive(Clone, PartialEq, Message)]
struct WatchCreate {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    start_revision: i64,
    #[prost(bool, tag = "4")]
    progress_notify: bool,
    #[prost(bool, tag = "8")]
    fragment: bool,
}

#[derive(Clone, PartialEq, Message)]
struct WatchProgress {}

#[derive(Clone, PartialEq, Message)]
struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(bool, tag = "4")]
    canceled: bool,
    #[prost(int64, tag = "5")]
    compact_revision: i64,
    #[prost(string, tag = "6")]
    cancel_reason: String,
    #[prost(bool, tag = "7")]
    fragment: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "1")]
    cluster_id: u64,
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    kv: Option<etcd_disk::proto::KeyValue>,
}
