//! Executes plans: journal, executor, resume, undo, verify.
//!
//! Start with [`execute`] (the ways in), `executor` (stages, hosts, what happens at a failure), then `steps/` (what each step does
//! and how it is taken back), [`journal`] and [`status`] (how a run survives its own death), [`report`] and [`runs`]
//! (what is told of it afterwards). Format of the stored files: `docs/formats/journal.md`.

pub mod error;
mod execute;
mod executor;
pub mod fault;
mod folder;
mod interrupt;
pub mod journal;
mod lock;
mod markdown;
pub mod report;
pub mod runs;
pub mod status;
mod steps;

pub use error::{RunError, StepError, outcome_word};
pub use execute::{Before, RunOptions, execute, execute_with, resume, resume_with, undo, undo_with};
pub use lock::Turn;

use rekindle_model::event::Event;
use std::sync::Arc;

/// Told every event, also progress, in order.
pub type Sink = Arc<dyn Fn(&Event) + Send + Sync>;

/// Now, milliseconds since the Unix epoch, by this machine's clock.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
