//! What the scenarios share: the built binary, a loaded cluster, and questions asked of it.
//!
//! Each file in `tests/` is one scenario of the recovery contract; `cargo xtask test --only s1` runs one.
