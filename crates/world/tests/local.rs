//! This machine as a host, with real files and real processes; needs neither root nor a cluster. Units, containers and
//! etcd are proved on real ones: `tests/local_etcd.rs` here, and the scenarios on test hosts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::host::ProcessFacts;
use rekindle_model::{HostId, HostPath};
use rekindle_world::host::{FileKind, Host, HostErrorKind};
use rekindle_world::local::LocalHost;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Scratch {
    _dir: tempfile::TempDir,
    path: Utf8PathBuf,
}

fn scratch() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
    Scratch { _dir: dir, path }
}

fn machine() -> Arc<dyn Host> {
    Arc::new(LocalHost::new(HostId::local(), "/"))
}

fn at(path: &Utf8Path) -> HostPath {
    HostPath(path.to_owned())
}

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn state_of(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

// A manifest is replaced by way of a file beside it: at no time is there half a manifest, and the mode is as asked.
#[tokio::test]
async fn a_file_is_replaced_whole() {
    let (dir, host) = (scratch(), machine());
    let (path, via) = (dir.path.join("etcd.yaml"), dir.path.join("aside/etcd.yaml.new"));
    for text in ["old", "new"] {
        host.write(&at(&path), &at(&via), text.into(), 0o640).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(!via.exists());
    assert_eq!(via.parent().unwrap().metadata().unwrap().permissions().mode() & 0o7777, 0o700);
}

// The old data dir is moved aside by a rename that must never replace anything, and that a resumed run asks for again.
#[tokio::test]
async fn a_rename_never_replaces_and_may_be_asked_twice() {
    let (dir, host) = (scratch(), machine());
    let (from, to) = (dir.path.join("member"), dir.path.join("rekindle-1/old/member"));
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("db"), "data").unwrap();
    host.rename(&at(&from), &at(&to)).await.unwrap();
    host.rename(&at(&from), &at(&to)).await.unwrap();
    assert_eq!(std::fs::read_to_string(to.join("db")).unwrap(), "data");

    std::fs::create_dir(&from).unwrap();
    let refused = host.rename(&at(&from), &at(&to)).await.unwrap_err();
    assert_eq!(refused.kind, HostErrorKind::Refused);
    assert_eq!(std::fs::read_to_string(to.join("db")).unwrap(), "data");
    let nothing = host.rename(&at(&dir.path.join("x")), &at(&dir.path.join("y"))).await.unwrap_err();
    assert_eq!(nothing.kind, HostErrorKind::NotFound);
}

// etcd may run as a user of its own: the restored member must be that user's, as the data dir is. (Owners can only be
// changed by root; without it the test has just one owner to look at.)
#[tokio::test]
async fn what_a_run_made_gets_the_owner_of_its_place() {
    let (dir, host) = (scratch(), machine());
    let (data_dir, made) = (dir.path.join("etcd"), dir.path.join("rekindle-12ab34cd-etcd/new/member"));
    for path in [&data_dir, &made.join("snap")] {
        std::fs::create_dir_all(path).unwrap();
    }
    std::fs::write(made.join("snap/db"), "x").unwrap();
    let own = data_dir.metadata().unwrap().uid();
    let owner = if own == 0 { 4321 } else { own };
    std::os::unix::fs::chown(&data_dir, Some(owner), None).unwrap();
    host.rename(&at(&made), &at(&data_dir.join("member"))).await.unwrap();
    for path in ["member", "member/snap", "member/snap/db"] {
        assert_eq!(data_dir.join(path).metadata().unwrap().uid(), owner, "{path}");
    }
    // What is moved aside keeps its owner: it goes back as it was.
    let aside = dir.path.join("rekindle-12ab34cd-etcd/old-member");
    host.rename(&at(&data_dir.join("member")), &at(&aside)).await.unwrap();
    assert_eq!(aside.join("snap/db").metadata().unwrap().uid(), owner);
}

// A certificate is gone and its key is there, another is garbled: both are told, with why. What is not there at all, nor its
// key, was never made.
#[tokio::test]
async fn certificates_that_are_gone_or_garbled_are_told() {
    let (dir, host) = (scratch(), machine());
    for (name, text) in [("apiserver.key", "x"), ("front-proxy-client.crt", "garbage")] {
        std::fs::write(dir.path.join(name), text).unwrap();
    }
    let facts = host.certificates(&at(&dir.path), Vec::new()).await.unwrap();
    let why = |name: &str| facts.file(name).unwrap().certificate.why_unknown().unwrap().to_owned();
    assert!(why("apiserver").ends_with("apiserver.crt does not exist"), "{}", why("apiserver"));
    assert!(why("front-proxy-client").contains("holds no PEM block"), "{}", why("front-proxy-client"));
    assert!(facts.file("etcd-peer").is_none() && facts.file("ca").is_none());
}

// Removing is for what a run made, and its name must say so.
#[tokio::test]
async fn only_a_runs_own_trees_are_removed() {
    let (dir, host) = (scratch(), machine());
    let (ours, theirs) = (dir.path.join("rekindle-12ab/new"), dir.path.join("etcd"));
    for path in [&ours, &theirs] {
        host.make_dir(&at(path), 0o700).await.unwrap();
        std::fs::write(path.join("f"), "x").unwrap();
    }
    // A link inside is removed, not followed.
    std::os::unix::fs::symlink(&theirs, ours.join("link")).unwrap();
    host.remove_own_tree(&at(&ours)).await.unwrap();
    host.remove_own_tree(&at(&ours)).await.unwrap();
    assert!(!ours.exists() && theirs.join("f").exists());
    assert_eq!(host.remove_own_tree(&at(&theirs)).await.unwrap_err().kind, HostErrorKind::Refused);
    assert!(theirs.join("f").exists());
}

// Reading is bounded, links are told as links, and what is not there is no error but an answer.
#[tokio::test]
async fn files_are_looked_at() {
    let (dir, host) = (scratch(), machine());
    let path = dir.path.join("log");
    std::fs::write(&path, "first\nlast\n").unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path.join("link")).unwrap();
    assert_eq!(host.read(&at(&path), 5).await.unwrap(), b"first");
    assert_eq!(host.read_tail(&at(&path), 5).await.unwrap(), b"last\n");
    assert_eq!(host.list(&at(&dir.path)).await.unwrap(), ["link", "log"]);
    assert_eq!(host.stat(&at(&dir.path.join("link"))).await.unwrap().unwrap().kind, FileKind::Symlink);
    assert_eq!(host.stat(&at(&dir.path.join("no/such"))).await.unwrap(), None);
    assert!(host.stat(&HostPath::from("/proc")).await.unwrap().unwrap().is_mount_point);
    assert!(!host.stat(&at(&path)).await.unwrap().unwrap().is_mount_point);
    let disk = host.disk(&at(&dir.path.join("not/yet/there"))).await.unwrap();
    assert!(disk.total_bytes >= disk.free_bytes && disk.free_bytes > 0);
    assert_eq!(disk.device, dir.path.metadata().unwrap().dev());
    // A device has no end: it is not read.
    assert_eq!(host.read(&HostPath::from("/dev/zero"), 9).await.unwrap_err().kind, HostErrorKind::Refused);
}

// etcd's data dir was deleted under it. The db is saved through /proc, the process frozen meanwhile and then goes on;
// the copy is the file byte by byte, its holes included.
#[tokio::test]
async fn a_deleted_open_file_is_saved_from_a_frozen_process() {
    let (dir, host) = (scratch(), machine());
    let db = dir.path.join("db");
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(&db).unwrap();
    file.write_all(b"meta pages").unwrap();
    file.seek(SeekFrom::Start(64 << 20)).unwrap();
    file.write_all(b"the last row").unwrap();
    // Its name is what the host is asked for; the file is its standard input.
    let child =
        Command::new("sleep").arg0("rk-test-etcd").arg("600").stdin(Stdio::from(file)).spawn().unwrap();
    let child = Running(child);
    let content = std::fs::read(&db).unwrap();
    std::fs::remove_file(&db).unwrap();

    let process = seen(&host, "rk-test-etcd", child.0.id()).await;
    assert_eq!(process.command, ["rk-test-etcd", "600"]);
    let deleted = &process.deleted_files[0];
    assert_eq!(
        (deleted.fd, deleted.path.as_str(), deleted.size_bytes),
        (0, db.as_str(), content.len() as u64)
    );

    let to = dir.path.join("run/saved.db");
    let saved = host.save_open_file(process.pid, process.start_ticks, 0, &at(&to)).await.unwrap();
    assert_eq!(saved.bytes, content.len() as u64);
    assert!(!saved.has_trailer);
    assert_eq!(std::fs::read(&to).unwrap(), content);
    assert_eq!(to.metadata().unwrap().mode() & 0o777, 0o600);
    assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20, "the hole was written out");
    assert!(!"TtZX".contains(state_of(process.pid)), "the process must go on");

    let ticks = process.start_ticks + 1;
    let other = host.save_open_file(process.pid, ticks, 0, &at(&dir.path.join("x"))).await.unwrap_err();
    assert_eq!(other.kind, HostErrorKind::NotFound, "another process under that pid");
    assert!(!dir.path.join("x").exists());
}

// The process writes all the time: without the freeze the copy would be of a moving file. It goes on writing after.
#[tokio::test]
async fn a_writing_process_is_saved_at_one_moment() {
    let (dir, host) = (scratch(), machine());
    let path = dir.path.join("growing");
    let file = File::create(&path).unwrap();
    let mut command = Command::new("sh");
    command.arg0("rk-test-writer").args(["-c", "i=0; while :; do i=$((i+1)); echo $i; done"]).stdout(file);
    let child = Running(command.spawn().unwrap());
    std::fs::File::open(&path).unwrap();
    let reader = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let process = seen(&host, "rk-test-writer", child.0.id()).await;
    let to = dir.path.join("copy");
    host.save_open_file(process.pid, process.start_ticks, 1, &at(&to)).await.unwrap();
    let copy = std::fs::read_to_string(&to).unwrap();
    let lines: Vec<u64> = copy.lines().map(|l| l.parse().unwrap()).collect();
    assert!(lines.len() > 100);
    assert!(lines.iter().enumerate().all(|(at, number)| *number == at as u64 + 1));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(reader.metadata().unwrap().len() > copy.len() as u64, "the process must go on writing");
}

/// What is seen of a process that was just started: its name can be read only once the kernel has laid it out.
async fn seen(host: &Arc<dyn Host>, name: &str, pid: u32) -> ProcessFacts {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = host.processes(&[name]).await.unwrap();
        if let Some(process) = found.into_iter().find(|p| p.pid == pid) {
            return process;
        }
        assert!(Instant::now() < deadline, "{name} is not seen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// A pid is used again by other processes: only the very process that was seen may be killed.
#[tokio::test]
async fn only_the_very_process_is_killed() {
    let host = machine();
    let child = Command::new("sleep").arg0("rk-test-kill").arg("600").spawn().unwrap();
    let mut child = Running(child);
    let pid = child.0.id();
    let ticks = seen(&host, "rk-test-kill", pid).await.start_ticks;
    host.kill_process(pid, ticks + 1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(child.0.try_wait().unwrap().is_none(), "another process was killed");
    host.kill_process(pid, ticks).await.unwrap();
    assert!(!child.0.wait().unwrap().success());
    host.kill_process(pid, ticks).await.unwrap();
}

// A copy of the restored db goes to each member: never the same inode, or one member would write into another's file.
#[tokio::test]
async fn files_are_copied_and_never_shared() {
    let (dir, host) = (scratch(), machine());
    let (from, to, back) = (dir.path.join("a"), dir.path.join("new/folder/b"), dir.path.join("c"));
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&from, &content).unwrap();
    let told = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let sink = Arc::clone(&told);
    let progress: rekindle_world::Progress =
        Arc::new(move |done, _| sink.store(done, std::sync::atomic::Ordering::Relaxed));
    host.put_file(&from, &at(&to), Arc::clone(&progress)).await.unwrap();
    host.get_file(&at(&to), &back, progress).await.unwrap();
    assert_eq!(std::fs::read(&back).unwrap(), content);
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), content.len() as u64);
    let inode = |path: &Utf8Path| path.metadata().unwrap().ino();
    assert!(inode(&from) != inode(&to) && inode(&to) != inode(&back));
    assert_eq!(to.metadata().unwrap().mode() & 0o777, 0o600);
}

// A disk of another machine, mounted: its files answer, this machine's processes must not pass for its own.
#[tokio::test]
async fn another_root_has_files_and_nothing_that_runs() {
    let dir = scratch();
    std::fs::create_dir_all(dir.path.join("etc")).unwrap();
    std::fs::write(dir.path.join("etc/hostname"), "cp-7\n").unwrap();
    let host: Arc<dyn Host> = Arc::new(LocalHost::new(HostId("disk".into()), dir.path.clone()));
    assert_eq!(host.identity().await.unwrap().hostname, "cp-7");
    assert_eq!(host.read(&HostPath::from("/etc/hostname"), 99).await.unwrap(), b"cp-7\n");
    assert_eq!(
        host.read(&HostPath::from("/etc/../../etc/passwd"), 9).await.unwrap_err().kind,
        HostErrorKind::Refused
    );
    let refused = [
        host.processes(&["sh"]).await.unwrap_err(),
        host.unit("etcd.service").await.unwrap_err(),
        host.containers().await.unwrap_err(),
    ];
    assert!(
        refused.iter().all(|e| e.kind == HostErrorKind::Unavailable && e.host.0 == "disk"),
        "{refused:?}"
    );
}

// The clock is told at the moment of the answer; an offset is worked out from it.
#[tokio::test]
async fn a_machine_says_who_it_is() {
    let found = machine().identity().await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    assert!(i64::try_from(now).unwrap() - found.now_ms < 10_000);
    assert!(!found.hostname.is_empty());
    assert!(!found.addresses.contains(&"127.0.0.1".to_owned()));
}
