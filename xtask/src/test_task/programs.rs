//! Test programs, several at once: most of their time they wait for processes that they started.

use anyhow::{Context, Result, bail};
use camino::Utf8PathBuf;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{Read as _, Seek as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use testbed::cmd;

/// Those that take longest begin first, so that no long one runs alone at the end.
const LONGEST: [&str; 10] = [
    "run points",
    "etcd-disk stock_restore",
    "cli nodes_many",
    "scenarios s2",
    "scenarios runbook",
    "scenarios pitr",
    "scenarios nodes",
    "scenarios live_drill",
    "scenarios s1",
    "scenarios certs",
];

/// A built test program.
pub(super) struct Program {
    /// Folder of the package, and target: `world local_etcd`.
    pub(super) name: String,
    pub(super) path: Utf8PathBuf,
    /// Where cargo runs it: the folder of its package.
    folder: Utf8PathBuf,
}

/// How a program ended.
pub(super) struct Ended {
    /// [`Program::name`].
    pub(super) name: String,
    pub(super) outcome: Result<()>,
    pub(super) took: Duration,
}

/// Builds the test programs that `cargo test ARGS` would run.
///
/// # Errors
/// When they do not build.
pub(super) fn build(args: &[&str]) -> Result<Vec<Program>> {
    let output = Command::new("cargo")
        .args(["test", "--quiet", "--no-run", "--message-format=json-render-diagnostics"])
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo test --no-run {}: {}", args.join(" "), output.status);
    }
    let text = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    let mut programs = Vec::new();
    for line in text.lines() {
        let message: Value = serde_json::from_str(line).with_context(|| format!("cargo said {line:?}"))?;
        programs.extend(program(&message)?);
    }
    let rank = |program: &Program| LONGEST.iter().position(|name| *name == program.name);
    programs.sort_by_key(|program| rank(program).unwrap_or(LONGEST.len()));
    if programs.is_empty() {
        bail!("cargo test {} has no test programs", args.join(" "));
    }
    Ok(programs)
}

/// The test program a message of cargo tells of (Cargo Book, "External tools": `compiler-artifact`).
fn program(message: &Value) -> Result<Option<Program>> {
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    let is_test = message.pointer("/profile/test") == Some(&Value::Bool(true));
    let Some(path) = text("/executable").filter(|_| is_test) else { return Ok(None) };
    let manifest = Utf8PathBuf::from(text("/manifest_path").context("an artifact without a manifest")?);
    let folder = manifest.parent().context("a manifest without a folder")?.to_owned();
    let target = text("/target/name").context("an artifact without a target")?;
    let name = format!("{} {target}", folder.file_name().unwrap_or_default());
    Ok(Some(Program { name, path: path.into(), folder }))
}

/// Runs them all, `at_once` side by side. `command` makes the command of a program for the worker of this number, from 0.
/// What each printed is shown when it has ended; the longest `limit` is given to each.
pub(super) fn run(
    programs: &[Program],
    at_once: usize,
    limit: Duration,
    command: impl Fn(usize, &Program) -> Command + Sync,
) -> Vec<Ended> {
    let (left, ended) = (Mutex::new(programs.iter()), Mutex::new(Vec::new()));
    let worker = |number: usize| {
        while let Some(program) = next(&left) {
            let start = Instant::now();
            let outcome = one(program, command(number, program), limit);
            if let Err(error) = &outcome {
                cmd::note(&format!("tests: {}: FAILED: {error:#}", program.name));
            }
            locked(&ended).push(Ended { name: program.name.clone(), outcome, took: start.elapsed() });
        }
    };
    let worker = &worker;
    std::thread::scope(|scope| (0..at_once).for_each(|number| drop(scope.spawn(move || worker(number)))));
    ended.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn next<'p>(left: &Mutex<std::slice::Iter<'p, Program>>) -> Option<&'p Program> {
    locked(left).next()
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn one(program: &Program, mut command: Command, limit: Duration) -> Result<()> {
    let start = Instant::now();
    // a pipe would have to be read while it runs
    let mut output = tempfile::tempfile().context("cannot make a file for what it prints")?;
    command.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.path))?;
    let status = ended(&mut child, limit)?;
    let mut shown = format!("tests: {} ({} s)\n", program.name, start.elapsed().as_secs()).into_bytes();
    output.rewind().context("cannot read what it printed")?;
    output.read_to_end(&mut shown).context("cannot read what it printed")?;
    std::io::stderr().lock().write_all(&shown).context("cannot print")?;
    match status {
        None => bail!("did not end within {} s, and was ended", limit.as_secs()),
        Some(status) if !status.success() => bail!("{status}"),
        Some(_) => Ok(()),
    }
}

/// How it ended by itself. One that has not within the limit is ended with all that it started; hosts are taken away by the
/// next one that wants some.
fn ended(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for it")? {
            return Ok(Some(status));
        }
        if start.elapsed() > limit {
            cmd::kill(&below(child.id()));
            child.wait().context("cannot wait for it")?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A process and all below it.
fn below(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // proc(5): the parent is the second field after the name, which may have anything in it but ends with the last `)`
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        children.entry(parent.unwrap_or_default()).or_default().push(pid);
    }
    let mut all = vec![root];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        all.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    // A test that waits for ever would take the time of all the others: it is ended, with what it started, and says so.
    #[test]
    fn a_program_that_does_not_end_is_ended_with_all_below_it() {
        let mut child = Command::new("sh").args(["-c", "sleep 1000 & sleep 1001; true"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let all = below(child.id());
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(ended(&mut child, Duration::ZERO).unwrap().is_none());
        let runs = |pid: &&u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
        };
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(all.iter().filter(runs).collect::<Vec<_>>(), Vec::<&u32>::new());
        let mut child = Command::new("true").spawn().unwrap();
        assert!(ended(&mut child, Duration::from_secs(10)).unwrap().unwrap().success());
    }
}
