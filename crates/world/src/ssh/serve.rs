//! The far end of a channel: answers what comes over stdin on stdout, for as long as stdin is open, and then finishes
//! what it has begun. The program runs this as its hidden verb `serve`.

use super::frame::{self, Body, Frame, PREAMBLE};
use super::transfer::{receive_file, send_file};
use super::wire::{EVENTS, Event, Outbox, WireFault, WireReply, json, spawn_writer};
use crate::Progress;
use crate::fault::{Fault, Outcome};
use crate::host::{Host, Reply, Request};
use crate::local::paths::Root;
use rekindle_model::HostPath;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Most requests and files at once: four times what a near end asks for.
const AT_ONCE: usize = 256;

/// Serves `host` over a pair of pipes until `stdin` ends. Files that cross are files of this machine, by their paths
/// from its `/`.
///
/// # Errors
/// `stdin` brought something that is not a frame, or `stdout` failed.
pub async fn serve(
    host: Arc<dyn Host>,
    stdin: impl AsyncRead + Send + Unpin + 'static,
    mut stdout: impl AsyncWrite + Send + Unpin + 'static,
) -> io::Result<()> {
    stdout.write_all(format!("{PREAMBLE}\n").as_bytes()).await?;
    stdout.flush().await?;
    let (outbox, writer) = spawn_writer(stdout);
    let mut work = Work { host, outbox, open: HashMap::new(), tasks: JoinSet::new() };
    let read = work.take_all(spawn_reader(stdin)).await;
    // What is in the middle of a file fails without its rest; every request begun is finished.
    let Work { open, mut tasks, outbox, .. } = work;
    drop(open);
    while tasks.join_next().await.is_some() {}
    drop(outbox);
    let written = writer.await.unwrap_or_else(|e| Err(io::Error::other(e)));
    read.and(written)
}

/// Reads frames in a task of its own: half a frame must not get lost when something else happens meanwhile.
fn spawn_reader(mut stdin: impl AsyncRead + Send + Unpin + 'static) -> mpsc::Receiver<io::Result<Frame>> {
    let (sender, frames) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(frame) = frame::read(&mut stdin).await.transpose() {
            let last = frame.is_err();
            if sender.send(frame).await.is_err() || last {
                return;
            }
        }
    });
    frames
}

struct Work {
    host: Arc<dyn Host>,
    outbox: Outbox,
    /// Files under way.
    open: HashMap<u64, mpsc::Sender<Event>>,
    tasks: JoinSet<u64>,
}

impl Work {
    async fn take_all(&mut self, mut frames: mpsc::Receiver<io::Result<Frame>>) -> io::Result<()> {
        loop {
            tokio::select! {
                Some(done) = self.tasks.join_next() => {
                    if let Ok(id) = done {
                        self.open.remove(&id);
                    }
                }
                frame = frames.recv() => match frame {
                    Some(frame) => self.take(frame?)?,
                    None => return Ok(()),
                },
            }
        }
    }

    fn take(&mut self, Frame { id, body }: Frame) -> io::Result<()> {
        let bad = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let begins = matches!(body, Body::Request(_) | Body::Put(_) | Body::Get(_));
        if begins && self.tasks.len() >= AT_ONCE {
            return bad(format!("more than {AT_ONCE} requests at once"));
        }
        if begins && self.open.contains_key(&id) {
            return bad(format!("two requests with the id {id}"));
        }
        match body {
            Body::Request(json) => self.spawn(id, answer(self.host.clone(), json)),
            Body::Put(json) => {
                let (outbox, mut events) = (self.outbox.clone(), self.open_file(id));
                self.spawn(id, async move {
                    let to = Root::new("/").resolve(&path(&json)?)?;
                    receive_file(to, id, &outbox, &mut events, &silent()).await.map(|()| Reply::Done)
                });
            }
            Body::Get(json) => {
                let (outbox, mut events) = (self.outbox.clone(), self.open_file(id));
                self.spawn(id, async move {
                    let from = Root::new("/").resolve(&path(&json)?)?;
                    send_file(from, id, &outbox, &mut events, &silent()).await.map(|()| Reply::Done)
                });
            }
            other => {
                // Pieces of a file that failed meanwhile may still be under way: nobody waits for them.
                let full = match (self.open.get(&id), Event::of(other)) {
                    (Some(file), Some(event)) => file.try_send(event).err(),
                    _ => None,
                };
                if let Some(mpsc::error::TrySendError::Full(_)) = full {
                    return bad(format!("more of file {id} than its window"));
                }
            }
        }
        Ok(())
    }

    fn open_file(&mut self, id: u64) -> mpsc::Receiver<Event> {
        let (sender, events) = mpsc::channel(EVENTS);
        self.open.insert(id, sender);
        events
    }

    /// Works in a task of its own and replies what came of it, a panic too.
    fn spawn(&mut self, id: u64, work: impl Future<Output = Outcome<Reply>> + Send + 'static) {
        let outbox = self.outbox.clone();
        self.tasks.spawn(async move {
            let outcome = tokio::spawn(work).await;
            let outcome = outcome.unwrap_or_else(|e| Err(Fault::failed(format!("the request died: {e}"))));
            // A channel that broke takes no reply, and nobody is left to be told.
            let _ = outbox.send(Frame { id, body: Body::Reply(reply(outcome)) }).await;
            id
        });
    }
}

async fn answer(host: Arc<dyn Host>, request: Vec<u8>) -> Outcome<Reply> {
    let request: Request = serde_json::from_slice(&request)
        .map_err(|e| Fault::failed(format!("a request that this version does not know: {e}")))?;
    host.call(request).await.map_err(|e| Fault { kind: e.kind, what: e.what })
}

fn path(json: &[u8]) -> Outcome<HostPath> {
    serde_json::from_slice(json).map_err(|e| Fault::failed(format!("not a path: {e}")))
}

fn silent() -> Progress {
    Arc::new(|_, _| {})
}

/// The JSON of a reply; one too long for a frame becomes an error that says so.
fn reply(outcome: Outcome<Reply>) -> Vec<u8> {
    let wire = |fault: Fault| WireReply::Err(WireFault { what: fault.what, kind: fault.kind });
    json(&outcome.map_err(|fault| WireFault { what: fault.what, kind: fault.kind }))
        .or_else(|fault| json(&wire(fault)))
        .unwrap_or_else(|_| br#"{"Err":{"what":"no answer could be rendered","kind":"Failed"}}"#.to_vec())
}
