//! Against the real thing: the `bbolt` tool and `etcd` of each line that is supported. What Rekindle writes, bbolt
//! accepts and reads; what bbolt and etcd write, Rekindle reads. Needs `cargo xtask testbed build`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use boltfile::{BoltFile, Bucket, LockState, ReadAt, Writer, lock_state};
use testbed::components::{ETCD_LINES, Etcd, etcd_line};

/// Every row of a database with the names of its buckets: `[bucket, ..., key] -> value`.
type Content = BTreeMap<Vec<Vec<u8>>, Vec<u8>>;

fn lines() -> Vec<Etcd> {
    ETCD_LINES.iter().map(|line| etcd_line(line).expect("run `cargo xtask testbed build`")).collect()
}

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {stdout}{stderr}");
    stdout.into_owned()
}

fn bbolt_check(etcd: &Etcd, db: &Path) {
    let said = run(Command::new(&etcd.bbolt).arg("check").arg(db));
    assert_eq!(said.trim(), "OK", "bbolt check of {}", etcd.version);
}

/// What bbolt itself reads in the file: its `compact` copies every row into a new database, with a stored free list.
fn copy_by_bbolt(etcd: &Etcd, db: &Path, to: &Path) {
    let _ = std::fs::remove_file(to);
    run(Command::new(&etcd.bbolt).args(["compact", "-o"]).arg(to).arg(db));
}

fn collect<S: ReadAt>(bucket: &Bucket<'_, S>, path: &[Vec<u8>], all: &mut Content) {
    let nested = bucket.bucket_names().unwrap();
    for name in &nested {
        let inner = bucket.bucket(name).unwrap().unwrap();
        collect(&inner, &[path, std::slice::from_ref(name)].concat(), all);
    }
    let mut cursor = bucket.cursor();
    while let Some((key, value)) = cursor.next().unwrap() {
        if nested.binary_search_by(|name| name[..].cmp(key)).is_err() {
            all.insert([path, &[key.to_vec()]].concat(), value.to_vec());
        }
    }
}

/// Checks a file and reads all of it.
fn content(path: &Path) -> Content {
    let db = BoltFile::open(path).unwrap();
    let report = db.check();
    assert!(report.is_clean(), "{report:?}");
    let mut all = Content::new();
    for name in db.bucket_names().unwrap() {
        collect(&db.bucket(&name).unwrap().unwrap(), &[name], &mut all);
    }
    assert_eq!(report.rows, all.len() as u64);
    all
}

struct Shape {
    name: &'static str,
    rows: u64,
    key_bytes: usize,
    value_bytes_max: u64,
}

const SHAPES: [Shape; 7] = [
    Shape { name: "no rows", rows: 0, key_bytes: 17, value_bytes_max: 1 },
    Shape { name: "one row", rows: 1, key_bytes: 17, value_bytes_max: 9 },
    Shape { name: "two leaves", rows: 110, key_bytes: 17, value_bytes_max: 20 },
    Shape { name: "like etcd", rows: 30_000, key_bytes: 17, value_bytes_max: 2_000 },
    Shape { name: "large values", rows: 400, key_bytes: 18, value_bytes_max: 200_000 },
    Shape { name: "deep", rows: 6_000, key_bytes: 900, value_bytes_max: 300 },
    Shape { name: "longest keys", rows: 400, key_bytes: 32_768, value_bytes_max: 50 },
];

fn write_shape(shape: &Shape, path: &Path) -> Content {
    let mut content = Content::new();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = Writer::create(shape.name, file, 4096).unwrap();
    writer.bucket(b"alarm").unwrap();
    let mut bucket = writer.bucket(b"key").unwrap();
    let mut random = 1u64;
    for i in 0..shape.rows {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut key = i.to_be_bytes().to_vec();
        key.resize(shape.key_bytes, b'_');
        let value =
            vec![i.to_le_bytes()[0]; usize::try_from((random >> 33) % shape.value_bytes_max).unwrap()];
        bucket.put(&key, &value).unwrap();
        content.insert(vec![b"key".to_vec(), key], value);
    }
    let mut bucket = writer.bucket(b"meta").unwrap();
    bucket.put(b"term", &1u64.to_be_bytes()).unwrap();
    content.insert(vec![b"meta".to_vec(), b"term".to_vec()], 1u64.to_be_bytes().to_vec());
    assert_eq!(writer.finish().unwrap().rows, content.len() as u64);
    content
}

/// A file from the writer is a sound database for every bbolt, and bbolt reads every row that was put.
#[test]
fn bbolt_accepts_and_reads_what_the_writer_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let (db, copy) = (dir.path().join("db"), dir.path().join("copy"));
    for shape in &SHAPES {
        let written = write_shape(shape, &db);
        assert!(content(&db) == written, "{}", shape.name);
        for etcd in lines() {
            bbolt_check(&etcd, &db);
            copy_by_bbolt(&etcd, &db, &copy);
            assert!(content(&copy) == written, "{}: copied by bbolt of etcd {}", shape.name, etcd.version);
        }
    }
}

/// A file from the writer is a database to go on writing in: bbolt adds a bucket and commits many transactions.
#[test]
fn bbolt_writes_on_in_a_file_from_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("db");
    for etcd in lines() {
        let mut expected = write_shape(&SHAPES[3], &db);
        let count = ["--count", "5000", "--batch-size", "500", "--write-mode", "rnd"];
        run(Command::new(&etcd.bbolt).arg("bench").args(count).arg("--work").arg("--path").arg(&db));
        bbolt_check(&etcd, &db);
        let mut now = content(&db);
        assert_eq!(now.len(), expected.len() + 5000, "etcd {}", etcd.version);
        now.retain(|path, _| path[0] != b"bench");
        expected.retain(|path, _| path[0] != b"bench");
        assert!(now == expected);
    }
}

/// bbolt's own files, with nested and inline buckets and a stored free list, are sound and read as bbolt reads them.
#[test]
fn what_bbolt_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (db, copy) = (dir.path().join("db"), dir.path().join("copy"));
    for etcd in lines() {
        for mode in ["rnd-nest", "seq-nest", "rnd", "seq"] {
            let _ = std::fs::remove_file(&db);
            let count = ["--count", "4000", "--batch-size", "250", "--write-mode", mode];
            run(Command::new(&etcd.bbolt).arg("bench").args(count).arg("--work").arg("--path").arg(&db));
            let file = BoltFile::open(&db).unwrap();
            assert!(file.meta().freelist.is_some(), "the free list is what this test is about");
            let all = content(&db);
            assert_eq!(all.len(), 4000, "{mode}");
            copy_by_bbolt(&etcd, &db, &copy);
            assert!(content(&copy) == all, "{mode}, etcd {}", etcd.version);
        }
    }
}

/// An etcd on loopback; dropped means killed.
struct Server {
    child: Child,
    client: String,
    db: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(etcd: &Etcd, dir: &Path) -> Server {
    let (client, peer) = (testbed::ports::free_url(), testbed::ports::free_url());
    let child = Command::new(&etcd.etcd)
        .arg("--data-dir")
        .arg(dir)
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args([
            "--initial-cluster",
            &format!("default={peer}"),
            "--max-txn-ops",
            "10000",
            "--log-level",
            "error",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { child, client, db: dir.join("member/snap/db") };
    let begin = Instant::now();
    while !ctl(etcd, &server, &["endpoint", "health"]).output().unwrap().status.success() {
        assert!(begin.elapsed() < Duration::from_secs(60), "etcd {} does not start", etcd.version);
        std::thread::sleep(Duration::from_millis(100));
    }
    server
}

fn ctl(etcd: &Etcd, server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(&etcd.etcdctl);
    command.arg("--endpoints").arg(&server.client).args(args);
    command
}

/// One transaction of many requests, through the client's standard input.
fn txn(etcd: &Etcd, server: &Server, requests: &str) {
    let mut command = ctl(etcd, server, &["txn"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("\n{requests}\n\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// The database of a real etcd, after writes, deletes, compaction and a kill, is sound and read as bbolt reads it;
/// while etcd runs its lock is seen.
#[test]
fn the_database_of_a_killed_etcd_is_read() {
    for etcd in lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut server = start(&etcd, &dir.path().join("data"));
        for round in 0..4 {
            let puts: String = (0..900)
                .map(|i| format!("put /registry/pods/{i:04} \"{}\"\n", "x".repeat(i % 700 + round)))
                .collect();
            txn(&etcd, &server, &puts);
            run(&mut ctl(&etcd, &server, &["del", "--prefix", &format!("/registry/pods/00{round}")]));
        }
        run(&mut ctl(&etcd, &server, &["compaction", "4"]));
        run(&mut ctl(&etcd, &server, &["put", "last", "row"]));
        std::thread::sleep(Duration::from_millis(500)); // one batch interval of the backend, several times over
        let db = server.db.clone();
        assert_eq!(lock_state(&db).unwrap(), LockState::HeldByAnother, "etcd {}", etcd.version);
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        assert_eq!(lock_state(&db).unwrap(), LockState::Free);

        let file = BoltFile::open(&db).unwrap();
        assert_eq!(file.meta().freelist, None, "etcd stores none on Linux");
        let names = file.bucket_names().unwrap();
        assert!([&b"key"[..], b"meta", b"members"].iter().all(|n| names.iter().any(|name| name == n)));
        let all = content(&db);
        assert!(all.len() > 2000, "{} rows", all.len());
        let copy = dir.path().join("copy");
        copy_by_bbolt(&etcd, &db, &copy);
        assert!(content(&copy) == all, "etcd {}", etcd.version);
        let keys = run(Command::new(&etcd.bbolt).args(["keys", "--format", "hex"]).arg(&db).arg("key"));
        let mut cursor = file.bucket(b"key").unwrap().unwrap().cursor();
        for line in keys.lines() {
            let key = cursor.next().unwrap().unwrap().0;
            assert_eq!(key.iter().map(|b| format!("{b:02x}")).collect::<String>(), line);
        }
        assert!(cursor.next().unwrap().is_none());
    }
}
