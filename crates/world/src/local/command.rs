//! Runs the few tools of the host that are asked for (systemctl, journalctl): bounded in time and in output, never
//! through a shell.

use crate::fault::{Fault, Outcome};
use crate::host::HostErrorKind;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// Most bytes taken of a tool's output.
const MAX_OUTPUT_BYTES: u64 = 16 << 20;

/// What a tool said.
pub(crate) struct Output {
    /// Exit status; none = ended by a signal.
    pub(crate) status: Option<i32>,
    /// Its output, at most [`MAX_OUTPUT_BYTES`].
    pub(crate) stdout: Vec<u8>,
    /// Its error output, in one line.
    pub(crate) stderr: String,
}

impl Output {
    /// An error, unless the tool exited with 0.
    pub(crate) fn succeeded(self, what: &str) -> Outcome<Vec<u8>> {
        match self.status {
            Some(0) => Ok(self.stdout),
            Some(status) => Err(Fault::failed(format!("{what}: exit status {status}: {}", self.stderr))),
            None => Err(Fault::failed(format!("{what}: ended by a signal: {}", self.stderr))),
        }
    }
}

/// Runs a tool to its end.
///
/// # Errors
/// `NotFound` when the tool is not installed, `Unavailable` when it does not end in time (it is killed then).
pub(crate) async fn run(tool: &str, args: &[&str], limit: Duration) -> Outcome<Output> {
    let mut command = Command::new(tool);
    command.args(args).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0").env("SYSTEMD_PAGER", "");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| Fault::io(format!("run {tool}"), &e))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (out, err, status) = tokio::join!(drain(stdout), drain(stderr), child.wait());
        Ok::<_, std::io::Error>((out?, err?, status?))
    };
    match tokio::time::timeout(limit, work).await {
        Err(_) => Err(Fault::unavailable(format!("{tool} {}: no answer in {limit:?}", args.join(" ")))),
        Ok(Err(e)) => Err(Fault::io(format!("run {tool}"), &e)),
        Ok(Ok((stdout, stderr, status))) => {
            let stderr = String::from_utf8_lossy(&stderr).trim().replace('\n', "; ");
            Ok(Output { status: status.code(), stdout, stderr })
        }
    }
}

async fn drain(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(MAX_OUTPUT_BYTES).read_to_end(&mut content).await?;
        // What is beyond the bound is thrown away, so that the tool can end.
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(content)
}

/// Runs blocking work on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Fault::from_error(HostErrorKind::Failed, "a worker thread ended early", &e)),
    }
}
