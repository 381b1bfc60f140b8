//! The thread that writes the spool: it appends what was received, syncs many changes at once, and tells what is durable.

use etcd_disk::segment::{GapSeen, HashSample, LeaseSeen, Origin, SegmentWriter, seal};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

use crate::Error;
use crate::order::Row;
use crate::spool::{Spool, bytes};

/// Changes are gathered for this long before they are synced: far below the second that they may take.
const GATHER: Duration = Duration::from_millis(50);
/// A quiet stream notes this often that nothing was missing.
const PROGRESS: Duration = Duration::from_secs(5);

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Command {
    /// The stream goes on behind this revision, perhaps behind a gap. Rows of a revision that did not become complete are
    /// dropped.
    Behind { last: i64, gap: Option<GapSeen> },
    /// Rows of a watch, in order; checked.
    Rows { received_ms: i64, rows: Vec<Row>, complete: bool },
    /// Nothing was missing behind this revision.
    Progress { at_ms: i64, revision: i64 },
    /// A lease was asked for.
    Lease(LeaseSeen),
    /// The cluster was compacted.
    Compaction { at_ms: i64, revision: i64 },
    /// A member answered a HashKV.
    Sample(HashSample),
}

/// How segments are cut.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    pub(crate) origin: Origin,
    pub(crate) writer: String,
    pub(crate) segment_bytes: u64,
    pub(crate) segment_age: Duration,
}

/// What the sink tells while it works.
#[derive(Debug)]
pub(crate) struct Told {
    /// The last durable revision.
    pub(crate) durable: watch::Sender<i64>,
    /// Bytes in the spool, looked at whenever a segment is begun.
    pub(crate) spool_bytes: watch::Sender<u64>,
}

/// Writes until all senders are gone, and closes the last segment.
pub(crate) fn run(
    spool: &Spool,
    cut: &Cut,
    mut commands: mpsc::Receiver<Command>,
    told: &Told,
) -> Result<(), Error> {
    let mut sink = Sink {
        spool,
        cut,
        told,
        clock_ms: spool.clock_ms(),
        open: None,
        last_progress: None,
        beside: Vec::new(),
    };
    while let Some(command) = commands.blocking_recv() {
        sink.take(command)?;
        let gathered = Instant::now();
        // whoever waits for the disk must not be kept waiting by those who do not
        std::thread::sleep(GATHER);
        while gathered.elapsed() < 4 * GATHER
            && let Ok(command) = commands.try_recv()
        {
            sink.take(command)?;
        }
        sink.sync()?;
        sink.rotate()?;
    }
    sink.close()
}

struct Sink<'a> {
    spool: &'a Spool,
    cut: &'a Cut,
    told: &'a Told,
    /// The latest time written: a clock that is set back does not take times back.
    clock_ms: i64,
    open: Option<Open>,
    last_progress: Option<Instant>,
    /// What waits for a revision to become complete: leases, mostly, and no more than can be asked for meanwhile.
    beside: Vec<Command>,
}

struct Open {
    writer: SegmentWriter,
    begun: Instant,
    /// The revision under way.
    partial: Option<i64>,
    synced_bytes: u64,
}

impl Sink<'_> {
    fn take(&mut self, command: Command) -> Result<(), Error> {
        if let Command::Behind { last, gap } = command {
            return self.behind(last, gap);
        }
        let Some(open) = &mut self.open else {
            self.beside.push(command);
            return Ok(());
        };
        let writer = &mut open.writer;
        match command {
            Command::Behind { .. } => {}
            Command::Rows { received_ms, rows, complete } => {
                self.clock_ms = self.clock_ms.max(received_ms);
                open.rows(self.clock_ms, &rows, complete)?;
            }
            Command::Progress { .. } if open.partial.is_some() => {}
            // facts beside the rows never stand within a revision
            command if open.partial.is_some() => self.beside.push(command),
            Command::Progress { at_ms, revision } => {
                let due = self.last_progress.is_none_or(|last| last.elapsed() > PROGRESS);
                if revision == writer.last_revision() && due {
                    self.clock_ms = self.clock_ms.max(at_ms);
                    writer.progress(self.clock_ms)?;
                    self.last_progress = Some(Instant::now());
                }
            }
            Command::Lease(lease) => writer.lease(&lease)?,
            Command::Compaction { at_ms, revision } => writer.compaction(at_ms, revision)?,
            Command::Sample(sample) => writer.hash_kv(&sample)?,
        }
        if self.open.as_ref().is_some_and(|open| open.partial.is_none()) {
            for command in std::mem::take(&mut self.beside) {
                self.take(command)?;
            }
        }
        Ok(())
    }

    fn behind(&mut self, last: i64, gap: Option<GapSeen>) -> Result<(), Error> {
        match &self.open {
            Some(open) if open.partial.is_none() && open.writer.last_revision() == last && gap.is_none() => {
                return Ok(());
            }
            Some(_) => self.close()?,
            None => {}
        }
        let mut writer = self.spool.begin(self.cut.origin, last + 1, &self.cut.writer)?;
        if let Some(gap) = gap {
            writer.gap(&gap)?;
        }
        let dir = self.spool.dir();
        let io = |e| Error::Spool { path: dir.to_owned(), why: "it cannot be listed", source: Some(e) };
        self.told.spool_bytes.send_replace(bytes(dir).map_err(io)?);
        self.open = Some(Open { writer, begun: Instant::now(), partial: None, synced_bytes: 0 });
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.writer.bytes() != open.synced_bytes {
            let last = open.writer.sync()?;
            open.synced_bytes = open.writer.bytes();
            self.told.durable.send_replace(last);
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), Error> {
        let Some(open) = &self.open else { return Ok(()) };
        let writer = &open.writer;
        let has_rows = writer.last_revision() >= writer.header().first_revision;
        let old = open.begun.elapsed() > self.cut.segment_age || writer.bytes() > self.cut.segment_bytes;
        if has_rows && old && open.partial.is_none() {
            let last = writer.last_revision();
            self.close()?;
            return self.behind(last, None);
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.partial.is_none() {
            open.writer.close()?;
        } else {
            // the incomplete revision is cut off, and will come again
            let path = open.writer.path().to_owned();
            drop(open);
            seal(&path)?;
        }
        Ok(())
    }
}

impl Open {
    fn rows(&mut self, received_ms: i64, rows: &[Row], complete: bool) -> Result<(), Error> {
        for row in rows {
            if self.partial.is_some_and(|partial| partial != row.revision) {
                self.writer.end_revision()?;
            }
            self.partial = Some(row.revision);
            self.writer.row(row.revision, received_ms, row.tombstone, &row.value)?;
        }
        if complete && self.partial.take().is_some() {
            self.writer.end_revision()?;
        }
        Ok(())
    }
}
