//! The journal of a run: JSON lines, numbered, chained by checksum, synced before and after each step.
//!
//! Format: `docs/formats/journal.md`. What the lines mean for each step: [`crate::status`].

use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::event::{Event, What};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};

/// The journal's file name in a run's folder.
pub const FILE_NAME: &str = "journal.jsonl";

/// A journal above this size is not one: outputs are small, and progress is not journaled.
const MAX_BYTES: u64 = 64 << 20;
/// `{"sum":"` + 16 hex digits + `",`: everything behind it is what the sum covers.
const PREFIX: &str = "{\"sum\":\"";
const SUM_CHARS: usize = 16;
const HEAD_BYTES: usize = PREFIX.len() + SUM_CHARS + 2;

/// One line without its sum: the number (from 1) and the event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Running number from 1.
    pub n: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Why a journal can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file could not be read or written.
    #[error("cannot {doing} {path}")]
    Io {
        /// `open`, `read`, `write`, ...
        doing: &'static str,
        /// The file.
        path: Utf8PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A line (not the last) is damaged.
    #[error("{path}:{line}: {fault}")]
    Damaged {
        /// The file.
        path: Utf8PathBuf,
        /// Line from 1.
        line: u64,
        /// What is wrong with it.
        fault: String,
    },
    /// The file is too large to be a journal.
    #[error("{path} has {bytes} bytes, more than a journal ever has")]
    TooLarge {
        /// The file.
        path: Utf8PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A line can't follow the lines before it.
    #[error("{path}:{line}: {fault}")]
    IllegalTransition {
        /// The file.
        path: Utf8PathBuf,
        /// Line from 1.
        line: u64,
        /// Which transition.
        fault: String,
    },
    /// An event that can't be written as JSON.
    #[error("cannot encode a record of {path}")]
    Encode {
        /// The file.
        path: Utf8PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A fault point of a test ended the run here.
    #[error("cut off by a fault point after record {0}")]
    CutOff(u64),
}

/// Ends the writing as a power cut would: for tests that cut a run at every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutAt {
    /// The last record that is written whole; whoever writes the next one gets [`JournalError::CutOff`].
    pub record: u64,
    /// Whether half of the next record is written too.
    pub torn: bool,
}

/// An open journal, positioned behind its last whole record.
#[derive(Debug)]
pub struct Journal {
    path: Utf8PathBuf,
    file: File,
    last: u64,
    sum: String,
    records: Vec<Record>,
    cut: Option<CutAt>,
}

impl Journal {
    /// Makes a new, empty journal in a run's folder; its folder entry is synced.
    pub fn create(run_dir: &Utf8Path) -> Result<Self, JournalError> {
        let path = run_dir.join(FILE_NAME);
        let io = |doing| move |source| JournalError::Io { doing, path: run_dir.join(FILE_NAME), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(io("create"))?;
        file.sync_all().map_err(io("sync"))?;
        sync_dir(run_dir).map_err(io("sync the folder of"))?;
        Ok(Self { path, file, last: 0, sum: String::new(), records: Vec::new(), cut: None })
    }

    /// Opens a journal to go on with it: a torn last line is cut off.
    pub fn open(run_dir: &Utf8Path) -> Result<Self, JournalError> {
        let path = run_dir.join(FILE_NAME);
        let io = |doing| move |source| JournalError::Io { doing, path: run_dir.join(FILE_NAME), source };
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(io("open"))?;
        let parsed = parse(&path, &read_all(&path, &mut file)?)?;
        file.set_len(parsed.whole_bytes).map_err(io("cut the torn end of"))?;
        file.seek(SeekFrom::End(0)).map_err(io("seek in"))?;
        file.sync_all().map_err(io("sync"))?;
        let last = parsed.records.last().map_or(0, |record| record.n);
        Ok(Self { path, file, last, sum: parsed.sum, records: parsed.records, cut: None })
    }

    /// The records so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The file.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// See [`CutAt`].
    pub fn cut_at(&mut self, cut: CutAt) {
        self.cut = Some(cut);
    }

    /// Appends an event and syncs. Progress is not journaled.
    pub fn append(&mut self, event: &Event) -> Result<(), JournalError> {
        if matches!(event.what, What::Progress { .. }) {
            return Ok(());
        }
        let record = Record { n: self.last + 1, event: event.clone() };
        let line = self.line(&record)?;
        let io = |doing| {
            let path = self.path.clone();
            move |source| JournalError::Io { doing, path, source }
        };
        if let Some(cut) = self.cut.filter(|cut| record.n > cut.record) {
            let half = line.len() / 2;
            if cut.torn && record.n == cut.record + 1 {
                self.file.write_all(line.as_bytes().get(..half).unwrap_or_default()).map_err(io("write"))?;
                // Later writers of the same run must not add to the torn line.
                self.cut = Some(CutAt { torn: false, ..cut });
            }
            return Err(JournalError::CutOff(cut.record));
        }
        self.file.write_all(line.as_bytes()).map_err(io("write"))?;
        self.file.sync_data().map_err(io("sync"))?;
        self.last = record.n;
        self.sum = line.get(PREFIX.len()..PREFIX.len() + SUM_CHARS).unwrap_or_default().to_owned();
        self.records.push(record);
        Ok(())
    }

    fn line(&self, record: &Record) -> Result<String, JournalError> {
        let json = serde_json::to_string(record)
            .map_err(|source| JournalError::Encode { path: self.path.clone(), source })?;
        let rest = json.strip_prefix('{').unwrap_or(&json);
        let sum = chained_sum(&self.sum, rest.as_bytes());
        Ok(format!("{PREFIX}{sum}\",{rest}\n"))
    }
}

/// Reads a journal without changing it.
pub fn read(run_dir: &Utf8Path) -> Result<Vec<Record>, JournalError> {
    let path = run_dir.join(FILE_NAME);
    let mut file =
        File::open(&path).map_err(|source| JournalError::Io { doing: "open", path: path.clone(), source })?;
    Ok(parse(&path, &read_all(&path, &mut file)?)?.records)
}

fn read_all(path: &Utf8Path, file: &mut File) -> Result<Vec<u8>, JournalError> {
    let io = |source| JournalError::Io { doing: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if read as u64 > MAX_BYTES {
        return Err(JournalError::TooLarge { path: path.to_owned(), bytes: read as u64 });
    }
    Ok(bytes)
}

struct Parsed {
    records: Vec<Record>,
    whole_bytes: u64,
    sum: String,
}

/// Lines up to the end or to a torn last line. Any other damage is an error: then more was lost than one write.
fn parse(path: &Utf8Path, bytes: &[u8]) -> Result<Parsed, JournalError> {
    let mut parsed = Parsed { records: Vec::new(), whole_bytes: 0, sum: String::new() };
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let number = parsed.records.len() as u64 + 1;
        match record_of(line, &parsed.sum, number) {
            Ok((record, sum)) => {
                parsed.records.push(record);
                parsed.sum = sum;
                parsed.whole_bytes += line.len() as u64;
            }
            // A write that a crash cut short.
            Err(_) if lines.peek().is_none() && !line.ends_with(b"\n") => break,
            Err(fault) => return Err(JournalError::Damaged { path: path.to_owned(), line: number, fault }),
        }
    }
    Ok(parsed)
}

fn record_of(line: &[u8], before: &str, number: u64) -> Result<(Record, String), String> {
    let line = line.strip_suffix(b"\n").ok_or("the line does not end")?;
    let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8")?;
    let rest = line.get(HEAD_BYTES..).ok_or("the line is too short")?;
    let sum = line.get(PREFIX.len()..PREFIX.len() + SUM_CHARS).ok_or("the line is too short")?;
    let joint = line.get(PREFIX.len() + SUM_CHARS..HEAD_BYTES) == Some("\",");
    if !line.starts_with(PREFIX) || !joint || chained_sum(before, rest.as_bytes()) != sum {
        return Err("the line's sum does not match its content and the line before".into());
    }
    let record: Record =
        serde_json::from_str(&format!("{{{rest}")).map_err(|error| format!("not a record: {error}"))?;
    if record.n != number {
        return Err(format!("record {} stands where record {number} belongs", record.n));
    }
    Ok((record, sum.to_owned()))
}

/// First 8 bytes (hex) of SHA-256 over the sum of the line before and this line's content.
fn chained_sum(before: &str, content: &[u8]) -> String {
    let mut sum = Sha256::new();
    sum.update(before.as_bytes());
    sum.update(content);
    sum.finalize().iter().take(SUM_CHARS / 2).map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn sync_dir(dir: &Utf8Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(text: &str) -> Event {
        Event { at_ms: 1_700_000_000_000, what: What::Note { text: text.into() } }
    }

    fn dir() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        (dir, path)
    }

    // What was written before a crash is read after it, and writing goes on behind it.
    #[test]
    fn written_records_come_back_and_writing_goes_on() {
        let (_keep, dir) = dir();
        let mut journal = Journal::create(&dir).unwrap();
        journal.append(&note("one")).unwrap();
        journal.append(&note("two")).unwrap();
        drop(journal);
        let mut journal = Journal::open(&dir).unwrap();
        journal.append(&note("three")).unwrap();
        let records = read(&dir).unwrap();
        assert_eq!(records.iter().map(|r| r.n).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(records[2].event, note("three"));
    }

    // A power cut can tear the last write at any byte: everything before it still counts.
    #[test]
    fn a_tear_at_any_byte_of_the_last_line_loses_only_that_line() {
        let (_keep, dir) = dir();
        let mut journal = Journal::create(&dir).unwrap();
        journal.append(&note("one")).unwrap();
        let whole = std::fs::metadata(journal.path()).unwrap().len();
        journal.append(&note("two")).unwrap();
        let bytes = std::fs::read(journal.path()).unwrap();
        for cut in usize::try_from(whole).unwrap()..bytes.len() {
            std::fs::write(dir.join(FILE_NAME), &bytes[..cut]).unwrap();
            assert_eq!(read(&dir).unwrap().len(), 1, "cut at byte {cut}");
            let mut journal = Journal::open(&dir).unwrap();
            journal.append(&note("again")).unwrap();
            assert_eq!(read(&dir).unwrap().len(), 2, "cut at byte {cut}");
        }
    }

    // A bit that fell over in the middle must not be believed: the error names file and line.
    #[test]
    fn a_flipped_bit_before_the_last_line_is_an_error_with_its_line() {
        let (_keep, dir) = dir();
        let mut journal = Journal::create(&dir).unwrap();
        for text in ["one", "two", "three"] {
            journal.append(&note(text)).unwrap();
        }
        let bytes = std::fs::read(journal.path()).unwrap();
        let lines: Vec<usize> =
            bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
        for at in 0..lines[1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(dir.join(FILE_NAME), &damaged).unwrap();
            let line = if at < lines[0] { 1 } else { 2 };
            // A changed line end joins the line with the next one; that is seen as well.
            let error = read(&dir).unwrap_err().to_string();
            assert!(error.contains(&format!("{FILE_NAME}:{line}: ")), "byte {at}: {error}");
        }
    }

    // A line taken out of the middle, or two lines swapped, breaks the chain.
    #[test]
    fn lines_out_of_order_are_an_error() {
        let (_keep, dir) = dir();
        let mut journal = Journal::create(&dir).unwrap();
        for text in ["one", "two", "three"] {
            journal.append(&note(text)).unwrap();
        }
        let text = std::fs::read_to_string(journal.path()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        std::fs::write(dir.join(FILE_NAME), format!("{}\n{}\n{}\n", lines[1], lines[0], lines[2])).unwrap();
        assert!(matches!(read(&dir), Err(JournalError::Damaged { line: 1, .. })));
        std::fs::write(dir.join(FILE_NAME), format!("{}\n{}\n\n", lines[0], lines[2])).unwrap();
        assert!(matches!(read(&dir), Err(JournalError::Damaged { line: 2, .. })));
    }
}
