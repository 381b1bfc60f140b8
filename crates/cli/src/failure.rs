//! What a verb fails with: one line, its causes, a hint, and the exit code it deserves.

use crate::exit::Exit;

/// A failed verb.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    message: String,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// What the person can do about it.
    pub(crate) hint: Option<String>,
    /// Exit code.
    pub(crate) exit: Exit,
}

impl Failure {
    /// A plain error.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), cause: None, hint: None, exit: Exit::Error }
    }
    /// The command line is wrong in a way clap can't see.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }
    /// A safety guard says no.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, ..Self::new(message) }
    }
    /// With its cause.
    pub(crate) fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
    /// What it is because of, outermost first.
    pub(crate) fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }
    /// It and its causes in one line.
    pub(crate) fn line(&self) -> String {
        let mut lines = self.causes();
        lines.insert(0, self.message.clone());
        lines.join(": ")
    }
    /// With a hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A run that was not begun or taken up: a guard's refusal has an exit code of its own.
pub(crate) fn of_run(error: rekindle_run::RunError, doing: String) -> Failure {
    use rekindle_run::RunError as E;
    let guard = matches!(error, E::Locked { .. } | E::Claimed(_) | E::PastNoReturn { .. } | E::Exists { .. });
    let exit = if guard { Exit::Refused } else { Exit::Error };
    Failure { exit, ..Failure::new(doing).because(error) }
}

/// Adds what was being done to any error.
pub(crate) trait Doing<T> {
    /// `what` names the thing worked on.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(what()).because(error))
    }
}
