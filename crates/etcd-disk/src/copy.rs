//! Carrying a bucket over from one database into a new one, entry by entry.

use std::path::Path;

use boltfile::{BoltFile, ReadAt, Writer};

use crate::error::{Error, Result};

/// Copies the bucket `name` as it is; a missing one becomes an empty one. The paths name the files in errors.
pub(crate) fn copy_bucket<S: ReadAt>(
    from: &BoltFile<S>,
    from_path: &Path,
    to: &mut Writer,
    to_path: &Path,
    name: &[u8],
) -> Result<()> {
    let read = |source| Error::Bolt { path: from_path.to_owned(), source };
    let write = |source| Error::Bolt { path: to_path.to_owned(), source };
    let mut out = to.bucket(name).map_err(write)?;
    let Some(found) = from.bucket(name).map_err(read)? else { return Ok(()) };
    out.set_sequence(found.sequence());
    let mut cursor = found.cursor();
    while let Some((key, value)) = cursor.next().map_err(read)? {
        out.put(key, value).map_err(write)?;
    }
    Ok(())
}
