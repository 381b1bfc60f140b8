//! Running other programs: the output is kept, and a failure names the command, its status and its last words.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Says on stderr what is being done: these steps take seconds to minutes.
#[allow(clippy::print_stderr)] // the one printer of the test bed
pub fn note(message: &str) {
    eprintln!("testbed: {message}");
}

/// A command ready for more arguments, with no standard input.
pub fn command<I, S>(program: &str, args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs a command to its end and returns its output, whatever its status.
///
/// # Errors
/// When the program cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("cannot start {}", shown(command)))
}

/// Runs a command that must succeed and returns its standard output.
///
/// # Errors
/// When it cannot be started or its status is not 0; the error quotes the end of what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    check(&shown(command), &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// [`run`] for a program and its arguments.
///
/// # Errors
/// As [`run`].
pub fn sh<I, S>(program: &str, args: I) -> Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    run(&mut command(program, args))
}

/// An error unless the status is 0, quoting the end of both streams.
///
/// # Errors
/// When the status is not 0.
pub fn check(what: &str, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::new();
    for stream in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(stream);
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(25)) {
            let _ = write!(said, "\n    {line}");
        }
    }
    bail!("{what}: {}{said}", output.status)
}

/// The command line as a person would type it, shortened.
fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let _ = write!(line, " {}", arg.to_string_lossy());
    }
    if line.chars().count() > 240 {
        line = line.chars().take(240).collect::<String>() + "...";
    }
    line
}

/// Ends processes with SIGKILL. One that has ended already is no error.
pub fn kill(pids: &[u32]) {
    let ids: Vec<String> = pids.iter().map(u32::to_string).collect();
    if !ids.is_empty() {
        let _ = output(command("kill", ["-s", "KILL"]).args(&ids));
    }
}

/// Asks again until `ready` returns `Ok(Some)` or the time is over; the error then quotes the last answer.
///
/// # Errors
/// When the time is over.
pub fn wait_for<T>(what: &str, timeout: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        let last = match ready() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > timeout {
            bail!("{what}: not after {} s; the last answer was: {last}", timeout.as_secs());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
