//! Reading files and folders of this machine, and copying them: bounded, blocking (callers use a blocking thread).

use super::durable::{self, PRIVATE_FILE};
use crate::Progress;
use crate::fault::{Fault, Outcome};
use crate::host::{FileKind, FileStat};
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::host::DiskFacts;
use rustix::fs::StatVfsMountFlags;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

/// Most bytes that one `Read` returns.
pub(crate) const MAX_READ_BYTES: u64 = 32 << 20;
/// Most names that one `List` returns.
const MAX_NAMES: usize = 10_000;
/// Unit of copying and hashing.
const CHUNK_BYTES: usize = 1 << 20;

/// State of a path, its last symlink not followed; none = does not exist.
pub(crate) fn stat(path: &Utf8Path) -> Outcome<Option<FileStat>> {
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(Fault::io(format!("stat {path}"), &e)),
    };
    let kind = match found.file_type() {
        t if t.is_file() => FileKind::File,
        t if t.is_dir() => FileKind::Dir,
        t if t.is_symlink() => FileKind::Symlink,
        _ => FileKind::Other,
    };
    Ok(Some(FileStat {
        kind,
        size_bytes: found.len(),
        mode: found.mode() & 0o7777,
        modified_ms: found.mtime().saturating_mul(1000).saturating_add(found.mtime_nsec() / 1_000_000),
        device: found.dev(),
        is_mount_point: is_mount_point(path, found.dev()),
    }))
}

/// Whether something is mounted at a path: its device differs from its parent's, or (bind mounts) the kernel lists it.
fn is_mount_point(path: &Utf8Path, device: u64) -> bool {
    let Some(parent) = path.parent() else { return true };
    if parent.metadata().is_ok_and(|p| p.dev() != device) {
        return true;
    }
    let Ok(real) = path.canonicalize_utf8() else { return false };
    read_bounded("/proc/self/mountinfo".into(), 4 << 20).is_ok_and(|text| {
        String::from_utf8_lossy(&text).lines().any(|l| mounted_at(l).is_some_and(|m| m == real))
    })
}

/// The mount point of a `mountinfo` line (proc(5): fifth field, blanks as octal escapes).
fn mounted_at(line: &str) -> Option<Utf8PathBuf> {
    let field = line.split(' ').nth(4)?;
    let unescaped = field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
    Some(unescaped.into())
}

fn read_bounded(path: &Utf8Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(max_bytes).read_to_end(&mut content)?;
    Ok(content)
}

/// At most `max_bytes` of a file, from its end when `tail`.
pub(crate) fn read(path: &Utf8Path, max_bytes: u64, tail: bool) -> Outcome<Vec<u8>> {
    let failed = |e: io::Error| Fault::io(format!("read {path}"), &e);
    let mut file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(Fault::refused(format!("read {path}: not a regular file")));
    }
    let max_bytes = max_bytes.min(MAX_READ_BYTES);
    if tail && found.len() > max_bytes {
        file.seek(SeekFrom::Start(found.len() - max_bytes)).map_err(failed)?;
    }
    let mut content = Vec::new();
    file.take(max_bytes).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// Names in a folder, sorted. Names that are not UTF-8 are left out: nothing of a control plane has such a name.
pub(crate) fn list(path: &Utf8Path) -> Outcome<Vec<String>> {
    let failed = |e: &io::Error| Fault::io(format!("list {path}"), e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| failed(&e))? {
        if let Ok(name) = entry.map_err(|e| failed(&e))?.file_name().into_string() {
            names.push(name);
        }
        if names.len() > MAX_NAMES {
            return Err(Fault::refused(format!("list {path}: more than {MAX_NAMES} names")));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Space on the file system a path, or its nearest existing parent, lies on.
pub(crate) fn disk(path: &Utf8Path) -> Outcome<DiskFacts> {
    let there = path.ancestors().find(|a| a.exists()).unwrap_or(Utf8Path::new("/"));
    let failed = |e: &io::Error| Fault::io(format!("ask for the space at {there}"), e);
    let space = rustix::fs::statvfs(there.as_str()).map_err(|e| failed(&e.into()))?;
    let device = there.metadata().map_err(|e| failed(&e))?.dev();
    Ok(DiskFacts {
        free_bytes: space.f_bfree.saturating_mul(space.f_frsize),
        total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
        free_inodes: (space.f_files > 0).then_some(space.f_ffree),
        read_only: space.f_flag.contains(StatVfsMountFlags::RDONLY),
        device,
    })
}

/// SHA-256 (hex) of the first `bytes` of a file.
pub(crate) fn sha256_of(path: &Utf8Path, bytes: u64) -> Outcome<String> {
    let failed = |e: &io::Error| Fault::io(format!("read {path}"), e);
    let mut file = File::open(path).map_err(|e| failed(&e))?.take(bytes);
    let mut sum = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut seen = 0;
    loop {
        let n = file.read(&mut chunk).map_err(|e| failed(&e))?;
        if n == 0 {
            break;
        }
        sum.update(chunk.get(..n).unwrap_or_default());
        seen += n as u64;
    }
    if seen != bytes {
        return Err(Fault::failed(format!("read {path}: it ended after {seen} of {bytes} bytes")));
    }
    Ok(hex(&sum.finalize()))
}

/// Lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Copies a file: shared blocks where the file system can (reflink), holes kept, mode 0600, synced, renamed into place.
/// The copy never shares an inode with the original: one of the two may be written to later.
pub(crate) fn copy(from: &Utf8Path, to: &Utf8Path, progress: &Progress) -> Outcome<()> {
    if from == to {
        return File::open(to).and_then(|f| f.sync_all()).map_err(|e| Fault::io(format!("sync {to}"), &e));
    }
    let source = File::open(from).map_err(|e| Fault::io(format!("open {from}"), &e))?;
    let part: Utf8PathBuf = format!("{to}.part").into();
    let target = durable::create(&part, PRIVATE_FILE)?;
    copy_content(&source, from, &target, &part, progress)?;
    durable::publish(&target, &part, to)
}

/// Copies the whole content of an open file into an empty one, holes kept.
pub(crate) fn copy_content(
    source: &File,
    from: &Utf8Path,
    target: &File,
    to: &Utf8Path,
    progress: &Progress,
) -> Outcome<()> {
    let failed = |e: io::Error| Fault::io(format!("copy {from} to {to}"), &e);
    let total = source.metadata().map_err(failed)?.len();
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        progress(total, total);
        return Ok(());
    }
    let mut done = 0;
    while let Some((start, end)) = next_data(source, done, total).map_err(failed)? {
        copy_range(source, target, start, end, &mut |at| progress(at, total)).map_err(failed)?;
        done = end;
    }
    target.set_len(total).map_err(failed)?;
    let now = source.metadata().map_err(failed)?.len();
    if now != total {
        return Err(Fault::failed(format!(
            "copy {from} to {to}: its size changed from {total} to {now} bytes"
        )));
    }
    progress(total, total);
    Ok(())
}

/// The next range that holds data, from `at` on; none = only holes are left.
fn next_data(file: &File, at: u64, total: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::{SeekFrom as Seek, seek};
    if at >= total {
        return Ok(None);
    }
    let start = match seek(file, Seek::Data(at)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        // The file system does not tell holes: all of it is data.
        Err(rustix::io::Errno::INVAL) => return Ok(Some((at, total))),
        Err(e) => return Err(e.into()),
    };
    let end = seek(file, Seek::Hole(start))?;
    Ok((start < total).then_some((start, end.min(total))))
}

fn copy_range(source: &File, target: &File, start: u64, end: u64, at: &mut dyn FnMut(u64)) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = start;
    while offset < end {
        let want = usize::try_from(end - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let room = chunk.get_mut(..want).unwrap_or_default();
        let n = source.read_at(room, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target.write_all_at(chunk.get(..n).unwrap_or_default(), offset)?;
        offset += n as u64;
        at(offset);
    }
    Ok(())
}
