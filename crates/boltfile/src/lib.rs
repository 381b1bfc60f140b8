//! bbolt database files: read, check, and write new ones.
