//! Member and cluster ids: hashes of peer URLs and the cluster token.
//!
//! Source: `computeMemberID` and `RaftCluster.genID` in etcd's `server/etcdserver/api/membership`.
//! Who uses them: [`crate::restore`] for new members, [`crate::data_dir`] to name what it finds.

use std::fmt;

use sha1::{Digest, Sha1};

/// A 64-bit etcd id of a member or a cluster; shown as etcd shows it, in lowercase hex without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EtcdId(pub u64);

impl fmt::Display for EtcdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for EtcdId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl EtcdId {
    /// Reads an id back from the hex form etcd prints (1 to 16 digits, no prefix).
    pub fn parse_hex(text: &str) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

/// The id of a member born with a cluster: SHA-1 over its sorted peer URLs, joined without a separator, then
/// the cluster token; the first 8 bytes, big endian.
///
/// A member added later has the time of its addition in the hash too, so only founding members can be computed.
pub fn member_id(peer_urls: &[String], cluster_token: &str) -> EtcdId {
    let mut sorted: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut sha = Sha1::new();
    for url in sorted {
        sha.update(url.as_bytes());
    }
    sha.update(cluster_token.as_bytes());
    first_8_bytes(sha)
}

/// The id of a cluster founded by these members: SHA-1 over their ids, ascending, 8 bytes big endian each.
pub fn cluster_id(member_ids: &[EtcdId]) -> EtcdId {
    let mut sorted = member_ids.to_vec();
    sorted.sort_unstable();
    let mut sha = Sha1::new();
    for id in sorted {
        sha.update(id.0.to_be_bytes());
    }
    first_8_bytes(sha)
}

fn first_8_bytes(sha: Sha1) -> EtcdId {
    let mut head = [0u8; 8];
    for (to, from) in head.iter_mut().zip(sha.finalize()) {
        *to = from;
    }
    EtcdId(u64::from_be_bytes(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `etcdutl snapshot restore` of 3.5, 3.6 and 3.7 printed for these URLs and the token `tok`.
    #[test]
    fn ids_equal_those_of_etcdutl() {
        let id = |port: u16| member_id(&[format!("http://127.0.0.1:{port}")], "tok");
        assert_eq!(id(1003).to_string(), "5facfb90b61b458a");
        assert_eq!(id(1002).to_string(), "9288313ba1867e46");
        assert_eq!(id(1001).to_string(), "f81ee44e01b35da3");
        assert_eq!(cluster_id(&[id(1001), id(1002), id(1003)]).to_string(), "b144f6e17d320a6");
        assert_eq!(EtcdId::parse_hex("b144f6e17d320a6"), Some(EtcdId(0x0b14_4f6e_17d3_20a6)));
    }

    #[test]
    fn hex_that_is_none_is_refused() {
        for bad in ["", "+1", "0x1", "xyz", "11112222333344445"] {
            assert_eq!(EtcdId::parse_hex(bad), None, "{bad}");
        }
    }
}
