//! How a channel comes to be: one `ssh` session that finds out what the host is, brings this program there unless it
//! is there already, and becomes its verb `serve`.

use super::SshOptions;
use super::frame::PREAMBLE;
use crate::fault::{Fault, Outcome};
use camino::Utf8PathBuf;
use rekindle_model::HostId;
use sha2::{Digest, Sha256};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// Longest wait for the connection, the login and the first word of the host.
const LOGIN: Duration = Duration::from_secs(30);
/// Longest wait for one piece of the program to be taken, and for the program to answer.
const STEP: Duration = Duration::from_secs(60);
/// Longest wait for the rest of what ssh said, after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Most bytes that login shells may say before the first word.
const MAX_NOISE_BYTES: u64 = 64 << 10;
/// What is kept of ssh's own error output.
const MAX_STDERR_BYTES: usize = 4 << 10;
/// Largest program that is sent.
const MAX_PROGRAM_BYTES: u64 = 512 << 20;

/// What runs on the host, in words of POSIX `sh` alone and without `!`, `'` or `\`, so that every login shell hands it
/// on unharmed inside single quotes. Only `@HASH@` (64 hex digits), `@SIZE@` (a number) and `@SUDO@` (ours) are filled
/// in. It finds a folder of its own to execute from: made 0700, owned by this user, no symlink, and a file there can
/// be run (`noexec` shows by trying). It removes nothing but its own trial file, half a copy, and a copy with a wrong hash.
const SCRIPT: &str = r#"umask 077; u=$(id -u); p=""; echo "REKINDLE-HOST $(uname -s) $(uname -m)";
for d in "$XDG_RUNTIME_DIR" /run /var/tmp /tmp "$HOME"; do
if [ -n "$d" ] && [ -d "$d" ] && [ -w "$d" ]; then :; else continue; fi;
f="$d/rekindle-ssh-$u"; mkdir "$f" 2>/dev/null;
if [ -h "$f" ]; then continue; fi;
if [ -d "$f" ] && [ -O "$f" ] && chmod 700 "$f"; then :; else continue; fi;
t="$f/try.$$"; if echo "exit 0" 2>/dev/null > "$t"; then :; else continue; fi;
chmod 700 "$t"; "$t" 2>/dev/null; r=$?; rm -f "$t";
if [ "$r" -eq 0 ]; then p="$f/rekindle-@HASH@"; break; fi; done;
if [ -z "$p" ]; then echo REKINDLE-NOWHERE; exit 1; fi;
if [ -x "$p" ] && [ "$(wc -c < "$p")" -eq @SIZE@ ]; then echo REKINDLE-HAVE; else
echo REKINDLE-SEND; head -c @SIZE@ > "$p.$$"; chmod 700 "$p.$$";
if [ "$(wc -c < "$p.$$")" -eq @SIZE@ ]; then mv -f "$p.$$" "$p"; else rm -f "$p.$$"; exit 1; fi; fi;
if command -v sha256sum >/dev/null 2>&1; then s=$(sha256sum < "$p");
if [ "${s%% *}" = @HASH@ ]; then :; else rm -f "$p"; echo REKINDLE-BAD; exit 1; fi; fi;
exec @SUDO@ "$p" serve"#;

/// An `ssh` process whose pipes carry frames from here on.
pub(super) struct Session {
    pub(super) child: Child,
    pub(super) stdin: ChildStdin,
    pub(super) stdout: BufReader<ChildStdout>,
    pub(super) stderr: Stderr,
}

/// The last of what ssh says on its error output.
pub(super) struct Stderr {
    kept: Arc<Mutex<Vec<u8>>>,
    collector: tokio::task::JoinHandle<()>,
}

impl Stderr {
    fn collect(mut from: ChildStderr) -> Self {
        let keeps = Arc::new(Mutex::new(Vec::new()));
        let kept = keeps.clone();
        let collector = tokio::spawn(async move {
            let mut part = [0; 1024];
            while let Ok(length @ 1..) = from.read(&mut part).await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(part.iter().take(length));
                let surplus = kept.len().saturating_sub(MAX_STDERR_BYTES);
                kept.drain(..surplus);
            }
        });
        Self { kept: keeps, collector }
    }

    /// All of it, once ssh has ended: in one line, without control characters, for it comes from another machine and
    /// goes to a terminal.
    async fn text(&mut self) -> String {
        // a process that ssh left behind (a shared connection's) may hold the pipe open
        let _ = tokio::time::timeout(LAST_WORDS, &mut self.collector).await;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&kept);
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
        let line = lines.collect::<Vec<_>>().join("; ");
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

/// The program that is sent: its bytes, their hash, and the machine it runs on.
struct Program {
    bytes: Vec<u8>,
    sha256: String,
    machine: Option<&'static str>,
    path: Utf8PathBuf,
}

/// Opens a channel to a host.
///
/// # Errors
/// `Unreachable` when ssh does not get there, with what it says; `Refused` for another kind of machine than the
/// program's, and when no folder of the host can be executed from.
pub(super) async fn open(id: &HostId, options: &SshOptions) -> Outcome<Session> {
    let program = program(options.helper.as_ref()).await?;
    let mut session = start(id, options, &program)?;
    let opened = converse(&mut session, &program).await;
    match opened {
        Ok(()) => Ok(session),
        // What ssh (or sudo) itself says is the better reason, where the pipe merely ended.
        Err(fault) if fault.what == ENDED => {
            let status = tokio::time::timeout(Duration::from_secs(5), session.child.wait()).await;
            Err(Fault { what: ended(status.ok().and_then(Result::ok), &mut session.stderr).await, ..fault })
        }
        Err(fault) => Err(fault),
    }
}

const ENDED: &str = "ssh ended";

/// How ssh ended, for a text: its exit status and its last words.
pub(super) async fn ended(status: Option<std::process::ExitStatus>, stderr: &mut Stderr) -> String {
    let said = match stderr.text().await {
        text if text.is_empty() => "it said nothing".to_owned(),
        text => text,
    };
    match status {
        Some(status) => format!("ssh ended ({status}): {said}"),
        None => format!("ssh closed the channel: {said}"),
    }
}

/// This program itself: read and hashed once, however many hosts it goes to.
static OWN: tokio::sync::OnceCell<Arc<Program>> = tokio::sync::OnceCell::const_new();

async fn program(helper: Option<&Utf8PathBuf>) -> Outcome<Arc<Program>> {
    match helper {
        Some(path) => load(Some(path.clone())).await.map(Arc::new),
        None => OWN.get_or_try_init(|| async { load(None).await.map(Arc::new) }).await.cloned(),
    }
}

async fn load(helper: Option<Utf8PathBuf>) -> Outcome<Program> {
    let read = move || {
        let own = || {
            let exe = std::env::current_exe().map_err(|e| Fault::io("find this program", &e))?;
            Utf8PathBuf::from_path_buf(exe).map_err(|p| Fault::failed(format!("{}: not UTF-8", p.display())))
        };
        let path = helper.map_or_else(own, Ok)?;
        let failed = |e: std::io::Error| Fault::io(format_args!("read the program {path}"), &e);
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&path).map_err(failed)?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_PROGRAM_BYTES), &mut bytes)
            .map_err(failed)?;
        let sha256 = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        let machine = elf_machine(&bytes);
        Ok(Program { bytes, sha256, machine, path })
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|e| Fault::failed(format!("the reading thread died: {e}")))?
}

/// What `uname -m` says where a program runs, from its ELF header (`e_machine`, System V ABI); none = not told there.
fn elf_machine(bytes: &[u8]) -> Option<&'static str> {
    let header = bytes.first_chunk::<20>().filter(|h| h.starts_with(b"\x7fELF"))?;
    let [.., low, high] = header;
    match u16::from_le_bytes([*low, *high]) {
        62 => Some("x86_64"),
        183 => Some("aarch64"),
        _ => None,
    }
}

fn start(id: &HostId, options: &SshOptions, program: &Program) -> Outcome<Session> {
    let script = SCRIPT
        .replace("@HASH@", &program.sha256)
        .replace("@SIZE@", &program.bytes.len().to_string())
        .replace("@SUDO@", if options.sudo { "sudo -n" } else { "" })
        .replace('\n', " ");
    let mut command = Command::new("ssh");
    command.args(["-T", "-e", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]);
    // a host that loses power in the middle is noticed within 15 s
    command.args(["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]);
    if let Some(config) = &options.config {
        command.args(["-F", config.as_str()]);
    }
    command.arg("--").arg(&id.0).arg(format!("exec /bin/sh -c '{script}'"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| Fault::io("run ssh", &e))?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(errors)) = pipes else {
        return Err(Fault::failed("run ssh: no pipes"));
    };
    let stderr = Stderr::collect(errors);
    Ok(Session { child, stdin, stdout: BufReader::new(stdout), stderr })
}

/// Up to the preamble of the frames.
async fn converse(session: &mut Session, program: &Program) -> Outcome<()> {
    let host = word(session, &["REKINDLE-HOST "], LOGIN).await?;
    let machine = host.strip_prefix("REKINDLE-HOST ").unwrap_or_default().replace("arm64", "aarch64");
    let wanted = program.machine.map(|m| format!("Linux {m}"));
    if wanted.is_some_and(|w| w != machine) {
        let ours = program.machine.unwrap_or_default();
        return Err(Fault::refused(format!(
            "the host is {machine}, and {} is a program for Linux {ours}: give one for it with --helper",
            program.path
        )));
    }
    match word(session, &["REKINDLE-HAVE", "REKINDLE-SEND", "REKINDLE-NOWHERE"], LOGIN).await?.as_str() {
        "REKINDLE-HAVE" => {}
        "REKINDLE-SEND" => upload(session, &program.bytes).await?,
        _ => {
            let tried = "$XDG_RUNTIME_DIR, /run, /var/tmp, /tmp, $HOME";
            return Err(Fault::refused(format!("no folder there is both writable and executable: {tried}")));
        }
    }
    match word(session, &[PREAMBLE, "REKINDLE-FRAMES ", "REKINDLE-BAD"], STEP).await?.as_str() {
        PREAMBLE => Ok(()),
        "REKINDLE-BAD" => Err(Fault::failed("the program arrived garbled: its SHA-256 is wrong there")),
        other => Err(Fault::failed(format!("the program there speaks another version: {other}"))),
    }
}

async fn upload(session: &mut Session, bytes: &[u8]) -> Outcome<()> {
    for piece in bytes.chunks(256 << 10) {
        let written = tokio::time::timeout(STEP, session.stdin.write_all(piece)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(unreachable_host(ENDED)),
            Err(_) => return Err(unreachable_host("sending the program stalled")),
        }
    }
    session.stdin.flush().await.map_err(|_| unreachable_host(ENDED))
}

/// The next line that begins with one of these words; other lines are noise of login shells.
async fn word(session: &mut Session, words: &[&str], limit: Duration) -> Outcome<String> {
    let search = async {
        let mut budget = MAX_NOISE_BYTES;
        loop {
            let mut line = Vec::new();
            let read = (&mut session.stdout).take(budget).read_until(b'\n', &mut line).await;
            let length = read.map_err(|_| unreachable_host(ENDED))? as u64;
            budget = budget.saturating_sub(length);
            if length == 0 {
                let noisy = "its login shell says too much before the first command";
                return Err(unreachable_host(if budget == 0 { noisy } else { ENDED }));
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if words.iter().any(|w| line.starts_with(w)) {
                return Ok(line);
            }
        }
    };
    let late = || unreachable_host(&format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, search).await.unwrap_or_else(|_| Err(late()))
}

fn unreachable_host(what: &str) -> Fault {
    Fault { kind: crate::host::HostErrorKind::Unreachable, what: what.into() }
}

/// Whether a destination can't be taken for an option by ssh or anything behind it.
pub(super) fn check_destination(id: &HostId) -> Outcome<()> {
    let odd = |c: char| c.is_control() || c.is_whitespace();
    if id.0.is_empty() || id.0.starts_with('-') || id.0.contains(odd) {
        return Err(Fault::refused(format!("{:?} is not an OpenSSH destination", id.0)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The script goes through whatever login shell the user has, inside single quotes: what any of them would touch
    // there must not be in it. And it must be a script: sh says so.
    #[test]
    fn the_script_passes_every_login_shell() {
        assert!(!SCRIPT.contains(['\'', '!', '\\', '\t']));
        let filled = SCRIPT.replace("@HASH@", &"0".repeat(64)).replace("@SIZE@", "1").replace("@SUDO@", "");
        let line = filled.replace('\n', " ");
        let output = std::process::Command::new("/bin/sh").args(["-n", "-c", &line]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    // `--host -oProxyCommand=...` must never reach ssh as an option.
    #[test]
    fn a_destination_is_never_an_option() {
        for bad in ["-oProxyCommand=touch /tmp/x", "", "a b", "a\nb"] {
            assert!(check_destination(&HostId(bad.into())).is_err(), "{bad:?}");
        }
        for good in ["root@10.0.0.11", "cp1", "ssh://root@[fd00::1]:2222"] {
            assert!(check_destination(&HostId(good.into())).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn the_machine_of_a_program_is_read_from_its_header() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(elf_machine(&own), Some(std::env::consts::ARCH));
        assert_eq!(elf_machine(b"#!/bin/sh\nexit 0 # a script"), None);
        assert_eq!(elf_machine(b"\x7fELF"), None);
    }
}
