//! The UID of a stored Namespace.
//!
//! ```text
//! "k8s\0" runtime.Unknown { 1 typeMeta { 1 apiVersion, 2 kind }, 2 raw = Namespace { 1 metadata { 5 uid } } }
//! or JSON { "kind": "Namespace", "metadata": { "uid": ... } }, or "k8s:enc:<provider>:..." and then unreadable here
//! ```

use serde::Deserialize;

use crate::wire::{bytes_field, number_field};

const PROTOBUF_MAGIC: &[u8] = b"k8s\0";
const ENCRYPTED_PREFIX: &[u8] = b"k8s:enc:";
/// CBOR's self-describing tag.
const CBOR_TAG: &[u8] = &[0xd9, 0xd9, 0xf7];
/// A UID has 36 characters; nothing longer is taken for one.
const UID_MAX_BYTES: usize = 128;

/// Why the UID of a stored Namespace is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UidFault {
    /// Encryption at rest covers Namespaces.
    #[error("the object is encrypted at rest by {provider}")]
    Encrypted {
        /// The provider's name and key, as in the value's prefix.
        provider: String,
    },
    /// An encoding that is not read here.
    #[error("the object is stored as {0}, which is not read")]
    Encoding(&'static str),
    /// The value is damaged.
    #[error("the object cannot be read: {0}")]
    Damaged(String),
    /// An object of another kind.
    #[error("the object is a {0:?}, no Namespace")]
    Kind(String),
    /// It has none.
    #[error("the object has no UID")]
    Missing,
}

/// Reads `metadata.uid` out of a stored Namespace.
///
/// # Errors
/// [`UidFault`] says why it is not known.
pub fn namespace_uid(value: &[u8]) -> Result<String, UidFault> {
    let uid = if let Some(unknown) = value.strip_prefix(PROTOBUF_MAGIC) {
        protobuf_uid(unknown)?
    } else if let Some(rest) = value.strip_prefix(ENCRYPTED_PREFIX) {
        return Err(UidFault::Encrypted { provider: provider(rest) });
    } else if value.starts_with(CBOR_TAG) {
        return Err(UidFault::Encoding("CBOR"));
    } else {
        json_uid(value)?
    };
    if uid.is_empty() {
        return Err(UidFault::Missing);
    }
    if uid.len() > UID_MAX_BYTES || !uid.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(UidFault::Damaged("its UID is none".into()));
    }
    Ok(uid)
}

/// When a stored Namespace was created, in seconds since the Unix epoch: `metadata.creationTimestamp` (field 8, a
/// `Time { 1 seconds }`) of one stored as protobuf, as API servers do. `None` when that can't be read.
///
/// A cluster that bootstrapped itself anew on wiped disks has a younger `kube-system` than the one it replaced.
pub fn namespace_created_s(value: &[u8]) -> Option<i64> {
    let unknown = value.strip_prefix(PROTOBUF_MAGIC)?;
    let field = |message, number| bytes_field(message, number).ok().flatten();
    let metadata = field(field(unknown, 2)?, 1)?;
    let seconds = number_field(field(metadata, 8)?, 1).ok()??;
    i64::try_from(seconds).ok().filter(|seconds| *seconds > 0)
}

/// `aescbc:v1:key1:<binary>` -> `aescbc:v1:key1`
fn provider(rest: &[u8]) -> String {
    let parts = rest.split(|&b| b == b':').take(3);
    let named = parts.take_while(|part| part.len() < 64 && part.iter().all(u8::is_ascii_graphic));
    named.map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>().join(":")
}

fn protobuf_uid(unknown: &[u8]) -> Result<String, UidFault> {
    let field = |message, number| {
        bytes_field(message, number)
            .map_err(|why| UidFault::Damaged(why.into()))
            .map(Option::unwrap_or_default)
    };
    let kind = text(field(field(unknown, 1)?, 2)?)?;
    if kind != "Namespace" {
        return Err(UidFault::Kind(kind));
    }
    let metadata = field(field(unknown, 2)?, 1)?;
    text(field(metadata, 5)?)
}

fn text(bytes: &[u8]) -> Result<String, UidFault> {
    let text = bytes.get(..bytes.len().min(2 * UID_MAX_BYTES)).unwrap_or_default();
    std::str::from_utf8(text)
        .map(str::to_owned)
        .map_err(|_| UidFault::Damaged("text that is not UTF-8".into()))
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    uid: String,
}

fn json_uid(value: &[u8]) -> Result<String, UidFault> {
    let object: Object = serde_json::from_slice(value).map_err(|e| UidFault::Damaged(e.to_string()))?;
    if object.kind == "Namespace" { Ok(object.metadata.uid) } else { Err(UidFault::Kind(object.kind)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "0f6f0a5c-7a52-4a6e-9a59-0d7c8f0d3c11";

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn stored(kind: &str, uid: &str) -> Vec<u8> {
        let type_meta = field(1, &[field(1, b"v1"), field(2, kind.as_bytes())].concat());
        let metadata = [field(1, b"kube-system"), field(5, uid.as_bytes())].concat();
        [b"k8s\0".to_vec(), type_meta, field(2, &field(1, &metadata))].concat()
    }

    #[test]
    fn the_uid_is_read_from_protobuf_and_json() {
        assert_eq!(namespace_uid(&stored("Namespace", UID)).unwrap(), UID);
        let json = format!(r#"{{"kind":"Namespace","apiVersion":"v1","metadata":{{"uid":"{UID}"}}}}"#);
        assert_eq!(namespace_uid(json.as_bytes()).unwrap(), UID);
    }

    // Two stores on one cluster's disks with different `kube-system`: the younger one is the imposter's.
    #[test]
    fn the_creation_time_is_read() {
        let time = [vec![8], vec![0xc0, 0x91, 0xad, 0xc9, 0x06]].concat();
        let metadata = [field(1, b"kube-system"), field(5, UID.as_bytes()), field(8, &time)].concat();
        let value = [b"k8s\0".to_vec(), field(2, &field(1, &metadata))].concat();
        assert_eq!(namespace_created_s(&value), Some(1_764_444_352));
        assert_eq!(namespace_created_s(&stored("Namespace", UID)), None);
        assert_eq!(namespace_created_s(b"{}"), None);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let encrypted = namespace_uid(b"k8s:enc:aescbc:v1:key1:\x00\xff\x17:garbage").unwrap_err();
        assert_eq!(encrypted, UidFault::Encrypted { provider: "aescbc:v1:key1".into() });
        assert_eq!(namespace_uid(&stored("Secret", UID)), Err(UidFault::Kind("Secret".into())));
        assert_eq!(namespace_uid(&stored("Namespace", "")), Err(UidFault::Missing));
        assert_eq!(namespace_uid(b"\xd9\xd9\xf7\xa1"), Err(UidFault::Encoding("CBOR")));
        assert!(matches!(namespace_uid(b"k8s\0\xff\xff"), Err(UidFault::Damaged(_))));
        assert!(matches!(namespace_uid(b""), Err(UidFault::Damaged(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes: Vec<u8>, magic: bool) {
            if magic {
                bytes.splice(0..0, *b"k8s\0");
            }
            let _ = namespace_uid(&bytes);
        }
    }
}
