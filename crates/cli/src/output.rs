//! The one printer: data on stdout, everything else on stderr; a closed pipe is success.

use crate::args::{Common, Format};
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use serde::Serialize;
use std::io::{IsTerminal, Write};

/// Where output goes, and in which form.
pub(crate) struct Output {
    /// `-o`
    pub(crate) format: Format,
    /// Whether a person watches stderr: progress bars only then.
    pub(crate) live: bool,
}

impl Output {
    /// From the common flags and the terminal.
    pub(crate) fn new(common: &Common) -> Self {
        if common.no_color {
            anstream::ColorChoice::Never.write_global();
        }
        let live = std::io::stderr().is_terminal();
        Self { format: common.output, live }
    }

    /// Data for stdout. A reader that closed its end has what it wants: success.
    #[allow(clippy::print_stdout)]
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        let mut out = anstream::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(error).doing(|| "cannot write to standard output".into())
            }
            _ => Ok(()),
        }
    }

    /// A line for the person, on stderr.
    pub(crate) fn say(&self, line: &str) {
        // A terminal that went away must not stop a recovery.
        let _ = writeln!(anstream::stderr(), "{line}");
    }

    /// The same value as JSON or YAML, or as text by `table` (which is also given `short`).
    pub(crate) fn document<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(bool) -> String,
    ) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(value).map(|t| t + "\n").doing(not_rendered)?,
            Format::Yaml => serde_saphyr::to_string(value).doing(not_rendered)?,
            Format::Table => table(false),
            Format::Short => table(true),
        };
        self.data(&text)
    }

    /// Prints a failure: one line, its causes, the hint; and gives the exit code.
    pub(crate) fn fail(&self, failure: &Failure) -> Exit {
        self.say(&format!("error: {failure}"));
        let mut next = std::error::Error::source(failure);
        while let Some(cause) = next {
            self.say(&format!("  because: {cause}"));
            next = cause.source();
        }
        if let Some(hint) = &failure.hint {
            self.say(&format!("hint: {hint}"));
        }
        failure.exit
    }
}

fn not_rendered() -> String {
    "cannot render the answer".into()
}
