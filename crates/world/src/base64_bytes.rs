//! Bytes in JSON as base64: the seam's requests and replies cross an SSH channel as JSON, and a number per byte would
//! make a file four times as long as it is. For `#[serde(with = ...)]`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(bytes))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)
}

/// The same for values beside their keys.
pub(crate) mod pairs {
    use super::STANDARD;
    use base64::Engine as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(pairs: &[(String, Vec<u8>)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(pairs.iter().map(|(key, value)| (key, STANDARD.encode(value))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<(String, Vec<u8>)>, D::Error> {
        let decode = |(key, value): (String, String)| Ok((key, STANDARD.decode(value)?));
        let pairs: Result<_, base64::DecodeError> =
            Vec::<(String, String)>::deserialize(from)?.into_iter().map(decode).collect();
        pairs.map_err(serde::de::Error::custom)
    }
}
