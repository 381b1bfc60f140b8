//! What people read: check lines, plans, reports. Pure functions from the model to text.

pub(crate) mod check;
pub(crate) mod drain;
pub(crate) mod plan;
pub(crate) mod units;
