//! Where the test bed keeps what it made, and the locks that keep two users of it apart.
//!
//! ```text
//! CACHE/bin/NAME-VERSION/   components, one folder each, with a .stamp of what they were built from
//! CACHE/rootfs/             Debian by debootstrap, untouched
//! CACHE/base/{root,var}     the base of every host: rootfs, components, units, images
//! CACHE/sets/KIND/          saved clusters: stopped hosts, keys, kubeconfig
//! CACHE/live/               the one cluster that runs now (`live-1` in lane 1, and so on)
//! ```
//! A **lane** is where one cluster runs at a time. Lane 0 is in the machine's own network. Any other must be in a network
//! namespace of its own, since bridge and addresses are the same in all of them: `cargo xtask test` sees to that.

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::{self, File, TryLockError};

/// The environment variable that names the cache folder.
pub const ENV: &str = "REKINDLE_TESTBED";

/// The cache folder: `$REKINDLE_TESTBED`, else `$HOME/.cache/rekindle-testbed`.
///
/// # Errors
/// When neither variable is set, or the path is not UTF-8.
pub fn root() -> Result<Utf8PathBuf> {
    if let Some(path) = std::env::var_os(ENV).filter(|v| !v.is_empty()) {
        return Utf8PathBuf::try_from(std::path::PathBuf::from(path))
            .with_context(|| format!("{ENV} is not UTF-8"));
    }
    let home = std::env::var("HOME").with_context(|| format!("neither {ENV} nor HOME is set"))?;
    Ok(Utf8PathBuf::from(home).join(".cache/rekindle-testbed"))
}

/// The environment variable that says in which lane this process runs; without it, lane 0.
pub const LANE_ENV: &str = "REKINDLE_TESTBED_LANE";

/// What the names of this lane's things end with: nothing in lane 0, `-1` in lane 1.
///
/// # Errors
/// When the variable is not a number.
pub fn lane_suffix() -> Result<String> {
    let lane = std::env::var(LANE_ENV).unwrap_or_default();
    match lane.as_str() {
        "" | "0" => Ok(String::new()),
        lane if lane.parse::<u8>().is_ok() => Ok(format!("-{lane}")),
        lane => anyhow::bail!("{LANE_ENV} is {lane:?}, not a number"),
    }
}

/// The numbers of the lanes, but for lane 0, in which a cluster was left.
///
/// # Errors
/// When the cache folder can't be listed.
pub fn other_lanes() -> Result<Vec<u8>> {
    let root = root()?;
    let mut lanes = Vec::new();
    for entry in root.read_dir_utf8().with_context(|| format!("cannot list {root}"))? {
        let entry = entry.with_context(|| format!("cannot list {root}"))?;
        let lane = entry.file_name().strip_prefix("live-").and_then(|lane| lane.parse::<u8>().ok());
        lanes.extend(lane.filter(|_| entry.path().is_dir()));
    }
    Ok(lanes)
}

/// The folder of the cluster that runs in this lane.
///
/// # Errors
/// When there is no cache folder to speak of, or the lane is none.
pub fn live() -> Result<Utf8PathBuf> {
    Ok(root()?.join(format!("live{}", lane_suffix()?)))
}

/// A held lock; dropping it lets the next one in. The kernel drops it when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until no other process has a cluster in this lane.
    ///
    /// # Errors
    /// As [`Lock::wait`].
    pub fn lane() -> Result<Self> {
        Self::wait(&format!("live{}", lane_suffix()?))
    }

    /// Waits for the lock `NAME.lock` in the cache folder, saying so when another process holds it.
    ///
    /// # Errors
    /// When the lock file cannot be made or locked.
    pub fn wait(name: &str) -> Result<Self> {
        let root = root()?;
        fs::create_dir_all(&root).with_context(|| format!("cannot make {root}"))?;
        let path = root.join(format!("{name}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {path}"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                crate::cmd::note(&format!("waiting for another process that holds {path}"));
                file.lock().with_context(|| format!("cannot lock {path}"))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {path}"));
            }
        }
        Ok(Self { _file: file })
    }
}

/// Whether `dir` was made from exactly this `stamp`.
#[must_use]
pub fn is_stamped(dir: &Utf8Path, stamp: &str) -> bool {
    fs::read_to_string(dir.join(".stamp")).is_ok_and(|found| found == stamp)
}

/// The folder in which the next `dir` is made.
#[must_use]
pub fn aside(dir: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{dir}.new"))
}

/// Makes `dir` through a folder aside: `make` fills it, then it is stamped and renamed, so that a folder in
/// place is always a whole one. An older one is removed.
///
/// # Errors
/// When `make` fails or the folder cannot be written; the old one is then still there.
pub fn make_aside(dir: &Utf8Path, stamp: &str, make: impl FnOnce(&Utf8Path) -> Result<()>) -> Result<()> {
    let aside = aside(dir);
    remove_tree(&aside)?;
    fs::create_dir_all(&aside).with_context(|| format!("cannot make {aside}"))?;
    make(&aside)?;
    write(&aside.join(".stamp"), stamp)?;
    remove_tree(dir)?;
    fs::rename(&aside, dir).with_context(|| format!("cannot rename {aside} to {dir}"))
}

/// Removes a folder tree that may not be there.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove_tree(dir: &Utf8Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {dir}"))
        }
        _ => Ok(()),
    }
}

/// Writes a file, making the folders above it.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Utf8Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {parent}"))?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {path}"))
}
