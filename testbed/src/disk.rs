//! How long this machine's disk makes a writer wait: what a promise in seconds is judged by, where a disk may stall.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writes and syncs one small file again and again.
pub struct Probe {
    worst_ms: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Probe {
    /// Begins, in a folder on the disk in question.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn start(dir: &Path) -> std::io::Result<Self> {
        let mut file = File::create(dir.join("disk-probe"))?;
        let (worst_ms, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (worst, ended) = (worst_ms.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let start = Instant::now();
                file.rewind()?;
                file.write_all(&[0; 4096])?;
                file.sync_data()?;
                let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                worst.fetch_max(took_ms, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        });
        Ok(Self { worst_ms, end, thread: Some(thread) })
    }

    /// The longest that one write with its sync took, in ms.
    ///
    /// # Errors
    /// When the disk failed.
    pub fn stop(mut self) -> std::io::Result<u64> {
        self.end.store(true, Ordering::Relaxed);
        if let Some(Ok(ended)) = self.thread.take().map(JoinHandle::join) {
            ended?;
        }
        Ok(self.worst_ms.load(Ordering::Relaxed))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}
