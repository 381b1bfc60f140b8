//! The one printer: data on stdout, everything else on stderr; a closed pipe is success.

use crate::args::{Common, Format, LogFormat};
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use serde::Serialize;
use serde_json::{Map, Value};
use std::io::{IsTerminal, Write};

/// Where output goes, and in which form.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    /// `-o`
    pub(crate) format: Format,
    /// Whether a person watches stderr: progress bars only then.
    pub(crate) live: bool,
    /// Form of the lines on stderr.
    pub(crate) log: LogFormat,
}

/// What a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// As it should be.
    Info,
    /// Somebody should look.
    Error,
}

impl Output {
    /// From the common flags and the terminal.
    pub(crate) fn new(common: &Common, log: LogFormat) -> Self {
        if common.no_color {
            anstream::ColorChoice::Never.write_global();
        }
        let live = std::io::stderr().is_terminal();
        Self { format: common.output, live, log }
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
        self.log(Level::Info, line, &[]);
    }

    /// A line on stderr. As JSON, one object: `time` (RFC 3339), `level`, `message`, and the fields, which the message
    /// says in words, too.
    pub(crate) fn log(&self, level: Level, message: &str, fields: &[(&str, Value)]) {
        let line = match (self.log, level) {
            (LogFormat::Json, _) => logged(jiff::Timestamp::now(), level, message, fields),
            (LogFormat::Text, Level::Info) => message.to_owned(),
            (LogFormat::Text, Level::Error) => format!("error: {message}"),
        };
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
        let causes = failure.causes();
        let hint = failure.hint.as_deref();
        if self.log == LogFormat::Json {
            let mut fields = vec![("causes", causes.into())];
            fields.extend(hint.map(|hint| ("hint", hint.into())));
            self.log(Level::Error, &failure.to_string(), &fields);
            return failure.exit;
        }
        self.log(Level::Error, &failure.to_string(), &[]);
        causes.iter().for_each(|cause| self.say(&format!("  because: {cause}")));
        if let Some(hint) = hint {
            self.say(&format!("hint: {hint}"));
        }
        failure.exit
    }
}

fn logged(time: jiff::Timestamp, level: Level, message: &str, fields: &[(&str, Value)]) -> String {
    let level = if level == Level::Error { "error" } else { "info" };
    let mut object = Map::new();
    object.insert("time".into(), format!("{time:.3}").into());
    object.insert("level".into(), level.into());
    object.insert("message".into(), message.into());
    object.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Value::Object(object).to_string()
}

fn not_rendered() -> String {
    "cannot render the answer".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Whoever parses the log gets one object a line, whatever somebody else's error text holds.
    #[test]
    fn a_line_is_one_object() {
        let time = jiff::Timestamp::from_millisecond(1_795_000_000_120).unwrap();
        let line = logged(time, Level::Error, "no \"disk\"\nat all", &[("revision", 7.into())]);
        assert_eq!(
            line,
            r#"{"time":"2026-11-18T11:06:40.120Z","level":"error","message":"no \"disk\"\nat all","revision":7}"#
        );
    }
}
