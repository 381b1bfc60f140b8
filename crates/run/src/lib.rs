//! Executes plans: journal, executor, resume, undo, verify.
