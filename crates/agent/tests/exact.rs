//! The story: an agent follows a cluster under a workload of every kind of write. From a snapshot and what the agent has
//! spooled, the store is rebuilt at random revisions: every row as the live store had it, the HashKV that the live member
//! answered then, and a real etcd that boots from it and agrees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout)] // the figures

mod common;

use common::cluster::{Cluster, LINES, tool};
use common::{Following, TIMELINE, Workload, config, utf8};
use etcd_disk::changes::{Changes, Point};
use etcd_disk::hashkv::HashKv;
use etcd_disk::restore::{Form, RestoreOptions, RestoredDb, Target, restore_members, write_db};
use etcd_disk::rows::RowKey;
use etcd_disk::segment::{HashSample, Header, SegmentWriter};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, VerifyOptions};
use rand::Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const STEPS: usize = 1200;
const POINTS: usize = 50;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn rows_of(path: &Path) -> Rows {
    let db = SnapshotFile::open(path, TrailerPolicy::Skip).unwrap();
    let bucket = db.bolt().bucket(b"key").unwrap().unwrap();
    let mut rows = Rows::new();
    let mut cursor = bucket.cursor();
    while let Some((key, value)) = cursor.next().unwrap() {
        rows.insert(key.to_vec(), value.to_vec());
    }
    rows
}

fn main_of(key: &[u8]) -> i64 {
    RowKey::parse(key).unwrap().revision.main
}

/// What the live cluster was and answered, for the comparison.
struct Lived {
    base: PathBuf,
    base_revision: i64,
    base_compact: i64,
    last: i64,
    /// All rows that ever were from the snapshot on: a compaction takes rows away, so they are gathered before each.
    rows: Rows,
    answers: Vec<HashKv>,
    /// The first revision behind which leases are in use.
    leases_from: i64,
    granted: BTreeMap<i64, i64>,
    segments: Vec<PathBuf>,
    /// Times, ms since the Unix epoch, with the newest revision acknowledged by then.
    acknowledged: Vec<(i64, i64)>,
}

fn snapshot(cluster: &Cluster, path: &Path) -> Rows {
    cluster.ctl(&["snapshot", "save", path.to_str().unwrap()]);
    rows_of(path)
}

async fn live(line: &str, dir: &Path) -> (Cluster, Lived) {
    let mut cluster = Cluster::new(line, 1, dir, "lived");
    cluster.start();
    let urls = cluster.endpoints();
    let mut work = Workload::new(&urls, 42).await;
    for _ in 0..80 {
        work.step().await.unwrap();
    }
    let before = work.step().await.unwrap();
    work.client.compact(before - 20, None).await.unwrap();
    let spool = utf8(dir).join("spool");
    let mut following = Following::start(config(&urls, spool.clone()));
    following.wait("it follows", |health| health.following.is_some()).await;
    for _ in 0..20 {
        work.step().await.unwrap();
    }
    let base = dir.join("base.db");
    let mut rows = snapshot(&cluster, &base);
    let verified = SnapshotFile::open(&base, TrailerPolicy::Required)
        .unwrap()
        .verify(&VerifyOptions::default(), &mut |_, _| ())
        .unwrap();
    let (mut answers, mut granted, mut leases_from, mut last) = (Vec::new(), BTreeMap::new(), i64::MAX, 0);
    let mut acknowledged = Vec::new();
    for step in 0..STEPS {
        if step == STEPS / 3 {
            leases_from = last;
            work.with_leases = true;
        }
        last = work.step().await.unwrap();
        acknowledged.push((now_ms(), last));
        for lease in work.leases.clone() {
            if let std::collections::btree_map::Entry::Vacant(entry) = granted.entry(lease) {
                let answer = work.client.lease_time_to_live(lease, None).await.unwrap();
                entry.insert(answer.granted_ttl());
            }
        }
        if step % 17 == 0 {
            let hash = work.client.hash_kv(0).await.unwrap();
            let compact_revision = hash.compact_version();
            answers.push(HashKv { hash: hash.hash(), revision: last, compact_revision });
        }
        if step % 300 == 299 {
            rows.append(&mut snapshot(&cluster, &dir.join(format!("before-{step}.db"))));
            let back = work.random().random_range(0..100);
            // an API server compacts what is five minutes old: never what a follower has yet to read
            following.wait("it keeps up", |health| health.durable_revision >= last - back).await;
            work.client.compact(last - back, None).await.unwrap();
        }
    }
    rows.append(&mut snapshot(&cluster, &dir.join("end.db")));
    let health = following.wait("all is durable", |health| health.durable_revision >= last).await;
    assert!(health.gaps.is_empty(), "{health:?}");
    following.stop().await;
    let segments: Vec<PathBuf> =
        rekindle_agent::spool::segments(&spool).unwrap().into_iter().map(Into::into).collect();
    let lived = Lived {
        base,
        base_revision: verified.revision,
        base_compact: verified.compact_revision,
        last,
        rows,
        answers,
        leases_from,
        granted,
        segments,
        acknowledged,
    };
    (cluster, lived)
}

/// The answers of the live member as a segment of their own: without rows, in front of all others.
fn add_answers(lived: &mut Lived, dir: &Path) {
    let changes = Changes::open(&lived.segments, Point::Latest).unwrap();
    let first = changes.segments()[0].header.first_revision;
    let origin = changes.origin().unwrap();
    assert_eq!(origin.timeline, TIMELINE);
    let path = dir.join("answers.seg");
    let header = Header { origin, first_revision: first, created_ms: 0, writer: "answers".into() };
    let mut writer = SegmentWriter::create(&path, header).unwrap();
    for hash_kv in &lived.answers {
        writer.hash_kv(&HashSample { at_ms: 0, hash_kv: *hash_kv }).unwrap();
    }
    writer.close().unwrap();
    lived.segments.push(path);
}

fn rebuild(lived: &Lived, point: i64, form: Form, cluster: &Cluster, out: &Path) -> RestoredDb {
    let base = SnapshotFile::open(&lived.base, TrailerPolicy::Required).unwrap();
    let changes = Changes::open(&lived.segments, Point::Revision(point)).unwrap();
    let options = RestoreOptions { changes: Some(&changes), ..RestoreOptions::default() };
    write_db(&base, form, &cluster.founded(), &options, out, &mut |_, _| ()).unwrap()
}

fn rows_are_exact(lived: &Lived, point: i64, cluster: &Cluster, dir: &Path) -> RestoredDb {
    let out = dir.join("rebuilt.db");
    let restored = rebuild(lived, point, Form::Exact, cluster, &out);
    let expected: Rows = lived
        .rows
        .iter()
        .filter(|(key, _)| main_of(key) <= point)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let rebuilt = rows_of(&out);
    assert_eq!(rebuilt.len(), expected.len(), "rows at {point}");
    assert!(rebuilt == expected, "rows differ at {point}");
    // the written file, verified as any other, has what the restore said
    let verified = SnapshotFile::open(&out, TrailerPolicy::Skip)
        .unwrap()
        .verify(&VerifyOptions::default(), &mut |_, _| ())
        .unwrap();
    assert_eq!((verified.hash_kv, verified.live_keys), (restored.hash_kv, restored.live_keys));
    let reached = restored.reached.as_ref().unwrap();
    assert_eq!((reached.revision, restored.revision), (point, point));
    let usable = |answer: &&HashKv| answer.revision >= point && answer.compact_revision >= lived.base_compact;
    let first = lived.answers.iter().filter(usable).min_by_key(|answer| answer.revision);
    assert_eq!(
        reached.proof.map(|proof| proof.hash_kv),
        first.copied(),
        "the first answer behind {point} proves it"
    );
    std::fs::remove_file(out).unwrap();
    restored
}

/// A real etcd boots from it and answers the HashKV; its leases have their TTL.
fn boots(line: &str, lived: &Lived, point: i64, form: Form, dir: &Path) -> Vec<serde_json::Value> {
    let dir = dir.join(format!("boot-{point}-{}", form != Form::Exact));
    std::fs::create_dir(&dir).unwrap();
    let mut cluster = Cluster::new(line, 1, &dir, "again");
    let base = SnapshotFile::open(&lived.base, TrailerPolicy::Required).unwrap();
    let changes = Changes::open(&lived.segments, Point::Revision(point)).unwrap();
    let options = RestoreOptions { changes: Some(&changes), ..RestoreOptions::default() };
    let member = &cluster.members[0];
    let target = Target { name: member.name.clone(), data_dir: member.data_dir.clone(), wal_dir: None };
    let restored =
        restore_members(&base, form, &cluster.founded(), &options, &[target], &mut |_, _| ()).unwrap();
    let db = member.data_dir.join("member/snap/db");
    assert_eq!(tool(&cluster.etcd.bbolt, &["check", db.to_str().unwrap()]).trim(), "OK");
    if point < lived.leases_from && line != "3.5" {
        // etcdutl cannot hash a store with leased keys, and writes to the file it reads
        let copy = dir.join("copy.db");
        std::fs::copy(&db, &copy).unwrap();
        let told = tool(&cluster.etcd.etcdutl, &["hashkv", copy.to_str().unwrap(), "-w", "json"]);
        let told: serde_json::Value = serde_json::from_str(told.trim()).unwrap();
        assert_eq!(told["hash"].as_u64(), Some(u64::from(restored.hash_kv.hash)), "{told}");
    }
    cluster.start();
    for (hash, compact, revision) in cluster.hash_kvs(0) {
        assert_eq!((hash, revision), (restored.hash_kv.hash, restored.revision));
        assert_eq!(compact, restored.compact_revision);
    }
    let leases = cluster.json(&["lease", "list"])["leases"].as_array().cloned().unwrap_or_default();
    for lease in &leases {
        let id = lease["id"].as_i64().or(lease["ID"].as_i64()).unwrap();
        let told = cluster.json(&["lease", "timetolive", &format!("{id:x}")]);
        assert_eq!(told["granted-ttl"].as_i64(), lived.granted.get(&id).copied(), "{told}");
    }
    let content = cluster.content();
    for kv in content.iter().filter(|kv| kv["lease"].as_i64().is_some_and(|lease| lease != 0)) {
        assert!(leases.iter().any(|lease| lease["id"] == kv["lease"] || lease["ID"] == kv["lease"]), "{kv}");
    }
    cluster.stop();
    content
}

/// Had the cluster answered otherwise, nothing would be restored.
fn a_wrong_answer_is_told(lived: &Lived, cluster: &Cluster, dir: &Path) {
    let changes = Changes::open(&lived.segments, Point::Revision(lived.last)).unwrap();
    let header = changes.segments()[0].header.clone();
    let path = dir.join("wrong.seg");
    let mut writer = SegmentWriter::create(&path, header).unwrap();
    let hash_kv = HashKv { hash: 1, revision: lived.last, compact_revision: lived.base_compact };
    writer.hash_kv(&HashSample { at_ms: 0, hash_kv }).unwrap();
    writer.close().unwrap();
    let segments: Vec<PathBuf> = lived.segments.iter().cloned().chain([path]).collect();
    let changes = Changes::open(&segments, Point::Latest).unwrap();
    let base = SnapshotFile::open(&lived.base, TrailerPolicy::Required).unwrap();
    let options = RestoreOptions { changes: Some(&changes), ..RestoreOptions::default() };
    for form in [Form::Exact, Form::BumpedBy { revisions: 1000 }] {
        let out = dir.join("wrong.db");
        let told = write_db(&base, form, &cluster.founded(), &options, &out, &mut |_, _| ()).unwrap_err();
        assert!(matches!(told, etcd_disk::Error::Proof { answered: 1, .. }), "{told}");
        assert!(!out.exists());
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

/// A time gives the last revision that the agent had by then: none that clients had not written, none too few.
fn times_are_bounded(lived: &Lived, cluster: &Cluster, dir: &Path) {
    // the write under way at a time may be there, acknowledged or not
    let under_way_at =
        |ms: i64| lived.acknowledged.iter().find(|(at, _)| *at > ms).map_or(lived.last, |found| found.1);
    let times: Vec<i64> = lived.acknowledged.iter().map(|(at, _)| *at).collect();
    for asked in times.into_iter().skip(40).step_by(STEPS / 8) {
        let base = SnapshotFile::open(&lived.base, TrailerPolicy::Required).unwrap();
        let changes = Changes::open(&lived.segments, Point::TimeMs(asked)).unwrap();
        let options = RestoreOptions { changes: Some(&changes), ..RestoreOptions::default() };
        let out = dir.join("then.db");
        let restored =
            write_db(&base, Form::Exact, &cluster.founded(), &options, &out, &mut |_, _| ()).unwrap();
        let reached = restored.reached.unwrap();
        assert!(reached.revision <= under_way_at(asked), "{reached:?}");
        assert!(reached.received_ms.is_none_or(|received| received <= asked));
        assert!(reached.next_received_ms.is_none_or(|next| next > asked), "{reached:?}, {asked}");
        std::fs::remove_file(out).unwrap();
    }
}

/// A lease that had expired before it could be asked for is kept as a short one, and named.
fn an_unknown_lease_is_short(lived: &Lived, cluster: &Cluster, dir: &Path) {
    let first_revision = lived.base_revision + 1;
    let origin = Changes::open(&lived.segments, Point::Latest).unwrap().origin().unwrap();
    let header = Header { origin, first_revision, created_ms: 0, writer: String::new() };
    let path = dir.join("lease.seg");
    let mut writer = SegmentWriter::create(&path, header).unwrap();
    let kv = etcd_disk::proto::KeyValue {
        key: b"leased".to_vec(),
        create_revision: first_revision,
        mod_revision: first_revision,
        version: 1,
        value: Vec::new(),
        lease: 0x1234,
    };
    writer.row(first_revision, 1, false, &prost::Message::encode_to_vec(&kv)).unwrap();
    writer.end_revision().unwrap();
    writer.close().unwrap();
    let base = SnapshotFile::open(&lived.base, TrailerPolicy::Required).unwrap();
    let changes = Changes::open(&[path], Point::Latest).unwrap();
    let options = RestoreOptions { changes: Some(&changes), ..RestoreOptions::default() };
    let out = dir.join("lease.db");
    let restored = write_db(&base, Form::Exact, &cluster.founded(), &options, &out, &mut |_, _| ()).unwrap();
    let reached = restored.reached.unwrap();
    assert_eq!((reached.leases_added, reached.short_leases), (1, vec![0x1234]));
    assert_eq!(reached.proof, None, "there is no answer in this segment");
    let db = SnapshotFile::open(&out, TrailerPolicy::Skip).unwrap();
    let stored = db.bolt().bucket(b"lease").unwrap().unwrap().get(&0x1234i64.to_be_bytes()).unwrap().unwrap();
    let lease: etcd_disk::proto::Lease = prost::Message::decode(stored.as_slice()).unwrap();
    assert_eq!((lease.id, lease.ttl, lease.remaining_ttl), (0x1234, 60, 0));
}

async fn any_revision_comes_back(line: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, mut lived) = live(line, dir.path()).await;
    add_answers(&mut lived, dir.path());
    // a third of the points are ones at which the member was asked
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(7);
    let points: Vec<i64> = (0..POINTS)
        .map(|n| match n {
            0 => lived.base_revision,
            1 => lived.last,
            n if n % 3 == 0 => lived.answers[random.random_range(0..lived.answers.len())].revision,
            _ => random.random_range(lived.base_revision..=lived.last),
        })
        .collect();
    a_wrong_answer_is_told(&lived, &cluster, dir.path());
    an_unknown_lease_is_short(&lived, &cluster, dir.path());
    times_are_bounded(&lived, &cluster, dir.path());
    let mut proved = 0;
    for point in &points {
        let restored = rows_are_exact(&lived, *point, &cluster, dir.path());
        proved += usize::from(restored.reached.unwrap().proof.is_some());
    }
    assert!(proved >= POINTS - 5, "{proved} of {POINTS}");
    cluster.stop();
    let early = (lived.base_revision + lived.leases_from) / 2;
    for point in [early, points[2], lived.last] {
        let exact = boots(line, &lived, point, Form::Exact, dir.path());
        let mut bumped = boots(line, &lived, point, Form::BumpedBy { revisions: 1_000_000 }, dir.path());
        bumped.retain(|kv| !kv["key"].as_str().unwrap_or_default().is_empty());
        assert!(!exact.is_empty());
        assert_eq!(bumped, exact, "a raised revision changes no key");
    }
    println!("{line}: {} revisions, {POINTS} points, {proved} proved", lived.last - lived.base_revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_revision_comes_back_exactly() {
    for line in LINES {
        any_revision_comes_back(line).await;
    }
}
