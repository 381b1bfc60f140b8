//! The near end of a channel: many requests and files at once over one pair of pipes, told apart by their ids.

use super::frame::{self, Body, Frame};
use super::transfer::{receive_file, send_file};
use super::wire::{EVENTS, Event, Outbox, broken, json, parse_reply, send, spawn_writer};
use crate::Progress;
use crate::fault::{Fault, Outcome};
use crate::host::{HostErrorKind, Reply, Request};
use camino::Utf8Path;
use rekindle_model::HostPath;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};

/// Requests and files at once; more wait their turn.
const AT_ONCE: usize = 64;
/// Longest wait, after the channel broke, for the reason why.
const REASON: Duration = Duration::from_secs(5);

/// The near end. Dropped, it closes the channel.
pub(super) struct Channel {
    outbox: Outbox,
    table: Arc<Table>,
    next_id: AtomicU64,
    turns: Semaphore,
    broken: watch::Receiver<Option<String>>,
    reader: tokio::task::JoinHandle<()>,
}

/// Who waits for frames of which id.
#[derive(Default)]
struct Table(Mutex<HashMap<u64, mpsc::Sender<Event>>>);

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Event>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the table, given up on drop; then frames for it are dropped too.
struct Place<'a> {
    id: u64,
    events: mpsc::Receiver<Event>,
    channel: &'a Channel,
    done: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.channel.table.lock().remove(&self.id);
        if let (false, Ok(runtime)) = (self.done, tokio::runtime::Handle::try_current()) {
            // Without it the far end would wait for the rest of a file; a channel that broke needs no telling.
            let (outbox, frame) = (self.channel.outbox.clone(), Frame { id: self.id, body: Body::Cancel });
            runtime.spawn(async move { outbox.send(frame).await });
        }
    }
}

impl Channel {
    /// Takes over both pipes. `why_ended` is asked once, when the channel has ended, for what is known of it.
    pub(super) fn new<W>(
        from: impl AsyncRead + Send + Unpin + 'static,
        to: impl AsyncWrite + Send + Unpin + 'static,
        why_ended: impl FnOnce(io::Result<()>) -> W + Send + 'static,
    ) -> Self
    where
        W: Future<Output = String> + Send,
    {
        let (outbox, _) = spawn_writer(to);
        let table = Arc::new(Table::default());
        let (tell, broken) = watch::channel(None);
        let reading = table.clone();
        let reader = tokio::spawn(async move {
            let ended = read_frames(from, &reading).await;
            let why = why_ended(ended).await;
            tell.send_replace(Some(why));
            reading.lock().clear();
        });
        Self { outbox, table, next_id: AtomicU64::new(1), turns: Semaphore::new(AT_ONCE), broken, reader }
    }

    /// Why the channel ended, if it has.
    pub(super) fn ended(&self) -> Option<String> {
        self.broken.borrow().clone()
    }

    /// Asks and waits for the answer.
    pub(super) async fn call(&self, request: &Request) -> Outcome<Reply> {
        let body = Body::Request(json(request)?);
        let _turn = self.turns.acquire().await.map_err(|_| broken())?;
        let mut place = self.place();
        let answered = async {
            send(&self.outbox, place.id, body).await?;
            answer(&mut place).await
        };
        let answered = answered.await;
        self.explain(answered).await
    }

    /// Sends a file of this machine to the far end.
    pub(super) async fn put(&self, from: &Utf8Path, to: &HostPath, progress: &Progress) -> Outcome<()> {
        let body = Body::Put(json(to)?);
        let _turn = self.turns.acquire().await.map_err(|_| broken())?;
        let mut place = self.place();
        let sent = async {
            send(&self.outbox, place.id, body).await?;
            send_file(from.to_owned(), place.id, &self.outbox, &mut place.events, progress).await?;
            answer(&mut place).await.map(|_| ())
        };
        let sent = sent.await;
        self.explain(sent).await
    }

    /// Fetches a file of the far end.
    pub(super) async fn get(&self, from: &HostPath, to: &Utf8Path, progress: &Progress) -> Outcome<()> {
        let body = Body::Get(json(from)?);
        let _turn = self.turns.acquire().await.map_err(|_| broken())?;
        let mut place = self.place();
        let received = async {
            send(&self.outbox, place.id, body).await?;
            receive_file(to.to_owned(), place.id, &self.outbox, &mut place.events, progress).await?;
            answer(&mut place).await.map(|_| ())
        };
        let received = received.await;
        self.explain(received).await
    }

    fn place(&self) -> Place<'_> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::channel(EVENTS);
        let mut table = self.table.lock();
        // A channel that ended meanwhile has cleared its table for the last time: nobody would ever wake this one.
        if self.broken.borrow().is_none() {
            table.insert(id, sender);
        }
        Place { id, events, channel: self, done: false }
    }

    /// Puts the reason in the place of "the channel broke".
    async fn explain<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        match outcome {
            Err(fault) if fault.kind == HostErrorKind::Unreachable => {
                let mut broken = self.broken.clone();
                let told = tokio::time::timeout(REASON, broken.wait_for(Option::is_some)).await;
                let why = told.ok().and_then(Result::ok).and_then(|why| why.clone());
                Err(Fault { what: why.unwrap_or(fault.what), ..fault })
            }
            other => other,
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Waits for the reply; credit for the last pieces of a file may come before it.
async fn answer(place: &mut Place<'_>) -> Outcome<Reply> {
    loop {
        match place.events.recv().await {
            Some(Event::Reply(json)) => {
                place.done = true;
                return parse_reply(&json);
            }
            Some(Event::Credit(_)) => {}
            Some(_) => return Err(Fault::failed("a piece of a file instead of an answer")),
            None => return Err(broken()),
        }
    }
}

/// Hands each frame to who waits for it, until the channel ends. Frames nobody waits for are dropped.
async fn read_frames(mut from: impl AsyncRead + Unpin, table: &Table) -> io::Result<()> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    while let Some(frame) = frame::read(&mut from).await? {
        let Some(event) = Event::of(frame.body) else {
            return Err(bad("the far end sent a request".into()));
        };
        let waiting = table.lock().get(&frame.id).cloned();
        if let Some(Err(mpsc::error::TrySendError::Full(_))) = waiting.map(|w| w.try_send(event)) {
            return Err(bad(format!("the far end does not keep to the window of file {}", frame.id)));
        }
    }
    Ok(())
}
