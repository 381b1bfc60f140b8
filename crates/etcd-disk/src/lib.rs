//! etcd on disk: snapshots, MVCC rows, WAL, members, HashKV, restore.
//!
//! - [`snapshot`] opens a snapshot file (or a copied `member/snap/db`) and verifies it in one pass.
//! - [`hashkv`], [`live`] and [`facts`] say what is in a store; [`rows`] is the format of its rows.
//! - [`wal`], [`snapfile`] and [`data_dir`] read what else a member keeps; [`ids`] names members and clusters.
//! - [`replay`] applies what a stopped member's log has beyond its database.
//! - [`segment`] is the file of the change stream that a watcher writes; [`changes`] are several of them as one stream.
//! - [`restore`] writes new members of a new cluster from a snapshot, and from the changes behind it.
//!
//! The formats are drawn in `docs/formats/etcd-data-dir.md` and `docs/formats/snapshot.md`. What etcd itself does is
//! in the Go modules `go.etcd.io/etcd/{server,etcdutl,api}/v3`, 3.5 to 3.7; each file names its sources. The tests
//! under the feature `stock` hold everything here against the real etcd, etcdctl and etcdutl of these lines.
//! Everything read is hostile: bounded, checked, and an error names file and place.

pub mod changes;
mod copy;
pub mod data_dir;
mod error;
pub mod facts;
mod files;
pub mod hashkv;
pub mod ids;
pub mod live;
mod live_index;
pub mod proto;
pub mod replay;
pub mod restore;
pub mod rows;
mod scan;
pub mod segment;
pub mod snapfile;
pub mod snapshot;
pub mod wal;

pub use error::{Error, PointFault, Result, RowFault, SegmentFault, SnapshotFault, WalFault};

/// The names of etcd's buckets (`server/storage/schema/bucket.go`).
pub(crate) mod bucket {
    pub(crate) const ALARM: &str = "alarm";
    pub(crate) const AUTH: &str = "auth";
    pub(crate) const CLUSTER: &str = "cluster";
    pub(crate) const KEY: &str = "key";
    pub(crate) const LEASE: &str = "lease";
    pub(crate) const MEMBERS: &str = "members";
    pub(crate) const MEMBERS_REMOVED: &str = "members_removed";
    pub(crate) const META: &str = "meta";
}
