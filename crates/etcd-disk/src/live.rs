//! Keys alive at the newest revision: one of them, or all.
//!
//! Rows are in revision order, not key order, so even one key costs a pass over the rows.

use std::path::Path;

use boltfile::{BoltFile, ReadAt};
use std::collections::HashMap;

use crate::bucket;
use crate::error::{Error, Result, RowFault};
use crate::proto::KeyValue;
use crate::rows::{KvRef, RowKey};
use crate::snapshot::hex;

/// The newest state of `key`, or `None` when it does not exist (any more). `path` names the file in errors.
///
/// # Errors
/// [`Error::Bolt`] on a damaged page, [`Error::Row`] on a row that breaks etcd's format.
pub fn get<S: ReadAt>(db: &BoltFile<S>, path: &Path, key: &[u8]) -> Result<Option<KeyValue>> {
    Ok(get_many(db, path, &[key])?.pop().flatten())
}

/// The newest state of each of a few keys, in their order, in one pass.
///
/// # Errors
/// As [`get`].
pub fn get_many<S: ReadAt>(db: &BoltFile<S>, path: &Path, keys: &[&[u8]]) -> Result<Vec<Option<KeyValue>>> {
    let mut newest = vec![None; keys.len()];
    for_each_row(db, path, &mut |row, kv| {
        for (key, place) in keys.iter().zip(&mut newest) {
            if kv.key == *key {
                *place = (!row.tombstone).then(|| owned(kv));
            }
        }
        Ok(())
    })?;
    Ok(newest)
}

/// Shows every live key with its newest state, in the order of their revisions. Two passes over the rows; memory for
/// the live keys.
///
/// # Errors
/// As [`get`], and whatever `visit` answers.
pub fn for_each<S: ReadAt>(
    db: &BoltFile<S>,
    path: &Path,
    visit: &mut dyn FnMut(&KvRef<'_>) -> Result<()>,
) -> Result<()> {
    let mut newest = HashMap::new();
    for_each_row(db, path, &mut |row, kv| {
        if row.tombstone {
            newest.remove(kv.key);
        } else {
            newest.insert(kv.key.to_vec(), row.revision);
        }
        Ok(())
    })?;
    for_each_row(db, path, &mut |row, kv| {
        if newest.get(kv.key) == Some(&row.revision) && !row.tombstone { visit(kv) } else { Ok(()) }
    })
}

/// Shows every row, in the order of revisions.
pub(crate) fn for_each_row<S: ReadAt>(
    db: &BoltFile<S>,
    path: &Path,
    visit: &mut dyn FnMut(RowKey, &KvRef<'_>) -> Result<()>,
) -> Result<()> {
    let bolt = |source| Error::Bolt { path: path.to_owned(), source };
    let Some(rows) = db.bucket(bucket::KEY.as_bytes()).map_err(bolt)? else { return Ok(()) };
    let mut cursor = rows.cursor();
    while let Some((key, value)) = cursor.next().map_err(bolt)? {
        let fault = |source: RowFault| Error::Row { path: path.to_owned(), row: hex(key), source };
        visit(RowKey::parse(key).map_err(fault)?, &KvRef::parse(value).map_err(fault)?)?;
    }
    Ok(())
}

fn owned(kv: &KvRef<'_>) -> KeyValue {
    KeyValue {
        key: kv.key.to_vec(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value.to_vec(),
        lease: kv.lease,
    }
}
