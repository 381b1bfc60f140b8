//! Whether what a watch sends is gap-free: revisions one by one, each complete before the next.

use rekindle_world::etcd_client::Change;

/// Where the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// The last complete revision.
    pub(crate) last: i64,
    /// A revision of which more is to come.
    partial: bool,
}

impl Order {
    /// Behind the revision `last`.
    pub(crate) fn behind(last: i64) -> Self {
        Self { last, partial: false }
    }

    /// Takes changes; `complete`: the last revision among them is. Says which revision was left out, if any was.
    pub(crate) fn take(&mut self, changes: &[Change], complete: bool) -> Result<(), String> {
        for change in changes {
            let revision = change.kv.mod_revision;
            let due = self.last + 1;
            if self.partial && revision == due + 1 {
                self.last = due;
            } else if revision != due {
                return Err(format!("it sent revision {revision} where {due} was due"));
            }
            self.partial = true;
        }
        if complete && self.partial {
            self.last += 1;
            self.partial = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd_disk::proto::KeyValue;

    fn changes(revisions: &[i64]) -> Vec<Change> {
        let kv = |mod_revision| KeyValue { mod_revision, ..KeyValue::default() };
        revisions.iter().map(|r| Change { deleted: false, kv: kv(*r) }).collect()
    }

    // A member that leaves out or repeats a revision must not be believed: the backup would have a hole nobody sees.
    #[test]
    fn what_is_left_out_or_repeated_is_found() {
        let mut order = Order::behind(4);
        order.take(&changes(&[5, 5, 6]), false).unwrap();
        assert_eq!(order.last, 5, "more of 6 may come");
        order.take(&changes(&[6, 6]), true).unwrap();
        assert_eq!(order.last, 6);
        assert!(order.clone().take(&changes(&[8]), true).is_err());
        assert!(order.clone().take(&changes(&[6]), true).is_err());
        assert!(order.clone().take(&changes(&[7, 9]), true).is_err());
        assert!(order.take(&changes(&[7, 8, 8, 9]), true).is_ok());
        assert_eq!(order.last, 9);
    }
}
