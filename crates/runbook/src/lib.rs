//! A runbook that is true for one cluster: its hosts, addresses, paths and versions, made of an inventory. Pure.
//!
//! - [`site`]: what the commands need to know of the cluster. [`by_hand`]: the stock commands, which a test runs;
//!   `unit_settings.rs`: an etcd unit's flags.
//! - [`chart`]: from a symptom to a chapter, as SVG and Mermaid. `chapters/`: one file for a group of failures.
//! - [`doc`]: a document as blocks, written as Markdown or HTML.

pub mod by_hand;
mod chapters;
pub mod chart;
pub mod doc;
pub mod site;
mod unit_settings;

use doc::Document;
use rekindle_model::inventory::Inventory;
use site::{Notes, Site};

/// The runbook of the cluster that the inventory shows, with what the operator says of it.
pub fn runbook(inventory: &Inventory, notes: &Notes) -> Document {
    chapters::all(&Site::new(inventory, notes))
}
