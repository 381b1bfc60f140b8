//! Exit codes: a contract that scripts depend on.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All well.
    Ok = 0,
    /// Something went wrong.
    Error = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Findings that fail.
    Findings = 3,
    /// Only warnings, with `--fail-on=warn`.
    Warnings = 4,
    /// Refused by a safety guard.
    Refused = 5,
    /// Recovered in part, or stuck.
    Partial = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Prints clap's message where it belongs: help and version to stdout with 0, mistakes to stderr with 2.
pub(crate) fn from_usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done when even this can't be printed.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() }
}
