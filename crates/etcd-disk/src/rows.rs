//! MVCC rows of the `key` bucket: the 17- or 18-byte row key and a borrowing reader of the row's value.
//!
//! ```text
//! key    | main revision, BE u64 | '_' | sub revision, BE u64 | 't' if a tombstone |
//! value  | mvccpb.KeyValue (of a tombstone: field 1, the key, alone)               |
//! ```
//! Source: etcd `server/storage/mvcc/revision.go`, `api/mvccpb/kv.proto`. Next: [`crate::hashkv`], [`crate::live`].

use crate::error::RowFault;

/// A revision: `main` numbers transactions, `sub` the changes inside one. Neither is ever negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision {
    /// The transaction's revision.
    pub main: i64,
    /// The position of the change within the transaction.
    pub sub: i64,
}

/// Length of a row key, and of one that marks a tombstone.
pub const ROW_KEY_LEN: usize = 17;
const TOMBSTONE_KEY_LEN: usize = 18;

/// A parsed key of the `key` bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowKey {
    /// When the row was written.
    pub revision: Revision,
    /// The row says that its key was deleted.
    pub tombstone: bool,
}

impl RowKey {
    /// Parses a row key; what etcd would panic on is a fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, RowFault> {
        let tombstone = match bytes {
            [_, _, _, _, _, _, _, _, b'_', rest @ ..] if rest.len() == 8 => false,
            // etcd treats an 18th byte other than `t` as a plain row; nothing ever wrote one
            [_, _, _, _, _, _, _, _, b'_', rest @ ..] if rest.len() == 9 && rest.last() == Some(&b't') => {
                true
            }
            _ => return Err(RowFault::KeyShape { len: bytes.len() }),
        };
        let revision = Revision { main: be_i64(bytes, 0), sub: be_i64(bytes, 9) };
        if revision.main < 0 || revision.sub < 0 {
            return Err(RowFault::NegativeRevision);
        }
        Ok(Self { revision, tombstone })
    }
}

fn be_i64(bytes: &[u8], at: usize) -> i64 {
    let mut word = [0u8; 8];
    if let Some(part) = bytes.get(at..at + 8) {
        word.copy_from_slice(part);
    }
    i64::from_be_bytes(word)
}

/// The row key of `revision`, without the tombstone mark.
pub fn row_key(revision: Revision) -> [u8; ROW_KEY_LEN] {
    let mut out = [b'_'; ROW_KEY_LEN];
    let (main, rest) = out.split_at_mut(8);
    main.copy_from_slice(&revision.main.to_be_bytes());
    if let Some(sub) = rest.get_mut(1..) {
        sub.copy_from_slice(&revision.sub.to_be_bytes());
    }
    out
}

/// The row key of a deletion at `revision`.
pub fn tombstone_key(revision: Revision) -> [u8; TOMBSTONE_KEY_LEN] {
    let mut out = [b't'; TOMBSTONE_KEY_LEN];
    if let Some(head) = out.get_mut(..ROW_KEY_LEN) {
        head.copy_from_slice(&row_key(revision));
    }
    out
}

/// A row's value, borrowed. Absent fields have protobuf's defaults (empty, 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvRef<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// Main revision of the key's creation.
    pub create_revision: i64,
    /// Main revision of this change (0 in a tombstone's row).
    pub mod_revision: i64,
    /// Changes since the creation, 1 for the first.
    pub version: i64,
    /// The user's value.
    pub value: &'a [u8],
    /// Lease id, 0 for none.
    pub lease: i64,
}

impl<'a> KvRef<'a> {
    /// Parses an `mvccpb.KeyValue` without copying; unknown fields are skipped, as protobuf says.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RowFault> {
        let mut kv = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (field, wire) = split_tag(varint(&mut rest)?)?;
            match (field, wire) {
                (1, 2) => kv.key = delimited(&mut rest)?,
                (2, 0) => kv.create_revision = varint(&mut rest)?.cast_signed(),
                (3, 0) => kv.mod_revision = varint(&mut rest)?.cast_signed(),
                (4, 0) => kv.version = varint(&mut rest)?.cast_signed(),
                (5, 2) => kv.value = delimited(&mut rest)?,
                (6, 0) => kv.lease = varint(&mut rest)?.cast_signed(),
                (1..=6, _) => return Err(RowFault::ValueShape("a known field with a wrong wire type")),
                (_, wire) => skip(&mut rest, wire)?,
            }
        }
        Ok(kv)
    }
}

fn split_tag(tag: u64) -> Result<(u64, u64), RowFault> {
    let field = tag >> 3;
    if field == 0 || field > 0x1FFF_FFFF {
        return Err(RowFault::ValueShape("a field number that protobuf does not allow"));
    }
    Ok((field, tag & 7))
}

fn varint(rest: &mut &[u8]) -> Result<u64, RowFault> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((&byte, tail)) = rest.split_first() else {
            return Err(RowFault::ValueShape("a number cut short"));
        };
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(RowFault::ValueShape("a number of more than 10 bytes"))
}

fn delimited<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RowFault> {
    let len = usize::try_from(varint(rest)?).unwrap_or(usize::MAX);
    let (head, tail) =
        rest.split_at_checked(len).ok_or(RowFault::ValueShape("a length beyond the end of the value"))?;
    *rest = tail;
    Ok(head)
}

fn skip(rest: &mut &[u8], wire: u64) -> Result<(), RowFault> {
    let fixed = match wire {
        0 => return varint(rest).map(|_| ()),
        2 => return delimited(rest).map(|_| ()),
        1 => 8,
        5 => 4,
        _ => return Err(RowFault::ValueShape("a wire type that protobuf does not have")),
    };
    *rest = rest.get(fixed..).ok_or(RowFault::ValueShape("a fixed-size field cut short"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::proto::KeyValue;

    #[test]
    fn row_keys_round_trip_and_order_by_revision() {
        let low = row_key(Revision { main: 7, sub: 300 });
        let high = tombstone_key(Revision { main: 8, sub: 0 });
        assert!(low.as_slice() < high.as_slice());
        assert_eq!(
            RowKey::parse(&low),
            Ok(RowKey { revision: Revision { main: 7, sub: 300 }, tombstone: false })
        );
        assert_eq!(
            RowKey::parse(&high),
            Ok(RowKey { revision: Revision { main: 8, sub: 0 }, tombstone: true })
        );
    }

    #[test]
    fn row_keys_etcd_would_panic_on_are_faults() {
        for bad in [&b""[..], b"short", &[0u8; 17], &[0xff; 17], &[b'_'; 19]] {
            assert!(RowKey::parse(bad).is_err(), "{bad:?}");
        }
        let mut negative = row_key(Revision { main: 1, sub: 1 });
        negative[0] = 0x80;
        assert_eq!(RowKey::parse(&negative), Err(RowFault::NegativeRevision));
    }

    proptest! {
        /// The borrowing reader says what prost says, for every message and every cut of it.
        #[test]
        fn kv_ref_agrees_with_prost(key: Vec<u8>, value: Vec<u8>, create: i64, version: i64, lease: i64, cut in 0usize..80) {
            let kv = KeyValue { key, create_revision: create, mod_revision: 5, version, value, lease };
            let bytes = kv.encode_to_vec();
            let parsed = KvRef::parse(&bytes).unwrap();
            prop_assert_eq!(parsed.key, &kv.key[..]);
            prop_assert_eq!(parsed.value, &kv.value[..]);
            prop_assert_eq!((parsed.create_revision, parsed.version, parsed.lease), (create, version, lease));
            let short = &bytes[..cut.min(bytes.len())];
            prop_assert_eq!(KvRef::parse(short).is_ok(), KeyValue::decode(short).is_ok());
        }

        #[test]
        fn kv_ref_survives_any_bytes(bytes: Vec<u8>) {
            let _ = KvRef::parse(&bytes);
        }
    }
}
