//! Inventory to findings: pure rules, by layer.
