//! A backup's folder as one tar archive, and back: `resources/index.json`, `resources/SHA256SUMS`, then the objects, with
//! the names they have in the folder. Unpacked by hand it is a folder as any other.

use crate::error::{Error, Result};
use crate::folder::{
    Folder, HERE, INDEX, INDEX_MAX_BYTES, OBJECT_MAX_BYTES, SUMS, SUMS_MAX_BYTES, create, is_object, make_dir,
};
use camino::Utf8Path;
use rekindle_vault::Identities;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::sync::Arc;

/// Writes a backup's folder as an archive. Memory does not grow with the backup.
///
/// # Errors
/// When the folder is no backup, or a file can't be read or written.
pub fn pack(folder: &Utf8Path, archive: &Utf8Path) -> Result<()> {
    let backup = Folder::open(folder, None, false)?;
    let to = create(archive).map_err(Error::local("write", archive))?;
    let mut tar = tar::Builder::new(BufWriter::new(to));
    for path in [INDEX, SUMS].into_iter().chain(backup.paths()) {
        let name = format!("{HERE}/{path}");
        let file = folder.join(&name);
        let from = File::open(&file).map_err(Error::local("read", &file))?;
        let size_bytes = from.metadata().map_err(Error::local("read", &file))?.len();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(size_bytes);
        tar.append_data(&mut header, &name, BufReader::new(from)).map_err(Error::local("pack", &file))?;
    }
    let mut to = tar.into_inner().map_err(Error::local("write", archive))?;
    to.flush().map_err(Error::local("write", archive))
}

/// Unpacks an archive into a folder that is new. Nothing but files of a backup is taken out of it, none larger than such a
/// file can be; whether they are as they were written [`Folder`] tells.
///
/// # Errors
/// When the archive is none, or holds something else; the folder may then hold a part of it.
pub fn unpack(archive: &Utf8Path, folder: &Utf8Path) -> Result<()> {
    let unread = || Error::local("read", archive);
    let from = File::open(archive).map_err(unread())?;
    let mut tar = tar::Archive::new(BufReader::new(from));
    for entry in tar.entries().map_err(unread())? {
        let mut entry = entry.map_err(unread())?;
        let name = entry.path_bytes().into_owned();
        let path =
            std::str::from_utf8(&name).ok().and_then(|name| name.strip_prefix(HERE)?.strip_prefix('/'));
        let known = path.and_then(|path| match path {
            INDEX => Some((path, INDEX_MAX_BYTES)),
            SUMS => Some((path, SUMS_MAX_BYTES)),
            _ => is_object(path).then_some((path, OBJECT_MAX_BYTES)),
        });
        let fits = |max_bytes: u64| entry.header().entry_type().is_file() && entry.size() <= max_bytes;
        let Some((path, max_bytes)) = known.filter(|(_, max_bytes)| fits(*max_bytes)) else {
            let name = String::from_utf8_lossy(&name).chars().take(200).collect::<String>();
            return Err(Error::folder(archive, format!("holds {name:?}, which is no file of a backup")));
        };
        let to = folder.join(HERE).join(path);
        make_dir(to.parent().unwrap_or(folder))?;
        let mut file = create(&to).map_err(Error::local("write", &to))?;
        io::copy(&mut Read::take(&mut entry, max_bytes), &mut file).map_err(Error::local("write", &to))?;
    }
    Ok(())
}

/// Unpacks an archive into a folder that is new, and reads every object in it, Secrets with `identities`: how many there are.
///
/// # Errors
/// As [`unpack`], and when a file is not as it was written, can't be decrypted, or is no object.
pub fn read(archive: &Utf8Path, folder: &Utf8Path, identities: Arc<Identities>) -> Result<u64> {
    unpack(archive, folder)?;
    let backup = Folder::open(folder, Some(identities), false)?;
    let mut objects = 0;
    for path in backup.paths() {
        backup.object(path)?;
        objects += 1;
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::written;

    // A backup in a vault is the folder, byte for byte: packed, unpacked, and read as it was.
    #[test]
    fn an_archive_is_the_folder() {
        let keep = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(keep.path()).unwrap();
        let long = format!("namespaces/shop/{}/{}.yaml", "k".repeat(120), "n".repeat(200));
        let paths = ["cluster/configmaps/a.yaml", &long];
        written(&dir.join("one"), &paths);
        pack(&dir.join("one"), &dir.join("tar")).unwrap();
        unpack(&dir.join("tar"), &dir.join("two")).unwrap();
        let (one, two) = (
            Folder::open(&dir.join("one"), None, false).unwrap(),
            Folder::open(&dir.join("two"), None, false).unwrap(),
        );
        assert_eq!(one.digest(), two.digest());
        for path in paths {
            assert_eq!(one.object(path).unwrap(), two.object(path).unwrap());
        }
    }

    // Whoever holds the signing key could still be wrong or worse: nothing is written outside the folder, no link is made.
    #[test]
    fn nothing_else_is_taken_out_of_an_archive() {
        let keep = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(keep.path()).unwrap();
        for (name, kind) in [
            ("resources/cluster/../../../x.yaml", tar::EntryType::Regular),
            ("/etc/passwd", tar::EntryType::Regular),
            ("resources/other", tar::EntryType::Regular),
            ("resources/cluster/x/a.yaml", tar::EntryType::Symlink),
            ("resources/cluster/x/a.yaml", tar::EntryType::Link),
        ] {
            let mut header = tar::Header::new_gnu();
            // as a writer that does not check its names would
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_cksum();
            let mut tar = tar::Builder::new(Vec::new());
            tar.append(&header, io::empty()).unwrap();
            let archive = dir.join("hostile.tar");
            std::fs::write(&archive, tar.into_inner().unwrap()).unwrap();
            let error = unpack(&archive, &dir.join("out")).unwrap_err().to_string();
            assert!(error.contains("no file of a backup"), "{name}: {error}");
            assert!(!dir.join("out").exists());
        }
    }
}
