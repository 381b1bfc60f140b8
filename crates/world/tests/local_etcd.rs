//! etcd's files on this machine, as real etcd 3.5, 3.6 and 3.7 leave them: whole, damaged, deleted but still open,
//! behind their log. etcd itself is the judge: its HashKV, and that it starts from what was written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[allow(dead_code)]
#[path = "etcd/cluster.rs"]
mod cluster;

use camino::{Utf8Path, Utf8PathBuf};
use cluster::{Folder, Member, start_cluster};
use rekindle_model::etcd::{ConfChangeKind, EtcdDataFacts};
use rekindle_model::host::ProcessFacts;
use rekindle_model::step::NewMember;
use rekindle_model::{HostId, HostPath};
use rekindle_world::Host;
use rekindle_world::local::LocalHost;
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testbed::components::{ETCD_LINES, Etcd, etcd_line};

const UID: &str = "6f9a3c52-0f5e-4d53-9d3b-0e8f1f7f9c11";

fn machine() -> Arc<dyn Host> {
    Arc::new(LocalHost::new(HostId::local(), "/"))
}

fn at(path: impl AsRef<Utf8Path>) -> HostPath {
    HostPath(path.as_ref().to_owned())
}

/// One etcd with a few hundred keys, as an API server would name them.
fn filled(etcd: &Etcd, folder: &Folder) -> Member {
    let member = start_cluster(etcd, folder.path(), &["m1"]).pop().unwrap();
    let namespace = format!(
        r#"{{"kind":"Namespace","apiVersion":"v1","metadata":{{"name":"kube-system","uid":"{UID}"}}}}"#
    );
    member.ctl(etcd, &["put", "/registry/namespaces/kube-system", &namespace]);
    write(etcd, &member, 0, 300);
    // etcd commits its db every 100 ms; what came after the last commit is in its memory and its log alone.
    std::thread::sleep(Duration::from_millis(500));
    member
}

/// Writes keys in transactions of a hundred.
fn write(etcd: &Etcd, member: &Member, first: u32, count: u32) {
    for batch in (first..first + count).step_by(100) {
        let puts: String = (batch..batch + 100)
            .map(|n| format!("put /registry/secrets/ns/s{n} {}\n", "x".repeat(500)))
            .collect();
        let mut child = Command::new(&etcd.etcdctl)
            .args(["--endpoints", &member.url(), "txn"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), format!("\n{puts}\n\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

/// Somebody who writes all the time.
struct Writer(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Writer {
    fn start(etcd: &Etcd, member: &Member) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, ctl, url) = (Arc::clone(&stop), etcd.etcdctl.clone(), member.url());
        let thread = std::thread::spawn(move || {
            for n in 0_u64.. {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("/registry/events/ns/e{n}");
                let _ = Command::new(&ctl).args(["--endpoints", &url, "put", &key, "v"]).output();
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().unwrap().join();
    }
}

async fn inspect(member: &Member) -> EtcdDataFacts {
    machine().inspect_etcd_data(&at(&member.dir), None, true).await.unwrap()
}

async fn process(member: &Member) -> ProcessFacts {
    let found = machine().processes(&["etcd"]).await.unwrap();
    found.into_iter().find(|p| p.command.iter().any(|word| *word == member.dir)).unwrap()
}

fn overwrite(path: &Utf8Path, offset: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0x5a; 4096], offset).unwrap();
}

fn copy_tree(from: &Utf8Path, to: &Utf8Path) {
    assert!(Command::new("cp").args(["-a", from.as_str(), to.as_str()]).status().unwrap().success());
}

// A healthy member under load: its log tells that it was there from the start, and reading its db while it changes
// must never cry damage. Stopped, its db tells everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_member_is_read_running_and_stopped() {
    for line in ETCD_LINES {
        let (etcd, folder) = (etcd_line(line).unwrap(), Folder::new());
        let mut member = filled(&etcd, &folder);
        let writer = Writer::start(&etcd, &member);
        for _ in 0..10 {
            let facts = inspect(&member).await;
            assert!(facts.exists && facts.has_member && facts.locked, "{line}: {facts:?}");
            assert_eq!(facts.damage, [""; 0], "{line}");
            assert!(facts.db.why_unknown().unwrap().contains("open"), "{line}");
        }
        drop(writer);
        let hash = machine().etcd_hash_kv(&member.endpoint(), 0).await.unwrap();
        let status = machine().etcd_status(&member.endpoint()).await.unwrap();
        // SIGTERM lets etcd commit what it has.
        let pid = process(&member).await.pid.to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        tokio::time::sleep(Duration::from_secs(2)).await;
        member.kill();

        let facts = inspect(&member).await;
        assert_eq!((facts.locked, facts.damage.len()), (false, 0), "{line}: {:?}", facts.damage);
        let db = facts.db.known().unwrap();
        assert_eq!(
            (db.revision, db.hash_kv),
            (hash.revision, hash.hash),
            "{line}: HashKV as etcd computed it"
        );
        assert_eq!(db.keys_by_resource["secrets"], 300, "{line}");
        assert_eq!(db.kube_system_uid.known().unwrap(), UID, "{line}");
        assert_eq!(db.members[0].id, status.member_id, "{line}");
        let wal = facts.wal.known().unwrap();
        assert_eq!(
            (wal.member_id, wal.cluster_id),
            (Some(status.member_id), Some(status.cluster_id)),
            "{line}"
        );
        assert_eq!((wal.first_index, wal.last_index), (1, status.raft_index), "{line}");
        let birth = wal.birth.as_ref().unwrap();
        assert_eq!(
            (birth.first_term, birth.first_snapshot_index),
            (1, 0),
            "{line}: it bootstrapped the cluster"
        );
        let change = &wal.conf_changes[0];
        assert_eq!((change.member, change.kind), (status.member_id, ConfChangeKind::AddVoter), "{line}");
    }
}

// A member that starts while its files are read writes to what is being read: that must never cry damage, or the newest
// data there is would be passed over for an older snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_starts_while_it_is_read_is_whole() {
    let (etcd, folder) = (etcd_line("3.6").unwrap(), Folder::new());
    let mut member = filled(&etcd, &folder);
    write(&etcd, &member, 300, 3_000);
    let initial = cluster::initial_cluster(std::slice::from_ref(&member));
    for round in 0..5 {
        member.kill();
        member.start(&etcd, &initial, "new");
        let began = Instant::now();
        let (mut unlocked, mut locked) = (0, 0);
        while locked < 5 {
            let facts = inspect(&member).await;
            assert_eq!(facts.damage, [""; 0], "round {round}");
            if facts.locked {
                locked += 1
            } else {
                unlocked += 1
            }
            assert!(began.elapsed() < Duration::from_secs(30), "it does not start");
        }
        assert!(unlocked > 0, "never read before it started");
    }
}

// Each kind of damage is told as damage, with its file; a folder that is gone is none.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_from_absence() {
    let (etcd, folder) = (etcd_line("3.6").unwrap(), Folder::new());
    let mut member = filled(&etcd, &folder);
    // Running: a page in use is overwritten on the disk; the file is then damaged whatever etcd goes on saying.
    let db = member.dir.join("member/snap/db");
    let pages = db.metadata().unwrap().len() / 4096;
    for page in 4..pages.min(100) {
        overwrite(&db, page * 4096);
    }
    let facts = inspect(&member).await;
    assert!(facts.locked && facts.damage.iter().any(|d| d.contains("snap/db")), "{facts:?}");
    member.kill();
    let facts = inspect(&member).await;
    assert!(!facts.locked && facts.db.known().is_none() && !facts.damage.is_empty(), "{facts:?}");

    std::fs::remove_dir_all(&member.dir).unwrap();
    let whole = filled(&etcd, &folder);
    let dir = whole.dir.clone();
    drop(whole);
    let wal = dir.join("member/wal/0000000000000000-0000000000000000.wal");
    let kept = folder.path().join("kept");
    copy_tree(&dir, &kept);
    let faults: [(&str, &dyn Fn()); 4] = [
        ("snap/db", &|| {
            std::fs::File::options().write(true).open(&db).unwrap().set_len(20_480).unwrap();
        }),
        ("snap/db", &|| std::fs::remove_file(&db).unwrap()),
        ("wal", &|| overwrite(&wal, 1000)),
        ("wal", &|| std::fs::remove_dir_all(dir.join("member/wal")).unwrap()),
    ];
    for (number, (file, fault)) in faults.iter().enumerate() {
        std::fs::remove_dir_all(&dir).unwrap();
        copy_tree(&kept, &dir);
        fault();
        let facts = inspect(&member).await;
        assert!(facts.damage.iter().any(|d| d.contains(file)), "{number} {file}: {facts:?}");
    }
    std::fs::remove_dir_all(dir.join("member")).unwrap();
    let facts = inspect(&member).await;
    assert!(facts.exists && !facts.has_member && facts.damage.is_empty(), "{facts:?}");
    assert!(facts.db.known().is_none() && facts.wal.known().is_none());
}

// The data dir is deleted under a running etcd that is written to: its db is saved through /proc, and at the revision
// the copy has, etcd's own HashKV is the copy's. etcd goes on serving.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_db_is_saved_while_etcd_writes() {
    for line in ETCD_LINES {
        let (etcd, folder) = (etcd_line(line).unwrap(), Folder::new());
        let member = filled(&etcd, &folder);
        std::fs::remove_dir_all(member.dir.join("member")).unwrap();
        let writer = Writer::start(&etcd, &member);
        let process = process(&member).await;
        let open = process.deleted_files.iter().find(|f| f.path.ends_with("member/snap/db")).unwrap();
        for round in 0..5 {
            let to = at(folder.path().join(format!("run/{round}.db")));
            let host = machine();
            let saved = host.save_open_file(process.pid, process.start_ticks, open.fd, &to).await.unwrap();
            let (facts, sha256) = host.inspect_snapshot(&to, false).await.unwrap();
            assert_eq!(saved.sha256, sha256, "{line}");
            assert_eq!(facts.keys_by_resource["secrets"], 300, "{line}");
            let hash = host.etcd_hash_kv(&member.endpoint(), facts.revision).await.unwrap();
            assert_eq!(facts.hash_kv, hash.hash, "{line}: round {round} at revision {}", facts.revision);
        }
        drop(writer);
        member.ctl(&etcd, &["put", "a", "b"]);
    }
}

// A member killed in the middle of its work: its db is behind, its log has the rest. Replayed, the store is what etcd
// had acknowledged, and a new member made of it starts with that very content.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_members_store_is_replayed_and_starts_again() {
    for line in ETCD_LINES {
        let (etcd, folder) = (etcd_line(line).unwrap(), Folder::new());
        let mut member = filled(&etcd, &folder);
        write(&etcd, &member, 1000, 400);
        let status = machine().etcd_status(&member.endpoint()).await.unwrap();
        member.kill();
        let to = folder.path().join("run/store.db");
        std::fs::create_dir(folder.path().join("run")).unwrap();
        std::fs::write(format!("{to}.part"), "left by an attempt that broke off").unwrap();
        let host = machine();
        let (facts, _) = host.replay_store(&at(&member.dir), None, &at(&to)).await.unwrap();
        assert_eq!(facts.revision, status.revision, "{line}: every acknowledged write");
        assert_eq!(facts.keys_by_resource["secrets"], 700, "{line}");

        let mut fresh = Member::new(folder.path(), "m2", None);
        let base = folder.path().join("rekindle-1-m2");
        let (db, staging) = (base.join("restored.db"), base.join("new"));
        build(&to, &db, &fresh);
        for _ in 0..2 {
            stage(&db, &staging, &fresh).await;
        }
        // A move that broke off before the log was written is begun anew.
        std::fs::remove_dir_all(staging.join("member/wal")).unwrap();
        stage(&db, &staging, &fresh).await;
        assert!(!db.exists(), "it lay beside the staging folder and was moved in");
        host.rename(&at(staging.join("member")), &at(fresh.dir.join("member"))).await.unwrap();
        fresh.start(&etcd, &format!("m2={}", fresh.peer_url()), "new");
        fresh.wait_ready(&etcd);
        let hash = host.etcd_hash_kv(&fresh.endpoint(), status.revision).await.unwrap();
        assert_eq!(hash.hash, facts.hash_kv, "{line}");
    }
}

fn members(of: &Member) -> Vec<NewMember> {
    vec![NewMember { host: HostId::local(), name: of.name.clone(), peer_urls: vec![of.peer_url()] }]
}

fn build(from: &Utf8Path, to: &Utf8PathBuf, member: &Member) {
    use etcd_disk::restore::{Form, NewCluster, RestoreOptions, write_db};
    use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy};
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let source = SnapshotFile::open(from.as_std_path(), TrailerPolicy::Skip).unwrap();
    let initial = format!("{}={}", member.name, member.peer_url());
    let cluster = NewCluster::from_initial_cluster(&initial, "fresh-token").unwrap();
    write_db(&source, Form::Exact, &cluster, &RestoreOptions::default(), to.as_std_path(), &mut |_, _| {})
        .unwrap();
}

async fn stage(db: &Utf8Path, staging: &Utf8Path, member: &Member) {
    let request = rekindle_world::host::Request::WriteMember {
        db: at(db),
        members: members(member),
        name: member.name.clone(),
        token: "fresh-token".into(),
        staging: at(staging),
        wal_staging: None,
    };
    machine().call(request).await.unwrap();
}
