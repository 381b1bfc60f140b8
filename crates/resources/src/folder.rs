//! The folder of a backup: written aside in `.new`, the index last, and put in place by one rename.
//!
//! ```text
//! resources/index.json       what it is (`crate::index`); a folder without it is no backup
//! resources/SHA256SUMS       a line for each object, as `sha256sum -c` reads them
//! resources/cluster/KIND/NAME.yaml
//! resources/namespaces/NAMESPACE/KIND/NAME.yaml       Secrets: NAME.yaml.age
//! resources.previous/        an earlier backup, where the one in `resources` could not read what that one has
//! .new/                      a backup being written, or what is left of a killed one
//! .lock                      locked while a backup is written
//! ```
//!
//! What else lies in the folder (`.git`) stays.

use crate::error::{Error, Result};
use crate::index::Index;
use crate::paths::{self, hex};
use crate::{placing, yaml};
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_vault::{Identities, Recipients};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::{Arc, Mutex};

pub(crate) const INDEX: &str = "index.json";
pub(crate) const SUMS: &str = "SHA256SUMS";
pub(crate) const HERE: &str = "resources";
pub(crate) const PREVIOUS: &str = "resources.previous";
pub(crate) const NEW: &str = ".new";
/// Ending of an encrypted file.
pub(crate) const SEALED: &str = ".age";
/// An object has at most 1.5 MiB in etcd; as YAML it has more bytes, but not tenfold.
pub(crate) const OBJECT_MAX_BYTES: u64 = 16 << 20;
/// A million kinds and reasons are no index, and ten million lines no list of objects.
pub(crate) const INDEX_MAX_BYTES: u64 = 64 << 20;
pub(crate) const SUMS_MAX_BYTES: u64 = 2 << 30;

/// A backup being written.
pub(crate) struct Writer {
    folder: Utf8PathBuf,
    new: Utf8PathBuf,
    recipients: Option<Recipients>,
    made: Mutex<HashSet<Utf8PathBuf>>,
    sums: Mutex<BTreeMap<String, [u8; 32]>>,
    /// Held until the backup is in its place.
    _turn: File,
}

impl Writer {
    /// Begins a backup in a folder that does not exist, is empty, or holds an earlier backup (which stays until the new
    /// one is complete). Other files beside it, such as `.git`, stay.
    pub(crate) fn begin(folder: &Utf8Path, recipients: Option<Recipients>) -> Result<Self> {
        make_dir(folder)?;
        let turn = placing::take_turn(folder)?;
        let (here, new) = (folder.join(HERE), folder.join(NEW));
        if here.exists() && !here.join(INDEX).exists() {
            return Err(Error::folder(
                &here,
                format!("has no {INDEX}: it is no backup, and would be replaced"),
            ));
        }
        if new.join(INDEX).exists() && here.exists() {
            placing::settle(folder)?; // cut off when only that was left to do
        }
        remove_tree(&new)?;
        make_dir(&new)?;
        Ok(Self {
            folder: folder.to_owned(),
            new,
            recipients,
            made: Mutex::default(),
            sums: Mutex::default(),
            _turn: turn,
        })
    }

    /// Writes one object. `secret`: encrypted, where recipients are known.
    pub(crate) fn object(&self, path: &str, object: &Value, secret: bool) -> Result<()> {
        let mut content = yaml::write(object).into_bytes();
        let mut path = path.to_owned();
        if let (true, Some(recipients)) = (secret, &self.recipients) {
            let crypt =
                |error| Error::Crypt { doing: "encrypt", path: path.clone(), source: Box::new(error) };
            content = recipients.encrypt(&path, &content).map_err(crypt)?;
            path.push_str(SEALED);
        }
        let to = self.new.join(&path);
        self.make_parent(&to)?;
        create(&to).and_then(|mut file| file.write_all(&content)).map_err(Error::local("write", &to))?;
        let digest = Sha256::digest(&content).into();
        lock(&self.sums).insert(path, digest);
        Ok(())
    }

    /// Forgets what was written of a kind (in a namespace, or all): the list it came from is read anew.
    pub(crate) fn forget(&self, kind: &str, namespace: &str) -> Result<()> {
        let mut sums = lock(&self.sums);
        let is_of = |path: &str| {
            paths::parse(path).is_some_and(|place| {
                place.kind == kind && (namespace.is_empty() || place.namespace == namespace)
            })
        };
        for path in sums.keys().filter(|path| is_of(path)) {
            let path = self.new.join(path);
            std::fs::remove_file(&path).map_err(Error::local("remove", &path))?;
        }
        sums.retain(|path, _| !is_of(path));
        Ok(())
    }

    /// Syncs everything, writes the list and the index, and puts the backup in the place of an earlier one. That one stays
    /// beside it if this one is partial and lacks what it has.
    pub(crate) fn finish(self, mut index: Index) -> Result<Index> {
        let sums = self.sums.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = String::new();
        for (path, digest) in &sums {
            text.push_str(&hex(digest));
            text.push_str("  ");
            text.push_str(path);
            text.push('\n');
        }
        index.objects = sums.len() as u64;
        index.previous = placing::kept_beside(&self.folder, &index);
        index.sums_sha256 = hex(&Sha256::digest(text.as_bytes()));
        write_synced(&self.new.join(SUMS), text.as_bytes())?;
        sync_file_system(&self.new)?;
        let path = self.new.join(INDEX);
        let mut json = serde_json::to_vec_pretty(&index)
            .map_err(|error| Error::folder(&path, format!("cannot be written: {error}")))?;
        json.push(b'\n');
        let aside = self.new.join(format!("{INDEX}.part"));
        write_synced(&aside, &json)?;
        rename(&aside, &path)?;
        sync_dir(&self.new)?;
        placing::put_in_place(&self.folder)?;
        Ok(index)
    }

    fn make_parent(&self, path: &Utf8Path) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if lock(&self.made).contains(parent) {
            return Ok(());
        }
        make_dir(parent)?;
        lock(&self.made).insert(parent.to_owned());
        Ok(())
    }
}

/// A backup that is read.
pub struct Folder {
    root: Utf8PathBuf,
    /// What it says of itself.
    pub index: Index,
    identities: Option<Arc<Identities>>,
    sums: BTreeMap<String, [u8; 32]>,
    accept_edited: bool,
}

impl Folder {
    /// Opens a backup: the one in `resources` of this folder, or the one that this folder is (`resources.previous`).
    /// `identities` read its Secrets; `accept_edited`: files that were changed by hand count, too.
    ///
    /// # Errors
    /// [`Error::Folder`] when it is none, or its list of files is not the one it was written with.
    pub fn open(folder: &Utf8Path, identities: Option<Arc<Identities>>, accept_edited: bool) -> Result<Self> {
        let root = if folder.join(INDEX).exists() { folder.to_owned() } else { folder.join(HERE) };
        let path = root.join(INDEX);
        if !path.exists() {
            let why = if folder.join(NEW).exists() { "a backup into it was cut off" } else { "no backup" };
            return Err(Error::folder(folder, format!("{why}: there is no {HERE}/{INDEX}")));
        }
        let text = read_bounded(&path, INDEX_MAX_BYTES)?;
        let index: Index =
            serde_json::from_slice(&text).map_err(|e| Error::folder(&path, format!("is no index: {e}")))?;
        if index.api_version != rekindle_model::API_VERSION || index.kind != crate::index::KIND {
            return Err(Error::folder(&path, format!("is a {} of {}", index.kind, index.api_version)));
        }
        let path = root.join(SUMS);
        let text = read_bounded(&path, SUMS_MAX_BYTES)?;
        if hex(&Sha256::digest(&text)) != index.sums_sha256 {
            return Err(Error::folder(&path, format!("is not the list that {INDEX} was written with")));
        }
        let sums = parse_sums(&text).ok_or_else(|| Error::folder(&path, "is no list of digests"))?;
        Ok(Self { root, index, identities, sums, accept_edited })
    }

    /// The paths of all objects, sorted; `.age` at the end of those that are encrypted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.sums.keys().map(String::as_str)
    }

    /// Whether there is a file of this path.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.sums.contains_key(path)
    }

    /// The SHA-256 of its list of files: which backup this is.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.index.sums_sha256
    }

    /// Whether Secrets in it can be read.
    #[must_use]
    pub fn can_decrypt(&self) -> bool {
        self.identities.is_some()
    }

    /// Reads an object.
    ///
    /// # Errors
    /// When the file is not there, is not as it was written (unless edited ones count), or can't be decrypted.
    pub fn object(&self, path: &str) -> Result<Value> {
        let file = self.root.join(path);
        let mut content = read_bounded(&file, OBJECT_MAX_BYTES)?;
        let digest: [u8; 32] = Sha256::digest(&content).into();
        if !self.accept_edited && self.sums.get(path) != Some(&digest) {
            return Err(Error::folder(&file, "is not as it was written"));
        }
        if path.ends_with(SEALED) {
            let Some(identities) = &self.identities else {
                return Err(Error::folder(&file, "is encrypted, and no identity was given"));
            };
            let crypt =
                |error| Error::Crypt { doing: "decrypt", path: path.to_owned(), source: Box::new(error) };
            content = identities.decrypt(path, &content, OBJECT_MAX_BYTES).map_err(crypt)?;
        }
        yaml::read(&content).ok_or_else(|| Error::folder(&file, "is no object"))
    }
}

/// Whether a path is one of an object's file: below one of the two folders, and not out of it again.
pub(crate) fn is_object(path: &str) -> bool {
    let below = path.starts_with("cluster/") || path.starts_with("namespaces/");
    below && !path.split('/').any(|part| matches!(part, "" | "." | ".."))
}

/// `DIGEST  PATH` a line; paths only below the two folders, and none that leaves them.
fn parse_sums(text: &[u8]) -> Option<BTreeMap<String, [u8; 32]>> {
    let line = |line: &str| {
        let (digest, path) = line.split_once("  ")?;
        is_object(path).then_some(())?;
        let byte = |at: usize| u8::from_str_radix(digest.get(2 * at..2 * at + 2)?, 16).ok();
        let mut bytes = [0; 32];
        for (at, to) in bytes.iter_mut().enumerate() {
            *to = byte(at)?;
        }
        Some((path.to_owned(), bytes))
    };
    std::str::from_utf8(text).ok()?.lines().map(line).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(crate) fn read_bounded(path: &Utf8Path, max_bytes: u64) -> Result<Vec<u8>> {
    let read = || {
        let mut content = Vec::new();
        File::open(path)?.take(max_bytes + 1).read_to_end(&mut content)?;
        if content.len() as u64 > max_bytes { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(content) }
    };
    read().map_err(Error::local("read", path))
}

pub(crate) fn create(path: &Utf8Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

pub(crate) fn make_dir(path: &Utf8Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::local("make", path))
}

pub(crate) fn write_synced(path: &Utf8Path, content: &[u8]) -> Result<()> {
    let write = |mut file: File| file.write_all(content).and_then(|()| file.sync_all());
    create(path).and_then(write).map_err(Error::local("write", path))
}

fn rename(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    std::fs::rename(from, to).map_err(Error::local("make", to))
}

pub(crate) fn remove_tree(path: &Utf8Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::local("remove", path)(error)),
        _ => Ok(()),
    }
}

pub(crate) fn sync_dir(path: &Utf8Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::local("sync", path))
}

/// One sync for all the small files: one for each would cost more than everything else.
fn sync_file_system(path: &Utf8Path) -> Result<()> {
    let sync = || -> io::Result<()> { Ok(rustix::fs::syncfs(File::open(path)?)?) };
    sync().map_err(Error::local("sync", path))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A backup with one small object at each path.
    pub(crate) fn written(folder: &Utf8Path, paths: &[&str]) {
        let writer = Writer::begin(folder, None).unwrap();
        for path in paths {
            writer.object(path, &map(path), false).unwrap();
        }
        writer.finish(index()).unwrap();
    }

    pub(crate) fn index() -> Index {
        serde_json::from_value(json!({
            "apiVersion": rekindle_model::API_VERSION, "kind": "ResourceBackup", "program": "test", "startedMs": 0, "endedMs": 0,
            "cluster": {"uid": null, "server": "", "version": "", "provider": null}, "selection": {}, "recipients": [],
            "objects": 0, "kinds": [], "leftOut": [], "problems": [], "sumsSha256": "",
        }))
        .unwrap()
    }

    pub(crate) fn map(text: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"text": text}})
    }

    // A backup that is killed on the way leaves the earlier one as it was, and is never taken for one itself. A file that
    // was changed by hand is told; so is a list of files of another backup.
    #[test]
    fn a_folder_is_a_whole_backup_or_none() {
        let keep = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(keep.path()).unwrap();
        let path = "cluster/configmaps/a.yaml";
        let killed = Writer::begin(dir, None).unwrap();
        killed.object(path, &map("none"), false).unwrap();
        drop(killed);
        let error = Folder::open(dir, None, false).err().unwrap().to_string();
        assert!(error.contains("cut off"), "{error}");

        std::fs::write(dir.join("README"), "mine").unwrap();
        for text in ["first", "second"] {
            let writer = Writer::begin(dir, None).unwrap();
            writer.object(path, &map(text), false).unwrap();
            assert_eq!(Writer::finish(writer, index()).unwrap().objects, 1);
            let killed = Writer::begin(dir, None).unwrap();
            killed.object("cluster/configmaps/b.yaml", &map("killed"), false).unwrap();
            drop(killed);
            let folder = Folder::open(dir, None, false).unwrap();
            assert_eq!(folder.paths().collect::<Vec<_>>(), [path]);
            assert_eq!(folder.object(path).unwrap(), map(text));
        }
        assert_eq!(std::fs::read_to_string(dir.join("README")).unwrap(), "mine");

        let file = dir.join(HERE).join(path);
        std::fs::write(&file, yaml::write(&map("edited"))).unwrap();
        assert!(Folder::open(dir, None, false).unwrap().object(path).is_err());
        assert_eq!(Folder::open(dir, None, true).unwrap().object(path).unwrap(), map("edited"));
        std::fs::write(dir.join(HERE).join(SUMS), "").unwrap();
        assert!(matches!(Folder::open(dir, None, true), Err(Error::Folder { .. })));
    }

    #[test]
    fn a_list_of_digests_names_files_of_the_backup_only() {
        let digest = "00".repeat(32);
        assert!(parse_sums(format!("{digest}  cluster/x/a.yaml\n").as_bytes()).is_some());
        for path in ["/etc/passwd", "cluster/../../x", "cluster//x", "x", ""] {
            assert!(parse_sums(format!("{digest}  {path}\n").as_bytes()).is_none(), "{path}");
        }
        assert!(parse_sums(b"00  cluster/x").is_none());
        assert!(parse_sums(b"\xff").is_none());
    }
}
