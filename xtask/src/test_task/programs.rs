//! Test programs, several at once: most of their time they wait for processes that they started.

use anyhow::{Context, Result, bail};
use camino::Utf8PathBuf;
use serde_json::Value;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// How many run at once. Each runs as many tests at a time as there are processors.
const AT_ONCE: usize = 3;

/// Those that take longest begin first, so that no long one runs alone at the end.
const LONGEST: [&str; 3] = ["run points", "etcd-disk stock_restore", "cli nodes_many"];

/// A built test program.
pub(super) struct Program {
    /// Folder of the package, and target: `world local_etcd`.
    name: String,
    path: Utf8PathBuf,
    /// Where cargo runs it: the folder of its package.
    folder: Utf8PathBuf,
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
    programs.sort_by_key(|program| !LONGEST.contains(&program.name.as_str()));
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

/// Runs them all and returns the names of those that failed. What each printed is shown when it has ended.
pub(super) fn run(programs: &[Program]) -> Vec<String> {
    let (left, failed) = (Mutex::new(programs.iter()), Mutex::new(Vec::new()));
    let worker = || {
        while let Some(program) = next(&left) {
            if let Err(error) = one(program) {
                testbed::cmd::note(&format!("tests: {}: FAILED: {error:#}", program.name));
                locked(&failed).push(program.name.clone());
            }
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(worker))));
    failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn next<'p>(left: &Mutex<std::slice::Iter<'p, Program>>) -> Option<&'p Program> {
    locked(left).next()
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn one(program: &Program) -> Result<()> {
    let start = Instant::now();
    let output = Command::new(&program.path)
        .arg("--quiet")
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program.path))?;
    let mut shown = format!("tests: {} ({} s)\n", program.name, start.elapsed().as_secs()).into_bytes();
    shown.extend(output.stdout);
    shown.extend(output.stderr);
    std::io::stderr().lock().write_all(&shown).context("cannot print")?;
    if !output.status.success() {
        bail!("{}", output.status);
    }
    Ok(())
}
