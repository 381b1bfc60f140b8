//! A backup's turn in its folder, and its place: one process writes at a time, and a partial backup never costs what only
//! an earlier one holds.

use crate::error::{Error, Result};
use crate::folder::{HERE, INDEX, INDEX_MAX_BYTES, NEW, PREVIOUS, read_bounded, remove_tree, sync_dir};
use crate::index::Index;
use camino::Utf8Path;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

/// Locked while a backup is written; its text tells by whom.
const LOCK: &str = ".lock";

/// Takes the folder for this process alone, for as long as the file is open.
pub(crate) fn take_turn(folder: &Utf8Path) -> Result<File> {
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(Error::local("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // only for the message: a lock whose text can't be read is held all the same
            let _ = file.take(64).read_to_string(&mut text);
            return Err(Error::BeingWritten { path: folder.to_owned(), pid: text.trim().to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(Error::local("lock", &path)(source)),
    }
    let written = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
    written.map_err(Error::local("write", &path))?;
    Ok(file)
}

/// Where an earlier backup will lie beside a new one, if the new one lacks what only that has.
pub(crate) fn kept_beside(folder: &Utf8Path, new: &Index) -> Option<String> {
    let is_kept = has_more(&folder.join(HERE), new) || folder.join(PREVIOUS).exists();
    (!new.problems.is_empty() && is_kept).then(|| PREVIOUS.to_owned())
}

/// Gives the finished backup its name. An earlier one is exchanged for it in one step, and only then removed, or kept.
pub(crate) fn put_in_place(folder: &Utf8Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let (here, new) = (folder.join(HERE), folder.join(NEW));
    if here.exists() {
        renameat_with(CWD, new.as_std_path(), CWD, here.as_std_path(), RenameFlags::EXCHANGE)
            .map_err(|errno| Error::local("put the new backup in the place of", &here)(errno.into()))?;
    } else {
        std::fs::rename(&new, &here).map_err(Error::local("make", &here))?;
    }
    sync_dir(folder)?;
    settle(folder)
}

/// What becomes of the backup in `.new` once `resources` is another: kept as `resources.previous` if it has what that one
/// lacks, else removed. One that was kept goes as soon as there is a whole one of the same selection. Also after a death in
/// between.
pub(crate) fn settle(folder: &Utf8Path) -> Result<()> {
    let (new, previous) = (folder.join(NEW), folder.join(PREVIOUS));
    if let Some(now) = index(&folder.join(HERE)) {
        let is_whole = now.problems.is_empty();
        if is_whole && index(&previous).is_some_and(|kept| kept.selection == now.selection) {
            remove_tree(&previous)?;
        }
        // one that was kept is no less whole than one that came between, unless that is whole itself
        let has_place = || !previous.exists() || index(&new).is_some_and(|old| old.problems.is_empty());
        if !is_whole && has_more(&new, &now) && has_place() {
            remove_tree(&previous)?;
            std::fs::rename(&new, &previous).map_err(Error::local("make", &previous))?;
            return sync_dir(folder);
        }
    }
    remove_tree(&new)
}

/// Whether the backup in `dir` has a kind that the other could not read.
fn has_more(dir: &Utf8Path, other: &Index) -> bool {
    let lacks = |old: &Index| {
        other.problems.iter().any(|problem| old.problems.iter().all(|p| p.what != problem.what))
    };
    // one that this version can't read is not removed for a partial one
    dir.join(INDEX).exists() && index(dir).is_none_or(|old| lacks(&old))
}

fn index(dir: &Utf8Path) -> Option<Index> {
    serde_json::from_slice(&read_bounded(&dir.join(INDEX), INDEX_MAX_BYTES).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use crate::error::Error;
    use crate::folder::tests::{index, map};
    use crate::folder::{Folder, HERE, PREVIOUS, Writer};
    use crate::index::Problem;
    use camino::Utf8Path;

    const PATH: &str = "cluster/things.x.io/a.yaml";

    /// A backup with a text, that could not read these kinds; where an earlier one is kept.
    fn backup(folder: &Utf8Path, text: &str, unread: &[&str]) -> Option<String> {
        let writer = Writer::begin(folder, None).unwrap();
        writer.object(PATH, &map(text), false).unwrap();
        let mut index = index();
        let problem = |what: &&str| Problem { what: (*what).into(), why: "500".into(), ..Problem::default() };
        index.problems = unread.iter().map(problem).collect();
        writer.finish(index).unwrap().previous
    }

    fn text(folder: &Utf8Path) -> String {
        Folder::open(folder, None, false).unwrap().object(PATH).unwrap()["data"]["text"].to_string()
    }

    // A conversion webhook is dead while the nightly backup runs, and the next night, too: the last whole backup stays
    // beside the partial ones, can be restored from there, and goes when there is a whole one again.
    #[test]
    fn a_partial_backup_leaves_the_whole_one() {
        let keep = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(keep.path()).unwrap();
        assert_eq!(backup(dir, "first", &[]), None);
        for (name, unread) in [("second", vec!["things.x.io"]), ("third", vec!["things.x.io", "b"])] {
            assert_eq!(backup(dir, name, &unread).as_deref(), Some(PREVIOUS));
            assert_eq!(text(dir), format!("{name:?}"));
            assert_eq!(text(&dir.join(PREVIOUS)), "\"first\"");
        }
        assert_eq!(backup(dir, "fourth", &[]), None);
        assert_eq!(text(dir), "\"fourth\"");
        assert!(!dir.join(PREVIOUS).exists() && !dir.join(".new").exists());
    }

    // What two partial ones both lack is no reason to keep the older; a process that died between the exchange and the
    // keeping loses nothing.
    #[test]
    fn a_death_in_between_costs_no_backup() {
        let keep = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(keep.path()).unwrap();
        backup(dir, "first", &["a"]);
        assert_eq!(backup(dir, "second", &["a"]), None);
        assert!(!dir.join(PREVIOUS).exists());
        assert_eq!(backup(dir, "whole", &[]), None);
        assert!(backup(dir, "partial", &["a"]).is_some());
        std::fs::rename(dir.join(PREVIOUS), dir.join(".new")).unwrap();
        drop(Writer::begin(dir, None).unwrap());
        assert_eq!(text(&dir.join(PREVIOUS)), "\"whole\"");
        assert!(dir.join(HERE).exists());
    }

    // Cron and a person back up into one folder at once: the second is told who is at work, and the first is whole.
    #[test]
    fn one_backup_at_a_time() {
        let keep = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(keep.path()).unwrap();
        let first = Writer::begin(dir, None).unwrap();
        first.object(PATH, &map("first"), false).unwrap();
        let error = Writer::begin(dir, None).err().unwrap();
        assert!(matches!(&error, Error::BeingWritten { pid, .. } if *pid == std::process::id().to_string()));
        assert!(error.to_string().contains(dir.as_str()), "{error}");
        first.finish(index()).unwrap();
        assert_eq!(text(dir), "\"first\"");
        Writer::begin(dir, None).unwrap();
    }
}
