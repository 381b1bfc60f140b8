//! etcd's files on this machine: the requests of the seam mapped onto `etcd-disk`, in one place.

use crate::fault::{Fault, Outcome};
use crate::host::Reply;
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::step::NewMember;

/// Facts of an etcd data dir.
pub(crate) fn inspect(_data_dir: &Utf8Path, _wal_dir: Option<&Utf8Path>, _deep: bool) -> Outcome<Reply> {
    Err(Fault::failed("data dirs are not read yet"))
}

/// Facts of a file with a db.
pub(crate) fn inspect_snapshot(_path: &Utf8Path, _has_trailer: bool) -> Outcome<Reply> {
    Err(Fault::failed("snapshots are not read yet"))
}

/// Replays a stopped member's db and WAL into one new db file.
pub(crate) fn replay(_data_dir: &Utf8Path, _wal_dir: Option<&Utf8Path>, _to: &Utf8Path) -> Outcome<Reply> {
    Err(Fault::failed("stores are not replayed yet"))
}

/// What `WriteMember` asks for, paths resolved.
pub(crate) struct Member {
    pub(crate) db: Utf8PathBuf,
    pub(crate) members: Vec<NewMember>,
    pub(crate) name: String,
    pub(crate) token: String,
    pub(crate) staging: Utf8PathBuf,
    pub(crate) wal_staging: Option<Utf8PathBuf>,
}

/// Writes `member/` of a new member.
pub(crate) fn write_member(_member: &Member) -> Outcome<()> {
    Err(Fault::failed("members are not written yet"))
}
