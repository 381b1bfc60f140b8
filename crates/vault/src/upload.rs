//! One part into the store: sealed on a worker thread, uploaded as it comes, a few MiB in memory at most.

use crate::error::{Error, Result};
use crate::keys::Recipients;
use crate::seal::{Sealed, seal};
use crate::store::{PATIENCE, Store};
use bytes::Bytes;
use object_store::{ObjectStoreExt, PutPayload, WriteMultipart};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Instant;
use tokio::sync::mpsc;

/// Size of an uploaded piece; S3 takes at least 5 MiB and at most 10,000 of them: 80 GiB.
const PIECE_BYTES: usize = 8 << 20;
/// Pieces on their way at the same time.
const PIECES: usize = 3;
/// Sealed bytes pass to the uploader in chunks of this size, this many at most.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNKS: usize = 4;

/// Where a part's content comes from.
#[derive(Clone, Debug)]
pub enum PartSource {
    /// A local file.
    File(PathBuf),
    /// Bytes in memory.
    Bytes(Bytes),
}

impl PartSource {
    fn open(self) -> Result<Box<dyn Read + Send>> {
        match self {
            Self::Bytes(bytes) => Ok(Box::new(io::Cursor::new(bytes))),
            Self::File(path) => match std::fs::File::open(&path) {
                Ok(file) => Ok(Box::new(file)),
                Err(source) => Err(Error::Local { path, action: "open", source }),
            },
        }
    }
}

/// A part is uploaded this often, when the server lost it or a request of it.
const TRIES: usize = 3;

/// Seals `source` into a new object and sees that it is there: a server that was killed while it put the pieces of an
/// object together may call it complete and have none. On an error nothing is left of it that a reader could take for a part.
pub(crate) async fn upload(
    store: &Store,
    name: &str,
    source: PartSource,
    head_bytes: Option<u64>,
    recipients: &Recipients,
) -> Result<Sealed> {
    let (mut tries, start) = (1.., Instant::now());
    loop {
        let last = tries.next() == Some(TRIES) || start.elapsed() > PATIENCE;
        let stored = match upload_once(store, name, source.clone(), head_bytes, recipients).await {
            Ok(sealed) => (store.size_bytes(name).await? == Some(sealed.size_bytes)).then_some(sealed),
            Err(error) if !last && error.is_unanswered() => None,
            Err(error) => return Err(error),
        };
        match stored {
            Some(sealed) => return Ok(sealed),
            None if last => return Err(Error::Vanished { object: store.object(name) }),
            None => {}
        }
    }
}

async fn upload_once(
    store: &Store,
    name: &str,
    source: PartSource,
    head_bytes: Option<u64>,
    recipients: &Recipients,
) -> Result<Sealed> {
    let (sender, mut chunks) = mpsc::channel(CHUNKS);
    let (object, recipients) = (store.object(name), recipients.clone());
    let worker = tokio::task::spawn_blocking(move || {
        seal(&object, source.open()?, head_bytes, &recipients, ToChannel::new(sender))
    });
    let mut first = Vec::new();
    let mut buffered = 0;
    while buffered < PIECE_BYTES {
        let Some(chunk) = chunks.recv().await else { break };
        buffered += Bytes::len(&chunk);
        first.push(chunk);
    }
    let lost = |_| Error::Worker { doing: "sealing a part" };
    if buffered < PIECE_BYTES {
        let sealed = worker.await.map_err(lost)??;
        // the name is this part's alone, so that a retry after a lost answer replaces nothing but itself
        store.put(name, first.into_iter().collect::<PutPayload>()).await?;
        return Ok(sealed);
    }
    let (inner, path) = store.inner();
    let path = path(name);
    let failed = store.error("upload", name);
    let upload = inner.put_multipart(&path).await.map_err(&failed)?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PIECE_BYTES);
    first.into_iter().for_each(|chunk| upload.put(chunk));
    let streamed = async {
        while let Some(chunk) = chunks.recv().await {
            upload.wait_for_capacity(PIECES).await.map_err(&failed)?;
            upload.put(chunk);
        }
        Ok(())
    };
    let streamed: Result<()> = streamed.await;
    // the worker ends by itself once nobody takes its chunks
    drop(chunks);
    let sealed = match (streamed, worker.await.map_err(lost)?) {
        (Ok(()), Ok(sealed)) => sealed,
        (Err(error), _) | (Ok(()), Err(error)) => {
            // what can't be aborted now is dropped by the bucket's own rule for unfinished uploads
            let _ = upload.abort().await;
            return Err(error);
        }
    };
    upload.finish().await.map_err(&failed)?;
    Ok(sealed)
}

/// Hands what is written on to an async task.
struct ToChannel {
    sender: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl ToChannel {
    fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { sender, buffer: Vec::with_capacity(CHUNK_BYTES) }
    }
}

impl Write for ToChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.sender.blocking_send(full.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
