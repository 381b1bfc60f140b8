//! The few fields of any stored object that tell whether it is the one expected: its UID, and of two kinds the ranges of
//! Service addresses, without which an API server on a restored store refuses to start or warns.
//!
//! ```text
//! "k8s\0" runtime.Unknown { 2 raw = { 1 metadata { 5 uid }, ... } }       every kind has its metadata as field 1
//! RangeAllocation { 2 range }       ServiceCIDR { 2 spec { 1 cidrs, repeated } }
//! ```
//! Source: `k8s.io/api/*/generated.proto`.

use serde::Deserialize;

use crate::wire::{bytes_field, bytes_fields};

const PROTOBUF_MAGIC: &[u8] = b"k8s\0";
const ENCRYPTED_PREFIX: &[u8] = b"k8s:enc:";
/// A UID has 36 characters; nothing longer is taken for one.
const UID_MAX_BYTES: usize = 128;

/// Whether encryption at rest covers a stored value.
pub fn is_encrypted(value: &[u8]) -> bool {
    value.starts_with(ENCRYPTED_PREFIX)
}

/// `metadata.uid` of a stored object of any kind; none when it is encrypted, damaged, no object, or has no UID.
pub fn object_uid(value: &[u8]) -> Option<String> {
    let uid = match raw(value) {
        Some(raw) => text(bytes_field(bytes_field(raw, 1).ok()??, 5).ok()??)?,
        None => serde_json::from_slice::<Object>(value).ok()?.metadata.uid,
    };
    let plausible =
        !uid.is_empty() && uid.len() <= UID_MAX_BYTES && uid.bytes().all(|b| b.is_ascii_graphic());
    plausible.then_some(uid)
}

/// `range` of a stored RangeAllocation (`ranges/serviceips`).
pub fn allocated_range(value: &[u8]) -> Option<String> {
    text(bytes_field(raw(value)?, 2).ok()??)
}

/// `spec.cidrs` of a stored ServiceCIDR; one for each family of addresses.
pub fn service_cidrs(value: &[u8]) -> Option<Vec<String>> {
    let spec = bytes_field(raw(value)?, 2).ok()??;
    bytes_fields(spec, 1).ok()?.into_iter().map(text).collect()
}

fn raw(value: &[u8]) -> Option<&[u8]> {
    bytes_field(value.strip_prefix(PROTOBUF_MAGIC)?, 2).ok()?
}

fn text(bytes: &[u8]) -> Option<String> {
    (bytes.len() <= 1024).then(|| std::str::from_utf8(bytes).ok().map(str::to_owned))?
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    uid: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn stored(raw: &[u8]) -> Vec<u8> {
        [b"k8s\0".to_vec(), field(2, raw)].concat()
    }

    // A restored object is told from another one of its name by its UID, however it is stored.
    #[test]
    fn uids_are_read_of_any_kind() {
        let metadata = [field(1, b"web"), field(5, b"0f6f0a5c-7a52")].concat();
        assert_eq!(object_uid(&stored(&field(1, &metadata))).as_deref(), Some("0f6f0a5c-7a52"));
        let json = br#"{"apiVersion":"a/v1","kind":"B","metadata":{"name":"x","uid":"0f6f"},"spec":{}}"#;
        assert_eq!(object_uid(json).as_deref(), Some("0f6f"));
        let encrypted = b"k8s:enc:aescbc:v1:key1:\x00\xff";
        assert!(is_encrypted(encrypted) && object_uid(encrypted).is_none());
        assert!(object_uid(b"\xd9\xd9\xf7\xa1").is_none() && object_uid(b"").is_none());
    }

    #[test]
    fn ranges_of_services_are_read() {
        let allocation = [field(1, b""), field(2, b"10.96.0.0/12"), field(3, b"\x00\x01")].concat();
        assert_eq!(allocated_range(&stored(&allocation)).as_deref(), Some("10.96.0.0/12"));
        let spec = [field(1, b"10.96.0.0/12"), field(1, b"fd00::/112")].concat();
        let cidr = [field(1, b""), field(2, &spec)].concat();
        assert_eq!(service_cidrs(&stored(&cidr)).unwrap(), ["10.96.0.0/12", "fd00::/112"]);
        assert_eq!(service_cidrs(b"{}"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes: Vec<u8>, magic: bool) {
            if magic {
                bytes.splice(0..0, *b"k8s\0");
            }
            let _ = (object_uid(&bytes), allocated_range(&bytes), service_cidrs(&bytes));
        }
    }
}
