//! One part out of the store: streamed to a worker thread that checks it, and decrypts it where it can.

use crate::error::{Error, Result};
use crate::keys::Identities;
use crate::manifest::Part;
use crate::seal;
use crate::store::Store;
use bytes::Bytes;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Chunks between the network and the worker.
const CHUNKS: usize = 8;

/// Compares a stored part with its manifest: size and sha256.
pub(crate) async fn check(store: &Store, part: &Part) -> Result<()> {
    let (object, part_) = (store.object(&part.name), part.clone());
    with_stream(store, part, move |reader| seal::check_stored(&object, &part_, reader)).await
}

/// Reads all of a part's content, checked on both sides, and keeps nothing.
pub(crate) async fn read(store: &Store, part: &Part, identities: &Arc<Identities>) -> Result<()> {
    let (object, part_, identities) = (store.object(&part.name), part.clone(), identities.clone());
    let work = move |reader| seal::unseal(&object, &part_, reader, &identities, io::sink());
    with_stream(store, part, work).await
}

/// Decrypts and decompresses a part, checked on both sides, into a new file: it is there whole or not at all.
pub(crate) async fn fetch(store: &Store, part: &Part, identities: &Arc<Identities>, to: &Path) -> Result<()> {
    let (object, part_, identities) = (store.object(&part.name), part.clone(), identities.clone());
    let to = to.to_owned();
    with_stream(store, part, move |reader| {
        let aside = Aside::new(&to)?;
        seal::unseal(&object, &part_, reader, &identities, aside.file())?;
        aside.into_place()
    })
    .await
}

/// Feeds a part's stored bytes to `work` on a worker thread.
async fn with_stream<T: Send + 'static>(
    store: &Store,
    part: &Part,
    work: impl FnOnce(FromChannel) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (inner, path) = store.inner();
    let failed = store.error("read", &part.name);
    let answer = inner.get(&path(&part.name)).await.map_err(&failed)?;
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let worker = tokio::task::spawn_blocking(move || work(FromChannel { chunks, chunk: Bytes::new() }));
    let mut stream = answer.into_stream();
    let mut broken = None;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            broken = Some(error);
            io::Error::from(io::ErrorKind::UnexpectedEof)
        });
        // a worker that has seen enough takes no more
        if sender.send(chunk).await.is_err() || broken.is_some() {
            break;
        }
    }
    drop(sender);
    let outcome = worker.await.map_err(|_| Error::Worker { doing: "reading a part" })?;
    match broken {
        Some(error) => Err(failed(error)),
        None => outcome,
    }
}

struct FromChannel {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
}

impl Read for FromChannel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let count = self.chunk.len().min(buffer.len());
        let taken = self.chunk.split_to(count);
        buffer.get_mut(..count).unwrap_or_default().copy_from_slice(&taken);
        Ok(count)
    }
}

/// A file that gets its name when it is whole.
struct Aside {
    file: tempfile::NamedTempFile,
    to: PathBuf,
}

impl Aside {
    fn new(to: &Path) -> Result<Self> {
        let folder = folder_of(to);
        let file = tempfile::Builder::new()
            .prefix(".rekindle-part-")
            .tempfile_in(folder)
            .map_err(|source| Error::Local { path: folder.to_owned(), action: "create a file in", source })?;
        Ok(Self { file, to: to.to_owned() })
    }

    fn file(&self) -> &File {
        self.file.as_file()
    }

    fn into_place(self) -> Result<()> {
        let Self { file, to } = self;
        let local = |action| {
            let path = to.clone();
            move |source| Error::Local { path, action, source }
        };
        file.as_file().sync_all().map_err(local("sync"))?;
        file.persist_noclobber(&to).map_err(|error| local("name")(error.error))?;
        File::open(folder_of(&to)).and_then(|folder| folder.sync_all()).map_err(local("sync the folder of"))
    }
}

fn folder_of(to: &Path) -> &Path {
    to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
