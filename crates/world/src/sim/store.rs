//! Makes etcd files for the simulated world: a database with keys as an API server writes them, and snapshots of it.

use crate::fault::{Fault, Outcome};
use boltfile::Writer;
use camino::Utf8Path;
use etcd_disk::proto::KeyValue;
use etcd_disk::rows::{Revision, row_key};
use prost::Message as _;
use sha2::{Digest, Sha256};
use std::fs::File;

const PAGE_BYTES: u32 = 4096;

/// What a store is to hold.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    /// Revision of the newest row.
    pub(super) revision: i64,
    /// Live keys, the well-known ones among them.
    pub(super) live_keys: u64,
    /// UID of `kube-system`.
    pub(super) kube_system_uid: String,
    /// Addresses of API servers, one stale lease each.
    pub(super) api_servers: Vec<String>,
    /// Makes the values.
    pub(super) seed: u64,
}

/// Writes the database file; of one seed always the same bytes.
pub(super) fn write_db(path: &Utf8Path, contents: &Contents) -> Outcome<()> {
    let failed = |error: &dyn std::error::Error| Fault::failed(format!("make {path}: {error}"));
    let file = File::create_new(path).map_err(|e| failed(&e))?;
    let mut writer = Writer::create(path.as_str(), file, PAGE_BYTES).map_err(|e| failed(&e))?;
    for name in ["alarm", "auth", "authRoles", "authUsers", "cluster", "key"] {
        let mut bucket = writer.bucket(name.as_bytes()).map_err(|e| failed(&e))?;
        if name == "key" {
            for (revision, row) in rows(contents) {
                let key = row_key(Revision { main: revision, sub: 0 });
                bucket.put(&key, &row.encode_to_vec()).map_err(|e| failed(&e))?;
            }
        }
    }
    for name in ["lease", "members", "members_removed", "meta"] {
        writer.bucket(name.as_bytes()).map_err(|e| failed(&e))?;
    }
    let finished = writer.finish().map_err(|e| failed(&e))?;
    finished.file.sync_all().map_err(|e| failed(&e))
}

/// Rows in the order of their revisions; every third key was written twice.
fn rows(contents: &Contents) -> Vec<(i64, KeyValue)> {
    let keys = keys(contents);
    let rewritten = keys.iter().step_by(3);
    let count = keys.len() + keys.len().div_ceil(3);
    let first = contents.revision - i64::try_from(count).unwrap_or(0) + 1;
    let mut rows = Vec::with_capacity(count);
    let mut random = contents.seed;
    for (at, (key, value)) in keys.iter().chain(rewritten).enumerate() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let revision = first + i64::try_from(at).unwrap_or(0);
        let again = at >= keys.len();
        let created =
            if again { first + i64::try_from((at - keys.len()) * 3).unwrap_or(0) } else { revision };
        let value = value.clone().unwrap_or_else(|| random.to_le_bytes().repeat(16));
        rows.push((
            revision,
            KeyValue {
                key: key.clone().into_bytes(),
                create_revision: created,
                mod_revision: revision,
                version: if again { 2 } else { 1 },
                value,
                lease: 0,
            },
        ));
    }
    rows
}

/// The live keys; a value where it matters.
fn keys(contents: &Contents) -> Vec<(String, Option<Vec<u8>>)> {
    let uid = &contents.kube_system_uid;
    let namespace = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{{\"name\":\"kube-system\",\"uid\":\"{uid}\"}}}}"
    );
    let mut keys = vec![(kube_storage::kube_system_key("/registry"), Some(namespace.into_bytes()))];
    let addresses = contents.api_servers.iter();
    keys.extend(addresses.map(|a| (format!("{}{a}", kube_storage::masterlease_prefix("/registry")), None)));
    for number in (keys.len() as u64)..contents.live_keys {
        let resource = if number % 4 == 0 { "secrets" } else { "pods" };
        keys.push((format!("/registry/{resource}/default/object-{number:05}"), None));
    }
    keys
}

/// Writes a snapshot as etcd serves it: the database and its SHA-256 behind it. Returns that sum in hex.
pub(super) fn write_snapshot(db: &mut impl std::io::Read, to: &Utf8Path) -> Outcome<(String, u64)> {
    let failed = |e: std::io::Error| Fault::io(format!("write {to}"), &e);
    let mut bytes = Vec::new();
    db.read_to_end(&mut bytes).map_err(failed)?;
    let sum = Sha256::digest(&bytes);
    let size = bytes.len() as u64;
    bytes.extend_from_slice(&sum);
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(to, &bytes).map_err(failed)?;
    Ok((sum.iter().map(|b| format!("{b:02x}")).collect(), size))
}
