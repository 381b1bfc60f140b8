//! Rules.
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::Plan;
/// Lints.
pub fn lint(_plan: &Plan, _inventory: &Inventory) -> Vec<String> { Vec::new() }
