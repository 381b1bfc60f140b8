//! The SSH host against a real sshd on loopback: requests, files both ways, and everything that can break.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "ssh/server.rs"]
mod server;

use camino::Utf8PathBuf;
use rekindle_model::{HostId, HostPath};
use rekindle_world::host::{HostErrorKind, Reply, Request};
use rekindle_world::ssh::{SshHost, SshOptions};
use rekindle_world::{Host, Progress};
use server::Server;
use sha2::{Digest, Sha256};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn cp1() -> HostId {
    HostId("cp1".into())
}

async fn connect(server: &Server) -> Arc<dyn Host> {
    Arc::new(SshHost::connect(cp1(), server.options()).await.unwrap())
}

fn silent() -> Progress {
    Arc::new(|_, _| {})
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

// The program is brought to the host, answers there, and is not sent a second time; errors name the host and keep
// their kind.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_there() {
    let server = Server::start();
    let began = Instant::now();
    let host = connect(&server).await;
    println!("connected, program perhaps sent: {:?}", began.elapsed());
    let identity = host.identity().await.unwrap();
    assert_eq!(identity.hostname, std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());

    let file = HostPath(server.path("a file"));
    host.write(&file, &HostPath(server.path("a way in")), b"\x00\xff text".to_vec(), 0o640).await.unwrap();
    assert_eq!(std::fs::read(&file.0).unwrap(), b"\x00\xff text");
    assert_eq!(host.read(&file, 100).await.unwrap(), b"\x00\xff text");
    assert_eq!(host.stat(&file).await.unwrap().unwrap().mode, 0o640);
    let fault = host.read(&HostPath(server.path("none")), 100).await.unwrap_err();
    assert_eq!((fault.kind, &fault.host), (HostErrorKind::NotFound, &cp1()), "{fault}");

    let sent = |_: &()| {
        let program = std::fs::read(env!("CARGO_BIN_EXE_serve-for-tests")).unwrap();
        let hash: String = Sha256::digest(program).iter().map(|b| format!("{b:02x}")).collect();
        let uid = rustix::process::getuid().as_raw();
        let folders =
            [std::env::var("XDG_RUNTIME_DIR").unwrap_or_default(), "/run".into(), "/var/tmp".into()];
        let found = folders.iter().map(|f| format!("{f}/rekindle-ssh-{uid}/rekindle-{hash}"));
        found.filter_map(|f| std::fs::metadata(f).ok()).map(|m| m.modified().unwrap()).collect::<Vec<_>>()
    };
    let first = sent(&());
    assert_eq!(first.len(), 1);
    let began = Instant::now();
    let again = connect(&server).await;
    println!("connected, program there already: {:?}", began.elapsed());
    again.identity().await.unwrap();
    assert_eq!(sent(&()), first);
}

// A db of some hundred MB goes to a host and another comes back while small requests go on being answered at once:
// one file must not hold up the channel.
#[tokio::test(flavor = "multi_thread")]
async fn big_files_cross_both_ways_beside_requests() {
    let server = Server::start();
    let host = connect(&server).await;
    let size = 200 << 20;
    let here = server.path("here.db");
    std::fs::write(&here, noise(size)).unwrap();
    let (there, back) = (server.path("there.db"), server.path("back.db"));

    let heard = Arc::new(AtomicU64::new(0));
    let hearing = heard.clone();
    let progress: Progress = Arc::new(move |done, all| {
        assert!(done <= all);
        hearing.fetch_max(done, Ordering::Relaxed);
    });
    let began = Instant::now();
    let to = HostPath(there.clone());
    let put = host.put_file(&here, &to, progress);
    let asking = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let asked = Instant::now();
            host.identity().await.unwrap();
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    };
    let (put, slowest) = tokio::join!(put, asking);
    put.unwrap();
    println!("put {} MiB in {:?}, slowest request beside it {slowest:?}", size >> 20, began.elapsed());
    assert!(slowest < Duration::from_secs(20), "{slowest:?}");
    assert!(heard.load(Ordering::Relaxed) > 0);

    let began = Instant::now();
    host.get_file(&HostPath(there.clone()), &back, silent()).await.unwrap();
    println!("get {} MiB in {:?}", size >> 20, began.elapsed());
    let hash = |path: &Utf8PathBuf| Sha256::digest(std::fs::read(path).unwrap());
    assert_eq!((hash(&there), hash(&back)), (hash(&here), hash(&here)));
    for path in [&there, &back] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
}

// Empty files and odd sizes at the borders of pieces and window; and what can't be sent or fetched says why, names
// the file, and leaves the channel in order.
#[tokio::test(flavor = "multi_thread")]
async fn odd_files_cross_and_impossible_ones_say_why() {
    let server = Server::start();
    let host = connect(&server).await;
    for size in [0, 1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 4 << 20, (4 << 20) + 1, 9 << 20] {
        let (here, there, back) = (server.path("odd"), server.path("odd.there"), server.path("odd.back"));
        std::fs::write(&here, noise(size)).unwrap();
        host.put_file(&here, &HostPath(there.clone()), silent()).await.unwrap();
        host.get_file(&HostPath(there), &back, silent()).await.unwrap();
        assert!(std::fs::read(&back).unwrap() == noise(size), "{size}");
    }
    let nowhere = HostPath::from("/proc/nowhere/file");
    let fault = host.put_file(&server.path("odd"), &nowhere, silent()).await.unwrap_err();
    assert!(fault.what.contains("/proc/nowhere"), "{fault}");
    let fault = host.put_file(&server.path("none"), &HostPath(server.path("x")), silent()).await.unwrap_err();
    assert!(fault.kind == HostErrorKind::NotFound && fault.what.contains("none"), "{fault}");
    let fault = host.get_file(&HostPath(server.path("none")), &server.path("x"), silent()).await.unwrap_err();
    assert!(fault.kind == HostErrorKind::NotFound && fault.what.contains("none"), "{fault}");
    let fault = host.get_file(&HostPath::from("/dev/zero"), &server.path("x"), silent()).await.unwrap_err();
    assert_eq!(fault.kind, HostErrorKind::Refused, "{fault}");
    assert!(!server.path("x").exists());
    host.identity().await.unwrap();
}

// Two hundred requests at once over one channel, each with an answer of its own: none gets another's.
#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_get_their_own_answers() {
    let server = Server::start();
    let host = connect(&server).await;
    let asking = (0..200).map(|n| {
        let (host, path) = (host.clone(), server.path(&format!("file-{n}")));
        tokio::spawn(async move {
            let content = format!("content of {n}").repeat(n + 1).into_bytes();
            std::fs::write(&path, &content).unwrap();
            assert_eq!(host.read(&HostPath(path), 1 << 20).await.unwrap(), content);
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
}

// The host loses power in the middle of a file and a wait. Both fail as unreachable with the host's name and ssh's
// own words, soon, and the next request goes through again once the host is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_breaks_fails_all_and_is_opened_anew() {
    let server = Server::start();
    let host = connect(&server).await;
    host.identity().await.unwrap();
    let here = server.path("big");
    std::fs::write(&here, noise(300 << 20)).unwrap();
    let there = HostPath(server.path("big.there"));
    let killing = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        server.kill_sessions();
        Instant::now()
    };
    // A port that accepts and never answers keeps a request waiting.
    let silent_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent_port.local_addr().unwrap());
    let (put, get, killed) =
        tokio::join!(host.put_file(&here, &there, silent()), host.http_get(&url, 60_000), killing);
    assert!(killed.elapsed() < Duration::from_secs(10));
    for fault in [put.unwrap_err(), get.unwrap_err()] {
        assert_eq!((fault.kind, &fault.host), (HostErrorKind::Unreachable, &cp1()), "{fault}");
        assert!(fault.what.starts_with("ssh ended (exit status: 255): "), "{fault}");
    }
    assert!(!there.0.exists());
    host.identity().await.unwrap();
}

// A key that the host does not know, a host key that changed, nobody listening, and a wrong kind of program: each is
// told in words of ssh's own or ours, none hangs, and a world goes on with the host marked unreachable.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_cannot_be_reached_say_why() {
    let server = Server::start();
    let refused = |options: SshOptions| async { SshHost::connect(cp1(), options).await.err().unwrap() };
    let stranger = SshOptions { config: Some(server.path("config-stranger")), ..server.options() };
    let fault = refused(stranger.clone()).await;
    assert_eq!((fault.kind, &fault.host), (HostErrorKind::Unreachable, &cp1()));
    assert!(fault.what.contains("Permission denied"), "{fault}");

    let host = SshHost::connect_or_unreachable(cp1(), stranger).await;
    let logins = server.logins();
    for _ in 0..50 {
        assert_eq!(host.identity().await.unwrap_err().kind, HostErrorKind::Unreachable);
    }
    assert!(logins > 0 && server.logins() - logins <= 1, "each request tried anew");

    let script = server.path("not-a-program");
    std::fs::write(&script, "exit 7").unwrap();
    let fault = refused(SshOptions { helper: Some(script), ..server.options() }).await;
    assert!(fault.kind == HostErrorKind::Unreachable && fault.what.contains("exit status: 7"), "{fault}");

    let mut other = std::fs::read(env!("CARGO_BIN_EXE_serve-for-tests")).unwrap();
    let elsewhere: u16 = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    other[18..20].copy_from_slice(&elsewhere.to_le_bytes());
    std::fs::write(server.path("other"), other).unwrap();
    let fault = refused(SshOptions { helper: Some(server.path("other")), ..server.options() }).await;
    assert!(fault.kind == HostErrorKind::Refused && fault.what.contains("--helper"), "{fault}");

    let known = std::fs::read_to_string(server.path("known_hosts")).unwrap();
    let stranger_key = std::fs::read_to_string(server.path("stranger.pub")).unwrap();
    let place = known.split(' ').next().unwrap();
    std::fs::write(server.path("known_hosts"), format!("{place} {stranger_key}")).unwrap();
    let fault = refused(server.options()).await;
    assert!(fault.what.contains("Host key verification failed"), "{fault}");

    let options = server.options();
    drop(server);
    let fault = refused(options).await;
    assert_eq!(fault.kind, HostErrorKind::Unreachable, "{fault}");
}

/// A folder that nothing can be executed from, unmounted on drop.
struct NoExec(Utf8PathBuf);

impl NoExec {
    fn mount(at: Utf8PathBuf) -> Self {
        std::fs::create_dir(&at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "noexec", "tmpfs", at.as_str()]).status();
        assert!(mounted.unwrap().success(), "mounting needs root");
        Self(at)
    }
}

impl Drop for NoExec {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

// The first folder on the list is writable but mounted noexec, as /run is on Debian: the next one is taken, and
// nothing is left behind in the first but our empty folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_exec_is_passed_over() {
    let server = Server::start();
    let noexec = NoExec::mount(server.path("noexec"));
    let key = std::fs::read_to_string(server.path("user.pub")).unwrap();
    let options =
        format!("command=\"export XDG_RUNTIME_DIR={}; eval \\\"$SSH_ORIGINAL_COMMAND\\\"\"", noexec.0);
    std::fs::write(server.path("authorized_keys"), format!("{options} {key}")).unwrap();
    connect(&server).await.identity().await.unwrap();
    let ours = noexec.0.join(format!("rekindle-ssh-{}", rustix::process::getuid().as_raw()));
    assert_eq!(std::fs::read_dir(&ours).unwrap().count(), 0);
}

// A login shell that talks before the first command (banners in `.bashrc` are common) does not disturb the frames.
#[tokio::test(flavor = "multi_thread")]
async fn a_talkative_login_shell_is_let_talk() {
    let server = Server::start();
    let key = std::fs::read_to_string(server.path("user.pub")).unwrap();
    let talk =
        r#"command="echo Welcome to cp1; echo; echo REKINDLE is no word; eval \"$SSH_ORIGINAL_COMMAND\"""#;
    std::fs::write(server.path("authorized_keys"), format!("{talk} {key}")).unwrap();
    connect(&server).await.identity().await.unwrap();
}

// The operator's side goes away right after it asked for something: what was begun is finished there, once.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_is_finished_after_the_channel_closed() {
    let server = Server::start();
    let host = connect(&server).await;
    let content = noise(8 << 20);
    let file = HostPath(server.path("finished"));
    let request = Request::Write {
        path: file.clone(),
        via: HostPath(server.path("via")),
        content: content.clone(),
        mode: 0o600,
    };
    let (answered, ()) = tokio::join!(host.call(request), async {});
    assert_eq!(answered.unwrap(), Reply::Done);
    drop(host);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !server.sessions().is_empty() {
        assert!(Instant::now() < deadline, "the far end stays when nobody is left to serve");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(std::fs::read(&file.0).unwrap(), content);
}
