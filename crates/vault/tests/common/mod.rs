//! A vault in a temporary folder, with keys, and small real snapshots to put into it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    dead_code
)]

use age::secrecy::ExposeSecret;
use etcd_disk::proto::KeyValue;
use etcd_disk::rows::{Revision, row_key};
use etcd_disk::segment::{Header, Origin, SegmentWriter};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, Verified, VerifyOptions};
use prost::Message;
use rekindle_vault::manifest::{ClusterIdentity, Content, Manifest, TimelineRef};
use rekindle_vault::{
    BundleMeta, ClusterName, FullMeta, Identities, PartSource, Recipients, ResourcesMeta, Retention,
    SegmentMeta, SigningKey, Store, Vault, VerifyLevel, VerifyReport, Writer, WriterName,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Keeps the last full, and what leads on from it.
pub const ONE: Retention = Retention {
    last: 1,
    hourly: 0,
    daily: 0,
    weekly: 0,
    monthly: 0,
    within_ms: None,
    point_in_time_ms: None,
};

/// Keys, and the files they are in.
pub struct Keys {
    pub key: SigningKey,
    pub recipient: String,
    pub identities: Arc<Identities>,
    pub identity_file: PathBuf,
    pub dir: tempfile::TempDir,
}

impl Keys {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::create(&dir.path().join("sign.key")).unwrap();
        let identity = age::x25519::Identity::generate();
        let identity_file = dir.path().join("identity.txt");
        std::fs::write(&identity_file, format!("{}\n", identity.to_string().expose_secret())).unwrap();
        let identities = Arc::new(Identities::read(&identity_file).unwrap());
        Self { key, recipient: identity.to_public().to_string(), identities, identity_file, dir }
    }

    pub fn vault(&self, store: &Store) -> Vault {
        Vault::new(store, ClusterName::new("prod").unwrap(), &[self.key.signer()]).unwrap()
    }

    pub async fn writer(&self, store: &Store, name: &str) -> Writer {
        let recipients = Recipients::new([self.recipient.as_str()]).unwrap();
        let name = WriterName::new(name).unwrap();
        self.vault(store).writer(name, self.key.clone(), recipients).await.unwrap()
    }

    pub async fn verify(&self, vault: &Vault, content: bool) -> VerifyReport {
        let scratch = self.dir.path().to_owned();
        let level = match content {
            true => VerifyLevel::Content {
                identities: self.identities.clone(),
                scratch,
                read_objects: Arc::new(|archive| Ok(std::fs::metadata(archive)?.len() / OBJECT_BYTES as u64)),
            },
            false => VerifyLevel::Stored,
        };
        vault.verify(&level, &mut |_, _| ()).await.unwrap()
    }
}

pub fn folder() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().to_str().unwrap()).unwrap();
    (dir, store)
}

/// A snapshot as a member would send it: a row of `value_bytes` noise for each revision from 2 to `revision`.
pub fn snapshot(dir: &Path, revision: i64, value_bytes: usize) -> (PathBuf, Verified) {
    let path = dir.join(format!("snapshot-{revision}-{value_bytes}.db"));
    let file = std::fs::File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    let mut writer = boltfile::Writer::create("db", file, 4096).unwrap();
    for name in ["key", "lease", "meta"] {
        let mut bucket = writer.bucket(name.as_bytes()).unwrap();
        for main in (2..=revision).filter(|_| name == "key") {
            let kv = row(main, value_bytes);
            bucket.put(&row_key(Revision { main, sub: 0 }), &kv.encode_to_vec()).unwrap();
        }
    }
    writer.finish().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let sha = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sha);
    std::fs::write(&path, bytes).unwrap();
    let file = SnapshotFile::open(&path, TrailerPolicy::Required).unwrap();
    let verified = file.verify(&VerifyOptions::default(), &mut |_, _| ()).unwrap();
    (path, verified)
}

fn row(main: i64, value_bytes: usize) -> KeyValue {
    KeyValue {
        key: format!("/registry/k/{}", main % 20).into(),
        create_revision: main,
        mod_revision: main,
        version: 1,
        value: noise(u64::try_from(main).unwrap(), value_bytes),
        lease: 0,
    }
}

/// Bytes that do not compress.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    })
    .take(count)
    .collect()
}

pub fn timeline() -> TimelineRef {
    TimelineRef { id: "t1".into(), parent: None, fork_revision: None }
}

pub fn full_meta(verified: Verified, taken_ms: i64) -> FullMeta {
    FullMeta {
        identity: ClusterIdentity::default(),
        timeline: timeline(),
        taken_ms,
        etcd_version: Some("3.6.14".into()),
        samples: Vec::new(),
        verified,
    }
}

pub async fn put_full(writer: &Writer, dir: &Path, revision: i64, taken_ms: i64) -> Manifest {
    let (path, verified) = snapshot(dir, revision, 100);
    let put = writer.put_full(&path, full_meta(verified, taken_ms)).await.unwrap();
    std::fs::remove_file(path).unwrap();
    put
}

pub async fn put_segment(writer: &Writer, first: i64, last: i64, last_ms: i64) -> Manifest {
    let meta = SegmentMeta {
        identity: ClusterIdentity::default(),
        timeline: timeline(),
        first_revision: first,
        last_revision: last,
        first_ms: last_ms - 1000,
        last_ms,
        etcd_version: None,
        member: None,
        samples: Vec::new(),
        replaces: BTreeSet::new(),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = segment(dir.path(), first, last, last_ms);
    writer.put_segment(PartSource::File(path), meta).await.unwrap()
}

/// A segment with one row for each of its revisions.
pub fn segment(dir: &Path, first: i64, last: i64, last_ms: i64) -> PathBuf {
    let path = dir.join("segment");
    let header = Header {
        origin: Origin { cluster_id: 7, timeline: [1; 16] },
        first_revision: first,
        created_ms: last_ms - 1000,
        writer: "test".into(),
    };
    let mut writer = SegmentWriter::create(&path, header).unwrap();
    for main in first..=last {
        writer.row(main, last_ms, false, &row(main, 40).encode_to_vec()).unwrap();
        writer.end_revision().unwrap();
    }
    writer.close().unwrap();
    path
}

pub async fn put_bundle(writer: &Writer, dir: &Path, host: &str, taken_ms: i64) -> Manifest {
    let path = dir.join(format!("{host}.tar"));
    std::fs::write(&path, noise(9, 2000)).unwrap();
    let meta = BundleMeta { identity: ClusterIdentity::default(), host: host.into(), taken_ms };
    writer.put_bundle(path, meta).await.unwrap()
}

/// What stands for an archive of objects here: noise, so many bytes of it for each.
const OBJECT_BYTES: usize = 700;

pub async fn put_resources(writer: &Writer, dir: &Path, scope: &str, taken_ms: i64) -> Manifest {
    let path = dir.join("resources.tar");
    std::fs::write(&path, noise(11, 3 * OBJECT_BYTES)).unwrap();
    writer.put_resources(path, resources_meta(scope, taken_ms)).await.unwrap()
}

pub fn resources_meta(scope: &str, taken_ms: i64) -> ResourcesMeta {
    ResourcesMeta {
        identity: ClusterIdentity::default(),
        scope: scope.into(),
        taken_ms,
        objects: 3,
        problems: 0,
        server_version: "v1.37.2".into(),
    }
}

/// The name of a manifest's part.
pub fn part(manifest: &Manifest) -> &rekindle_vault::manifest::Part {
    match &manifest.content {
        Content::Full(full) => &full.part,
        Content::Segment(segment) => &segment.part,
        Content::Bundle(bundle) => &bundle.part,
        Content::Resources(resources) => &resources.part,
        Content::Prune(_) => panic!("a record of retention has no part"),
    }
}

/// Every file below a folder.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Makes all files below a folder two days old, as if the backups in them had been written then.
pub fn age_files(dir: &Path) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
    for path in files(dir) {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
    }
}

/// Now, in milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
