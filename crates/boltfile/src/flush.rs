//! Writing on a thread of its own: while it writes one buffer, the next one is filled, and the disk is already busy.
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::{Advice, fadvise};

/// Buffers under way at most, besides the one being filled.
const BUFFERS: usize = 2;

/// Takes full buffers and writes them one behind the other.
#[derive(Debug)]
pub(crate) struct Flusher {
    full: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<io::Result<File>>>,
}

impl Flusher {
    /// Writes to `file` from `offset` on.
    pub(crate) fn start(file: File, mut offset: u64) -> io::Result<Self> {
        let (full, todo) = sync_channel::<Vec<u8>>(BUFFERS);
        let (done, empty) = sync_channel(BUFFERS + 1);
        let write = move || {
            for mut buffer in todo {
                file.write_all_at(&buffer, offset)?;
                // A hint, not a sync: the kernel starts to write these pages to the disk instead of leaving all of
                // them to the caller's sync. Pages still dirty stay cached (`generic_fadvise` in Linux).
                let _ = fadvise(&file, offset, NonZeroU64::new(buffer.len() as u64), Advice::DontNeed);
                offset += buffer.len() as u64;
                buffer.clear();
                // Nobody takes it back any more once the writer has gone.
                let _ = done.try_send(buffer);
            }
            Ok(file)
        };
        let thread = std::thread::Builder::new().name("bolt-flush".to_owned()).spawn(write)?;
        Ok(Self { full: Some(full), empty, thread: Some(thread) })
    }

    /// Hands over a full buffer and gets an empty one, waiting while too many are under way.
    ///
    /// An error is that of an earlier buffer.
    pub(crate) fn write(&mut self, buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        let sent = self.full.as_ref().is_some_and(|full| full.send(buffer).is_ok());
        if !sent {
            return Err(self.finish().err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()));
        }
        Ok(self.empty.try_recv().unwrap_or_default())
    }

    /// Waits until all is written (not synced): the file.
    pub(crate) fn finish(&mut self) -> io::Result<File> {
        self.full = None;
        let thread = self.thread.take().ok_or(io::ErrorKind::BrokenPipe)?;
        thread.join().map_err(|_| io::Error::other("the writing thread panicked"))?
    }
}

impl Drop for Flusher {
    /// Nothing writes to the file once its writer has gone.
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = self.finish();
        }
    }
}
