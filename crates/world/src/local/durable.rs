//! Changes of files that survive power loss: the only place of this crate that syncs and renames.
//!
//! A rename is durable when both parent folders are synced after it; a new file when its content is synced before the
//! rename and its folder after (POSIX `fsync`, Linux `rename(2)`).

use crate::fault::{Fault, Outcome};
use camino::Utf8Path;
use rustix::fs::{CWD, RenameFlags};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};

/// Mode of folders made on the way.
pub(crate) const PRIVATE_DIR: u32 = 0o700;
/// Mode of files that hold cluster data.
pub(crate) const PRIVATE_FILE: u32 = 0o600;

/// Syncs a folder, so that names made or removed in it last.
pub(crate) fn sync_dir(dir: &Utf8Path) -> Outcome<()> {
    let synced = File::open(dir).and_then(|d| d.sync_all());
    synced.map_err(|e| Fault::io(format!("sync folder {dir}"), &e))
}

/// The folder a path lies in.
pub(crate) fn parent(path: &Utf8Path) -> Outcome<&Utf8Path> {
    path.parent().ok_or_else(|| Fault::refused(format!("{path}: has no parent folder")))
}

/// Makes a folder with its missing parents, each synced into its own parent. Present already is success.
pub(crate) fn make_dirs(dir: &Utf8Path, mode: u32) -> Outcome<()> {
    let missing: Vec<&Utf8Path> = dir.ancestors().take_while(|a| !a.exists()).collect();
    for folder in missing.into_iter().rev() {
        match DirBuilder::new().mode(mode).create(folder) {
            Ok(()) => sync_dir(parent(folder)?)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Fault::io(format!("make folder {folder}"), &e)),
        }
    }
    match dir.metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(Fault::refused(format!("make folder {dir}: something else has that name"))),
        Err(e) => Err(Fault::io(format!("make folder {dir}"), &e)),
    }
}

/// A new empty file for writing, with this very mode (whatever the umask is); its parents are made.
pub(crate) fn create(path: &Utf8Path, mode: u32) -> Outcome<File> {
    make_dirs(parent(path)?, PRIVATE_DIR)?;
    let opened = OpenOptions::new()
        .write(true)
        .read(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE_FILE)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path);
    let file = opened.map_err(|e| Fault::io(format!("create {path}"), &e))?;
    file.set_permissions(Permissions::from_mode(mode & 0o7777))
        .map_err(|e| Fault::io(format!("set the mode of {path}"), &e))?;
    Ok(file)
}

/// Syncs a finished file and gives it its name, replacing what had it.
pub(crate) fn publish(file: &File, via: &Utf8Path, path: &Utf8Path) -> Outcome<()> {
    file.sync_all().map_err(|e| Fault::io(format!("sync {via}"), &e))?;
    std::fs::rename(via, path).map_err(|e| Fault::io(format!("rename {via} to {path}"), &e))?;
    sync_dir(parent(path)?)?;
    let (from, to) = (parent(via)?, parent(path)?);
    if from == to { Ok(()) } else { sync_dir(from) }
}

/// Writes a file by way of `via` (same file system), which is then renamed over it.
pub(crate) fn write(path: &Utf8Path, via: &Utf8Path, content: &[u8], mode: u32) -> Outcome<()> {
    if path == via {
        return Err(Fault::refused(format!("write {path}: it can't be its own way in")));
    }
    let mut file = create(via, mode)?;
    file.write_all(content).map_err(|e| Fault::io(format!("write {via}"), &e))?;
    publish(&file, via, path)
}

/// Gives a file an owner, a group and permission bits.
pub(crate) fn give(path: &Utf8Path, (uid, gid): (u32, u32), mode: u32) -> Outcome<()> {
    let given = File::open(path).and_then(|file| {
        let found = file.metadata()?;
        if (found.uid(), found.gid()) != (uid, gid) {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(mode & 0o777))?;
        file.sync_all()
    });
    given.map_err(|e| Fault::io(format!("change owner and mode of {path}"), &e))
}

/// Makes a symbolic link `path` to `target`. One with that target is success.
pub(crate) fn link(target: &Utf8Path, path: &Utf8Path) -> Outcome<()> {
    make_dirs(parent(path)?, PRIVATE_DIR)?;
    match std::os::unix::fs::symlink(target, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match path.read_link_utf8() {
            Ok(present) if present == target => {}
            _ => return Err(Fault::io(format!("link {path} to {target}"), &e)),
        },
        Err(e) => return Err(Fault::io(format!("link {path} to {target}"), &e)),
        Ok(()) => {}
    }
    sync_dir(parent(path)?)
}

/// Renames `from` to `to` on one file system, never replacing. Done already (no `from`, but `to`) is success.
///
/// A folder that comes out of a run's own gets the owner of the folder it is put into: an etcd that runs as a user of its
/// own could not read a data dir of root's. A file keeps the owner it has: it was given one, or goes back as it was.
pub(crate) fn rename_new(from: &Utf8Path, to: &Utf8Path) -> Outcome<()> {
    let (from_there, to_there) = (from.symlink_metadata().is_ok(), to.symlink_metadata().is_ok());
    match (from_there, to_there) {
        (true, true) => return Err(Fault::refused(format!("rename {from} to {to}: {to} exists already"))),
        (false, false) => {
            return Err(Fault::not_found(format!("rename {from} to {to}: {from} does not exist")));
        }
        (false, true) => {}
        (true, false) => {
            make_dirs(parent(to)?, PRIVATE_DIR)?;
            if is_own(from) && !is_own(to) && from.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                give_to_owner_of(parent(to)?, from)?;
            }
            rename_no_replace(from, to).map_err(|e| Fault::io(format!("rename {from} to {to}"), &e))?;
        }
    }
    // Also when it was done before: the run that did it may have died before its syncs.
    sync_dir(parent(to)?)?;
    match parent(from)? {
        gone if !gone.exists() => Ok(()),
        same if Some(same) == to.parent() => Ok(()),
        other => sync_dir(other),
    }
}

fn rename_no_replace(from: &Utf8Path, to: &Utf8Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from.as_str(), CWD, to.as_str(), RenameFlags::NOREPLACE) {
        // Some file systems (and kernels before 3.15) know no flags; the caller has looked that `to` is free.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::rename(from, to),
        other => Ok(other?),
    }
}

/// Whether a path lies in a folder that a run made.
fn is_own(path: &Utf8Path) -> bool {
    let ours = |name: &str| name.starts_with("rekindle-") || name.starts_with(".rekindle-");
    path.components().any(|c| ours(c.as_str()))
}

/// Gives a tree the owner and group of a folder. Links are given, not followed; the depth is that of a data dir.
fn give_to_owner_of(folder: &Utf8Path, tree: &Utf8Path) -> Outcome<()> {
    let failed = |path: &Utf8Path, e: &io::Error| Fault::io(format!("change the owner of {path}"), e);
    let owner = folder.metadata().map_err(|e| failed(folder, &e))?;
    let mut left = vec![tree.to_owned()];
    while let Some(path) = left.pop() {
        let found = path.symlink_metadata().map_err(|e| failed(&path, &e))?;
        if (found.uid(), found.gid()) != (owner.uid(), owner.gid()) {
            std::os::unix::fs::lchown(&path, Some(owner.uid()), Some(owner.gid()))
                .map_err(|e| failed(&path, &e))?;
        }
        if found.is_dir() {
            for entry in path.read_dir_utf8().map_err(|e| failed(&path, &e))? {
                left.push(entry.map_err(|e| failed(&path, &e))?.into_path());
            }
        }
    }
    Ok(())
}

/// Removes a tree that a run made. Gone already is success.
///
/// # Errors
/// Refused when no component of the path begins with `rekindle-` or `.rekindle-`.
pub(crate) fn remove_own_tree(path: &Utf8Path) -> Outcome<()> {
    if !is_own(path) {
        return Err(Fault::refused(format!("remove {path}: not made by a run of Rekindle")));
    }
    let removed = match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => Err(e),
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    removed.map_err(|e| Fault::io(format!("remove {path}"), &e))?;
    sync_dir(parent(path)?)
}
