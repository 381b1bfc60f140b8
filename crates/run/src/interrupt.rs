//! Ctrl-C and SIGTERM: the steps at work are ended in an orderly way. A lost terminal (SIGHUP) does not stop a recovery.

use crate::error::StepError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Whether the operator asked to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    wake: Arc<tokio::sync::Notify>,
}

/// Listens while it lives.
pub(crate) struct Listening(tokio::task::JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Interrupt {
    /// Asks to stop.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.wake.notify_waiters();
    }

    /// Whether it was asked; `clear` forgets it, so that undoing can be interrupted by asking again.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Forgets it.
    pub(crate) fn clear(&self) {
        self.asked.store(false, Ordering::SeqCst);
    }

    /// Sleeps, or fails at once when asked to stop.
    pub(crate) async fn sleep(&self, time: Duration) -> Result<(), StepError> {
        let woken = self.wake.notified();
        if !self.asked() {
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                () = woken => {}
            }
        }
        if self.asked() { Err(StepError::Interrupted) } else { Ok(()) }
    }

    /// Listens for the signals; where that is not possible (no such runtime), signals act as they always do.
    pub(crate) fn listen(&self) -> Option<Listening> {
        let mut int = signal(SignalKind::interrupt()).ok()?;
        let mut term = signal(SignalKind::terminate()).ok()?;
        let mut hangup = signal(SignalKind::hangup()).ok()?;
        let this = self.clone();
        Some(Listening(tokio::spawn(async move {
            loop {
                tokio::select! {
                    got = int.recv() => if got.is_none() { return } else { this.ask() },
                    got = term.recv() => if got.is_none() { return } else { this.ask() },
                    got = hangup.recv() => if got.is_none() { return },
                }
            }
        })))
    }
}
