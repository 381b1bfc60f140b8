//! Resources through the API: every object of a cluster into a folder of YAML, one file each, and back.
//!
//! Reading: [`kinds`] (what there is), [`policy`] (what is left out, and why), [`backup`](mod@backup), [`folder`] (how it
//! lies on disk), [`archive`] (as one file, for a vault). Writing: [`plan`] (what would change), `prepare` (an object as another cluster takes it),
//! [`restore`](mod@restore) (in which order, in which passes), [`journal`] (how it survives its own death),
//! [`undo`](mod@undo).

pub mod archive;
pub mod backup;
pub mod changes;
mod clean;
mod compare;
mod error;
#[cfg(test)]
mod fake;
pub mod folder;
pub mod index;
pub mod journal;
pub mod kinds;
mod list;
mod order;
mod owners;
mod paths;
mod placing;
pub mod plan;
pub mod policy;
mod prepare;
pub mod report;
pub mod restore;
pub mod select;
pub mod undo;
mod write;
mod yaml;

pub use error::{Error, Result};
