//! Real clusters on one machine, for tests, demos and benchmarks.
