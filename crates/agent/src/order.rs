//! Whether what a watch sends is gap-free: revisions one by one, each complete before the next.

use etcd_disk::proto::KeyValue;
use etcd_disk::segment::RowsDigest;
use prost::Message;
use rekindle_world::etcd_client::Change;

/// Where the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// The last complete revision.
    pub(crate) last: i64,
    /// Digest of its rows, if they are known.
    pub(crate) digest: Option<u32>,
    /// Rows of the revision behind it, of which more is to come.
    partial: Option<RowsDigest>,
    /// The member is still to show that it has the last revision, as it is here.
    unproved: bool,
}

impl Order {
    /// Behind the revision `last`, whose rows have this digest.
    pub(crate) fn behind(last: i64, digest: Option<u32>) -> Self {
        Self { last, digest, partial: None, unproved: false }
    }

    /// A watch of another member, or a new one, begins: at this revision. If the last one is known, it has to come again.
    pub(crate) fn begin(&mut self) -> i64 {
        self.partial = None;
        self.unproved = self.digest.is_some();
        self.last + i64::from(!self.unproved)
    }

    /// The member has shown that it has the last revision, or there is none to show.
    pub(crate) fn is_proved(&self) -> bool {
        !self.unproved
    }

    /// Takes rows; `complete`: the last revision among them is. Gives back those that are new.
    pub(crate) fn take(&mut self, rows: Vec<Row>, complete: bool) -> Result<Vec<Row>, Broken> {
        let mut new = Vec::with_capacity(rows.len());
        for row in rows {
            let due = self.last + i64::from(!self.unproved);
            if row.revision == due + 1 && self.partial.is_some() {
                self.end()?;
            } else if row.revision != due {
                return Err(Broken::Order { found: row.revision, due });
            }
            self.partial.get_or_insert_default().add(row.tombstone, &row.value);
            if !self.unproved {
                new.push(row);
            }
        }
        if complete {
            self.end()?;
        }
        Ok(new)
    }

    /// The revision under way is complete.
    fn end(&mut self) -> Result<(), Broken> {
        let Some(digest) = self.partial.take().map(RowsDigest::value) else { return Ok(()) };
        if self.unproved && self.digest != Some(digest) {
            return Err(Broken::History { revision: self.last });
        }
        self.last += i64::from(!self.unproved);
        self.digest = Some(digest);
        self.unproved = false;
        Ok(())
    }
}

/// A row as it will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) revision: i64,
    pub(crate) tombstone: bool,
    /// Lease id, 0 for none.
    pub(crate) lease: i64,
    /// `mvccpb.KeyValue`.
    pub(crate) value: Vec<u8>,
}

impl From<Change> for Row {
    fn from(change: Change) -> Self {
        let (revision, lease, tombstone) = (change.kv.mod_revision, change.kv.lease, change.deleted);
        // a tombstone's row has the key alone; the watch adds the revision
        let kv = if tombstone { KeyValue { key: change.kv.key, ..KeyValue::default() } } else { change.kv };
        Self { revision, tombstone, lease, value: kv.encode_to_vec() }
    }
}

/// Why a member is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// It left revisions out, or repeated them.
    #[error("it sent revision {found} where {due} was due")]
    Order { found: i64, due: i64 },
    /// It lived through something else.
    #[error("its revision {revision} is not the one that is durable here: it has another history")]
    History { revision: i64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(revisions: &[i64]) -> Vec<Row> {
        let row = |revision| Row { revision, tombstone: false, lease: 0, value: vec![b'v'] };
        revisions.iter().map(|revision| row(*revision)).collect()
    }

    // A member that leaves out or repeats a revision must not be believed: the backup would have a hole nobody sees.
    #[test]
    fn what_is_left_out_or_repeated_is_found() {
        let mut order = Order::behind(4, None);
        assert_eq!(order.begin(), 5);
        order.take(rows(&[5, 5, 6]), false).unwrap();
        assert_eq!(order.last, 5, "more of 6 may come");
        order.take(rows(&[6, 6]), true).unwrap();
        assert_eq!(order.last, 6);
        let broken = |revisions: &[i64]| order.clone().take(rows(revisions), true).is_err();
        assert!(broken(&[8]) && broken(&[6]) && broken(&[7, 9]));
        assert_eq!(order.take(rows(&[7, 8, 8, 9]), true).unwrap().len(), 4);
        assert_eq!(order.last, 9);
    }

    // A member that was set back has new content under old revisions: it must show that it has what is durable here.
    #[test]
    fn a_member_with_another_history_is_found() {
        let mut order = Order::behind(4, None);
        order.take(rows(&[5, 5]), true).unwrap();
        assert_eq!(order.begin(), 5, "the last one again");
        let mut other = order;
        assert_eq!(other.take(rows(&[5, 6]), true), Err(Broken::History { revision: 5 }));
        assert_eq!(order.take(rows(&[5]), false).unwrap(), []);
        assert_eq!(order.take(rows(&[5, 6]), true).unwrap(), rows(&[6]));
        assert!(order.is_proved());
    }
}
