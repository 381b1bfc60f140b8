//! What lies in the restored store, read from the file before etcd has it: key by key, with revision and UID.

use crate::failure::{Doing, Failure};
use camino::Utf8Path;
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy};
use std::collections::BTreeMap;

/// Objects of one resource: the key behind the resource's own prefix (`NAMESPACE/NAME` or `NAME`), and which it is.
pub(super) type Objects = BTreeMap<String, Stored>;

/// Which object a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// What the API calls `resourceVersion`.
    pub(super) mod_revision: i64,
    /// None: encrypted, or no UID.
    pub(super) uid: Option<String>,
}

/// The store's content.
#[derive(Debug, Default)]
pub(super) struct Native {
    /// By resource as stored (`services/specs`).
    pub(super) resources: BTreeMap<String, Objects>,
    /// Ranges of Service addresses, one for each family.
    pub(super) service_ranges: Vec<String>,
    /// Objects that encryption at rest covers.
    pub(super) encrypted: u64,
}

/// Reads it. Memory for the keys.
pub(super) fn read(data_dir: &Utf8Path, etcd_prefix: &str) -> Result<Native, Failure> {
    let file = data_dir.join("member/snap/db");
    let unread = || format!("cannot read {file}");
    let db = SnapshotFile::open(file.as_std_path(), TrailerPolicy::Skip).doing(unread)?;
    let (mut native, mut allocated) = (Native::default(), Vec::new());
    let prefix = etcd_prefix.trim_end_matches('/');
    let visited = etcd_disk::live::for_each(db.bolt(), file.as_std_path(), &mut |kv| {
        let resource = kube_storage::resource_of(kv.key, prefix);
        if resource.is_empty() {
            return Ok(());
        }
        let name = kv.key.get(prefix.len() + resource.len() + 2..).unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        match (resource, name.as_str()) {
            ("ranges/serviceips" | "ranges/secondaryserviceips", _) => {
                allocated.extend(kube_storage::allocated_range(kv.value));
            }
            ("servicecidrs", "kubernetes") => {
                native.service_ranges.extend(kube_storage::service_cidrs(kv.value).unwrap_or_default());
            }
            _ => (),
        }
        native.encrypted += u64::from(kube_storage::is_encrypted(kv.value));
        let stored = Stored { mod_revision: kv.mod_revision, uid: kube_storage::object_uid(kv.value) };
        native.resources.entry(resource.to_owned()).or_default().insert(name, stored);
        Ok(())
    });
    visited.doing(unread)?;
    if native.service_ranges.is_empty() {
        native.service_ranges = allocated;
    }
    Ok(native)
}
