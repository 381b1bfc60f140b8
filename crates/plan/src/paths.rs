//! Where a run puts what it makes and what it moves aside: always on the file system it came from.
//!
//! The names carry the run's short id, so that two runs never meet and a person sees where a folder comes from.

use camino::Utf8Path;
use rekindle_model::HostPath;
use rekindle_model::RunId;
use rekindle_model::etcd::EtcdConfig;
use rekindle_model::host::HostFacts;

/// Folders of one member's swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Swap {
    /// Folder that will hold the new `member/`.
    pub(crate) staging: HostPath,
    /// The data dir's `member/`.
    pub(crate) member: HostPath,
    /// Where an old `member/` goes.
    pub(crate) old_member: HostPath,
    /// The same for a WAL that lies elsewhere: the WAL folder itself is swapped.
    pub(crate) wal: Option<WalSwap>,
}

/// Folders of the swap of a WAL that does not lie inside the data dir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WalSwap {
    /// The WAL dir.
    pub(crate) dir: HostPath,
    /// Folder that will become the WAL dir.
    pub(crate) staging: HostPath,
    /// Where the old one goes.
    pub(crate) old: HostPath,
}

/// The folder of a run for `dir`: inside it when it is a mount point (nothing can be renamed out), else beside it.
pub(crate) fn base(dir: &HostPath, is_mount_point: bool, run: &RunId) -> HostPath {
    match (dir.parent(), dir.file_name()) {
        (Some(parent), Some(name)) if !is_mount_point => {
            HostPath::from(parent.join(format!("rekindle-{}-{name}", run.short())))
        }
        _ => dir.join(format!(".rekindle-{}", run.short())),
    }
}

impl Swap {
    /// The swap of a data dir, and of its WAL dir when that lies elsewhere.
    pub(crate) fn new(
        data_dir: &HostPath,
        is_mount_point: bool,
        wal_dir: Option<&HostPath>,
        run: &RunId,
    ) -> Self {
        let base_dir = base(data_dir, is_mount_point, run);
        Self {
            staging: base_dir.join("new"),
            member: data_dir.join("member"),
            old_member: base_dir.join("old-member"),
            wal: wal_dir.map(|dir| {
                let wal_base = base(dir, false, run);
                WalSwap { dir: dir.clone(), staging: wal_base.join("new"), old: wal_base.join("old") }
            }),
        }
    }

    /// The swap of a member's store where it lies.
    pub(crate) fn in_place(host: &HostFacts, config: &EtcdConfig, run: &RunId) -> Self {
        let is_mount_point = host.etcd_data.known().is_some_and(|data| data.is_mount_point);
        Self::new(&config.data_dir, is_mount_point, config.wal_dir.as_ref(), run)
    }

    /// What holds the old store, and where each part of it goes.
    pub(crate) fn asides(self) -> impl Iterator<Item = (HostPath, HostPath)> {
        let wal = self.wal.map(|wal| (wal.dir, wal.old));
        [(self.member, self.old_member)].into_iter().chain(wal)
    }
}

/// Where manifests and replaced files of a folder go: beside the folder, never inside (kubelet reads every file there).
pub(crate) fn parked_dir(folder: &Utf8Path, run: &RunId) -> HostPath {
    let parent = folder.parent().unwrap_or(folder);
    HostPath::from(parent.join(format!("rekindle-{}", run.short())))
}

/// The folder an edited unit or environment file's old version goes to: systemd reads no sub-folders of this name.
pub(crate) fn aside_in(folder: &Utf8Path, run: &RunId) -> HostPath {
    HostPath::from(folder.join(format!("rekindle-{}", run.short())))
}

/// A host's name as part of a file name.
pub(crate) fn file_part(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "._@-".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunId {
        RunId("0199aaaa-bbbb-7ccc-8ddd-0123deadbeef".into())
    }

    // A folder that is a mount point can't be renamed, and nothing can be renamed out of it: everything stays inside.
    #[test]
    fn a_mount_point_keeps_everything_inside() {
        let swap = Swap::new(&HostPath::from("/var/lib/etcd"), true, None, &run());
        assert_eq!(swap.staging, HostPath::from("/var/lib/etcd/.rekindle-deadbeef/new"));
        assert_eq!(swap.old_member, HostPath::from("/var/lib/etcd/.rekindle-deadbeef/old-member"));
    }

    #[test]
    fn a_plain_folder_has_everything_beside_it() {
        let swap =
            Swap::new(&HostPath::from("/var/lib/etcd"), false, Some(&HostPath::from("/wal/etcd")), &run());
        assert_eq!(swap.staging, HostPath::from("/var/lib/rekindle-deadbeef-etcd/new"));
        assert_eq!(swap.wal.unwrap().old, HostPath::from("/wal/rekindle-deadbeef-etcd/old"));
    }
}
