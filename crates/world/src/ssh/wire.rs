//! What both ends of a channel share: the writer, the events of one request or file, and errors as JSON.

use super::frame::{self, Body, Frame, Packed};
use crate::fault::{Fault, Outcome};
use crate::host::{HostErrorKind, Reply};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// Frames that may wait for the writer.
const OUTBOX_FRAMES: usize = 32;
/// Events that may wait for one request or file: a full window in pieces, and its ends. More is a peer that does not
/// keep to its window.
pub(super) const EVENTS: usize = 256;

/// The way to the writer.
pub(super) type Outbox = mpsc::Sender<Frame>;

/// A fault on the wire: the near end puts the host's name on it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WireFault {
    pub(super) what: String,
    pub(super) kind: HostErrorKind,
}

/// What came of a request.
pub(super) type WireReply = Result<Reply, WireFault>;

/// What arrives for one request or file.
#[derive(Debug)]
pub(super) enum Event {
    Reply(Vec<u8>),
    Size(u64),
    Data(Vec<u8>),
    Packed(Packed),
    End([u8; 32]),
    Credit(u64),
    Cancel,
}

impl Event {
    /// The event of a frame that belongs to something begun; none = the frame begins something.
    pub(super) fn of(body: Body) -> Option<Self> {
        Some(match body {
            Body::Reply(json) => Self::Reply(json),
            Body::Size(bytes) => Self::Size(bytes),
            Body::Data(bytes) => Self::Data(bytes),
            Body::Packed(packed) => Self::Packed(packed),
            Body::End(sha256) => Self::End(sha256),
            Body::Credit(bytes) => Self::Credit(bytes),
            Body::Cancel => Self::Cancel,
            Body::Request(_) | Body::Put(_) | Body::Get(_) => return None,
        })
    }
}

/// JSON of a value; what is too long for a frame is refused here, where it can still be reported.
pub(super) fn json(value: &impl Serialize) -> Outcome<Vec<u8>> {
    let json = serde_json::to_vec(value).map_err(|e| Fault::failed(format!("render as JSON: {e}")))?;
    if json.len() > frame::MAX_JSON_BYTES {
        return Err(Fault::refused(format!("{} bytes are too many for one message", json.len())));
    }
    Ok(json)
}

/// A reply out of its JSON.
pub(super) fn parse_reply(json: &[u8]) -> Outcome<Reply> {
    match serde_json::from_slice::<WireReply>(json) {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(fault)) => Err(Fault { kind: fault.kind, what: fault.what }),
        Err(e) => Err(Fault::failed(format!("an answer that is not one: {e}"))),
    }
}

/// A task that writes frames in the order they come, flushing when none waits. It ends when the outbox is dropped or
/// the channel breaks; senders then see a closed outbox.
pub(super) fn spawn_writer(
    mut to: impl AsyncWrite + Send + Unpin + 'static,
) -> (Outbox, tokio::task::JoinHandle<std::io::Result<()>>) {
    let (outbox, mut frames) = mpsc::channel::<Frame>(OUTBOX_FRAMES);
    let task = tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            frame::write(&mut to, &frame).await?;
            while let Ok(frame) = frames.try_recv() {
                frame::write(&mut to, &frame).await?;
            }
            to.flush().await?;
        }
        to.shutdown().await
    });
    (outbox, task)
}

/// Sends a frame; a closed outbox means that the channel broke.
pub(super) async fn send(outbox: &Outbox, id: u64, body: Body) -> Outcome<()> {
    outbox.send(Frame { id, body }).await.map_err(|_| broken())
}

/// The channel ended in the middle; the near end replaces the text by what it knows of why.
pub(super) fn broken() -> Fault {
    Fault { kind: HostErrorKind::Unreachable, what: "the channel broke".into() }
}
