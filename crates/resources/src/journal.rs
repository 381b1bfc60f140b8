//! What a restore keeps of itself, so that it survives its own death: a folder with the request, a journal, and every
//! object as it was before it was changed.
//!
//! The typed steps of `rekindle-run` do not fit here: a restore has tens of thousands of like steps that go on side by side,
//! and two syncs for each would take longer than the work. What they promise is kept another way. Before objects are touched,
//! a line names them and is synced, some hundreds at a time; what became of each is a line behind. After a death each object
//! named and not concluded is looked at again, and every action is such that doing it again changes nothing.
//!
//! ```text
//! <state>/resources/<id>/request.json    what was asked for
//!                        journal.jsonl   {"intend":[path,...]}, {"kept":{...}} and {"done":{"path":...,"result":...}}
//!                        before/N.json   objects as they were before they were updated or recreated
//!                        report.json     the last report
//! ```

use crate::error::{Error, Result};
use crate::folder::write_synced;
use crate::plan::Choices;
use camino::{Utf8Path, Utf8PathBuf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::{Mutex, PoisonError};

const REQUEST: &str = "request.json";
const JOURNAL: &str = "journal.jsonl";
const REPORT: &str = "report.json";
/// A line names at most some hundreds of paths.
const LINE_MAX_BYTES: u64 = 1 << 20;
const REQUEST_MAX_BYTES: u64 = 16 << 20;

/// What was asked for, as far as `resume` and `undo` need it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The backup.
    pub folder: Utf8PathBuf,
    /// Which backup it was.
    pub digest: String,
    /// Files that were changed by hand count, too.
    pub accept_edited: bool,
    /// File with the identity that reads its Secrets.
    pub identity: Option<Utf8PathBuf>,
    /// kubeconfig and context.
    pub kubeconfig: Option<Utf8PathBuf>,
    /// Its context.
    pub context: Option<String>,
    /// URL of the API server.
    pub server: String,
    /// UID of the cluster's Namespace `kube-system`.
    pub cluster_uid: Option<String>,
    /// How.
    pub choices: Choices,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It was not there and is made.
    Created,
    /// It was there, different, and is changed.
    Updated,
    /// It was there, different, and is made anew.
    Recreated,
    /// It was there as it should be.
    Unchanged,
    /// It was there, different, and stays.
    Skipped,
    /// It is in the backup, and is not restored for the reason in its notes.
    LeftOut,
    /// It is not restored, and should be.
    Failed,
}

/// A line behind an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Done {
    pub(crate) path: String,
    pub(crate) result: Outcome,
    /// UID that it has now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    /// Number of the file with the object as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    Intend(Vec<String>),
    Kept { path: String, before: u64 },
    Done(Done),
}

/// A restore that goes on, or went on.
pub struct Run {
    dir: Utf8PathBuf,
    /// What was asked for.
    pub request: Request,
    journal: Mutex<File>,
    befores: Mutex<u64>,
    /// Objects that an earlier attempt was about to make.
    pub(crate) intended: BTreeSet<String>,
    /// Objects that were about to be changed, with the number of the file as they were.
    kept: Mutex<HashMap<String, u64>>,
    /// What became of objects, the last word of each.
    pub(crate) done: HashMap<String, Done>,
}

impl Run {
    /// Begins one below the state folder.
    ///
    /// # Errors
    /// [`Error::Local`].
    pub fn begin(state_dir: &Utf8Path, request: Request) -> Result<Self> {
        let dir = runs_dir(state_dir).join(uuid::Uuid::now_v7().to_string());
        let befores = dir.join("before");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&befores)
            .map_err(Error::local("make", &befores))?;
        let path = dir.join(REQUEST);
        let text = serde_json::to_vec_pretty(&request)
            .map_err(|error| Error::folder(&path, format!("cannot be written: {error}")))?;
        write_synced(&path, &text)?;
        let journal = open_journal(&dir)?;
        for dir in [&dir, &runs_dir(state_dir)] {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::local("sync", dir))?;
        }
        Ok(Self {
            dir,
            request,
            journal: Mutex::new(journal),
            befores: Mutex::new(0),
            intended: BTreeSet::new(),
            kept: Mutex::default(),
            done: HashMap::new(),
        })
    }

    /// Takes up an earlier one, by its id or the end of it; none = the newest.
    ///
    /// # Errors
    /// When there is none such, several, or another process works on it.
    pub fn open(state_dir: &Utf8Path, id: Option<&str>) -> Result<Self> {
        let runs = runs_dir(state_dir);
        let dir = runs.join(find(&runs, id)?);
        let path = dir.join(REQUEST);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(REQUEST_MAX_BYTES).read_to_end(&mut text));
        read.map_err(Error::local("read", &path))?;
        let request = serde_json::from_slice(&text)
            .map_err(|error| Error::folder(&path, format!("is no request: {error}")))?;
        let journal = open_journal(&dir)?;
        let read = read_journal(&dir.join(JOURNAL))?;
        let befores = read.kept.values().max().map_or(0, |last| last + 1);
        // a file may have been written whose line was not: its number is not given again
        let befores = (befores..).find(|n| !before_path(&dir, *n).exists()).unwrap_or(befores);
        let Read { intended, kept, done } = read;
        let (journal, befores, kept) = (Mutex::new(journal), Mutex::new(befores), Mutex::new(kept));
        Ok(Self { dir, request, journal, befores, intended, kept, done })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.dir.file_name().unwrap_or_default()
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// Names objects before they are made; synced.
    pub(crate) fn intend(&self, paths: Vec<String>) -> Result<()> {
        self.append(&Line::Intend(paths), true)
    }

    /// Concludes an object. Not synced: after a power loss it is looked at again.
    pub(crate) fn done(&self, done: Done) -> Result<()> {
        self.append(&Line::Done(done), false)
    }

    /// Keeps an object as it was, before it is changed; synced. The number of the file: the first one, when an earlier
    /// attempt kept it already.
    pub(crate) fn keep(&self, path: &str, object: &Value) -> Result<u64> {
        if let Some(number) = self.before(path) {
            return Ok(number);
        }
        let number = {
            let mut next = self.befores.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next - 1
        };
        write_synced(&before_path(&self.dir, number), object.to_string().as_bytes())?;
        self.append(&Line::Kept { path: path.to_owned(), before: number }, true)?;
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), number);
        Ok(number)
    }

    /// Number of the file with an object as it was; none when it was never about to be changed.
    pub(crate) fn before(&self, path: &str) -> Option<u64> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied()
    }

    /// Paths of all objects that were about to be changed.
    pub(crate) fn changed(&self) -> Vec<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// An object as it was.
    pub(crate) fn kept(&self, number: u64) -> Result<Value> {
        let path = before_path(&self.dir, number);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(REQUEST_MAX_BYTES).read_to_end(&mut text));
        read.map_err(Error::local("read", &path))?;
        serde_json::from_slice(&text).map_err(|error| Error::folder(&path, format!("is no object: {error}")))
    }

    /// Keeps the report.
    pub(crate) fn report(&self, report: &impl Serialize) -> Result<()> {
        let path = self.dir.join(REPORT);
        let text = serde_json::to_vec_pretty(report)
            .map_err(|error| Error::folder(&path, format!("cannot be written: {error}")))?;
        write_synced(&path, &text)
    }

    fn append(&self, line: &Line, synced: bool) -> Result<()> {
        let path = self.dir.join(JOURNAL);
        let mut text = serde_json::to_vec(line)
            .map_err(|error| Error::folder(&path, format!("cannot be written: {error}")))?;
        text.push(b'\n');
        let mut file = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let written = file.write_all(&text).and_then(|()| if synced { file.sync_data() } else { Ok(()) });
        written.map_err(Error::local("write", &path))
    }
}

fn runs_dir(state_dir: &Utf8Path) -> Utf8PathBuf {
    state_dir.join("resources")
}

fn before_path(dir: &Utf8Path, number: u64) -> Utf8PathBuf {
    dir.join(format!("before/{number}.json"))
}

/// Opens the journal for this process alone.
fn open_journal(dir: &Utf8Path) -> Result<File> {
    let path = dir.join(JOURNAL);
    let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(&path);
    let file = file.map_err(Error::local("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Busy { path: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(Error::local("lock", &path)(source)),
    }
}

fn find(runs: &Utf8Path, id: Option<&str>) -> Result<String> {
    let entries = runs.read_dir_utf8().map_err(Error::local("list", runs))?;
    let mut ids: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_owned()).collect();
    ids.sort();
    ids.retain(|found| id.is_none_or(|id| found.ends_with(id)));
    match (ids.len(), id) {
        (0, Some(id)) => Err(Error::folder(runs, format!("holds no restore {id}"))),
        (2.., Some(id)) => Err(Error::folder(runs, format!("holds several restores that end in {id}"))),
        // their names begin with the time
        _ => ids.pop().ok_or_else(|| Error::folder(runs, "holds no restores")),
    }
}

/// What a journal says.
#[derive(Default)]
struct Read {
    intended: BTreeSet<String>,
    kept: HashMap<String, u64>,
    done: HashMap<String, Done>,
}

/// A last line that was cut off was never relied upon; the next one begins on a line of its own.
fn read_journal(path: &Utf8Path) -> Result<Read> {
    let mut all = Read::default();
    let file = File::open(path).map_err(Error::local("read", path))?;
    let mut reader = BufReader::new(file);
    loop {
        let mut line = Vec::new();
        let read = reader.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line);
        if read.map_err(Error::local("read", path))? == 0 {
            return Ok(all);
        }
        match serde_json::from_slice(&line) {
            Ok(Line::Intend(paths)) => all.intended.extend(paths),
            Ok(Line::Kept { path, before }) => drop(all.kept.insert(path, before)),
            Ok(Line::Done(line)) => drop(all.done.insert(line.path.clone(), line)),
            Err(_) if line.last() != Some(&b'\n') => {
                // cut off by a death: end it, so that what comes behind can be read
                let ended = OpenOptions::new().append(true).open(path).and_then(|mut f| f.write_all(b"\n"));
                ended.map_err(Error::local("write", path))?;
            }
            // a line that was cut off, and ended afterwards
            Err(_) => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn request() -> Request {
        Request {
            folder: "/backup".into(),
            digest: "d".into(),
            accept_edited: false,
            identity: None,
            kubeconfig: None,
            context: None,
            server: "https://x".into(),
            cluster_uid: None,
            choices: Choices::default(),
        }
    }

    fn done(path: &str, result: Outcome) -> Done {
        Done { path: path.into(), result, uid: Some("u".into()), before: None, notes: Vec::new() }
    }

    // A restore dies in the middle of a line. What it concluded before is known to the next, what it was about to touch,
    // too; two processes never work on one.
    #[test]
    fn a_cut_journal_is_read_to_the_cut() {
        let keep = tempfile::tempdir().unwrap();
        let state = Utf8Path::from_path(keep.path()).unwrap();
        let run = Run::begin(state, request()).unwrap();
        run.intend(vec!["a".into(), "b".into(), "c".into()]).unwrap();
        run.done(done("a", Outcome::Created)).unwrap();
        assert_eq!(run.keep("c", &Value::from(7)).unwrap(), 0);
        assert!(matches!(Run::open(state, None), Err(Error::Busy { .. })));
        let journal = run.dir().join(JOURNAL);
        drop(run);
        let mut file = OpenOptions::new().append(true).open(&journal).unwrap();
        file.write_all(b"{\"done\":{\"path\":\"b\",\"resu").unwrap();

        let again = Run::open(state, None).unwrap();
        assert_eq!(again.intended.len(), 3);
        assert_eq!(again.done.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(again.kept(0).unwrap(), 7);
        assert_eq!(again.keep("c", &Value::Null).unwrap(), 0, "the first one counts");
        assert_eq!(again.keep("d", &Value::Null).unwrap(), 1);
        again.done(done("b", Outcome::Failed)).unwrap();
        let id = again.id().to_owned();
        drop(again);
        let last = Run::open(state, Some(&id[30..])).unwrap();
        assert_eq!(last.done["b"].result, Outcome::Failed);
        assert!(Run::open(state, Some("nothing")).is_err());
    }
}
