//! A member's data dir around a restored database.
//!
//! ```text
//! data-dir/            0700
//!   member/            0700
//!     snap/            0700   db 0600, 0000000000000001-<n>.snap 0600
//!     wal/             0700   0000000000000000-0000000000000000.wal 0600    (or in --wal-dir)
//! ```
//! The log comes last, by a rename: without it etcd does not take the folder for a member's.

use std::path::Path;

use boltfile::LockState;

use super::NewCluster;
use crate::error::{Error, Result};
use crate::ids::EtcdId;
use crate::{files, snapfile, wal};

/// Where a member's database comes from. Two members must never share a file: each writes into its own.
#[derive(Debug, Clone, Copy)]
pub enum DbFrom<'a> {
    /// Renamed into place; on the same file system.
    Move(&'a Path),
    /// Copied.
    Copy(&'a Path),
}

/// Entries of a data dir that do not make it occupied: a file system's own, and what a recovery keeps aside there.
fn is_ours_or_the_file_systems(name: &str) -> bool {
    name == "lost+found" || name.starts_with(".rekindle")
}

/// Refuses a data dir or WAL dir with something in it, and says so if an etcd is running there.
pub(super) fn refuse_occupied(data_dir: &Path, wal_dir: Option<&Path>) -> Result<()> {
    let refused =
        |path: &Path, reason: &str| Err(Error::Refused { path: path.to_owned(), reason: reason.to_owned() });
    let db = data_dir.join("member/snap/db");
    if matches!(boltfile::lock_state(&db), Ok(LockState::HeldByAnother)) {
        return refused(data_dir, "a running etcd has its database open; stop that etcd first");
    }
    let not_empty = "it is not empty; move what is in it aside, or choose another";
    match std::fs::read_dir(data_dir) {
        Ok(entries) => {
            for entry in entries {
                let io = |source| Error::Io { path: data_dir.to_owned(), action: "list the folder", source };
                if !is_ours_or_the_file_systems(&entry.map_err(io)?.file_name().to_string_lossy()) {
                    return refused(data_dir, not_empty);
                }
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(Error::Io { path: data_dir.to_owned(), action: "list the folder", source });
        }
    }
    match wal_dir {
        Some(wal_dir) if !files::is_empty_dir(wal_dir)? => refused(wal_dir, not_empty),
        _ => Ok(()),
    }
}

/// The id of the member `name`.
pub(super) fn id_of(cluster: &NewCluster, name: &str) -> Result<EtcdId> {
    cluster.member_id(name).ok_or_else(|| {
        Error::Cluster(format!("member {name:?} is none of those it is to have (etcd's --initial-cluster)"))
    })
}

/// Writes the data dir of the member `name` around a database that [`super::write_db`] has written for this cluster.
/// Everything is synced to disk.
///
/// # Errors
/// [`Error::Refused`] when the data dir or WAL dir is occupied, [`Error::Cluster`] when the name is none of the
/// cluster's, [`Error::Io`].
pub fn write_member(
    data_dir: &Path,
    wal_dir: Option<&Path>,
    db: DbFrom<'_>,
    name: &str,
    cluster: &NewCluster,
) -> Result<()> {
    refuse_occupied(data_dir, wal_dir)?;
    let id = id_of(cluster, name)?;
    let member_dir = data_dir.join("member");
    let snap_dir = member_dir.join("snap");
    files::create_private_dirs(data_dir)?;
    files::create_private_dir(&member_dir)?;
    files::create_private_dir(&snap_dir)?;
    place_db(db, &snap_dir.join("db"))?;
    snapfile::write(&snap_dir, cluster)?;
    files::sync_dir(&snap_dir)?;
    let own_wal = member_dir.join("wal");
    let wal_dir = wal_dir.unwrap_or(&own_wal);
    if let Some(parent) = wal_dir.parent() {
        files::create_private_dirs(parent)?;
    }
    wal::create(wal_dir, id.0, cluster)?;
    files::sync_dir(&member_dir)?;
    files::sync_dir(data_dir)?;
    data_dir.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), files::sync_dir)
}

fn place_db(db: DbFrom<'_>, to: &Path) -> Result<()> {
    match db {
        DbFrom::Move(from) => files::rename(from, to),
        DbFrom::Copy(from) => {
            let io = |source| Error::Io { path: to.to_owned(), action: "copy the database to it", source };
            let mut target = files::create_private(to).map_err(io)?;
            let mut source = std::fs::File::open(from).map_err(io)?;
            std::io::copy(&mut source, &mut target).map_err(io)?;
            target.sync_all().map_err(io)
        }
    }
}
