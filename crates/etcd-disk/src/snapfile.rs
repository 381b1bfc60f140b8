//! `.snap` files: `member/snap/<term>-<index>.snap`, a checksummed raft snapshot whose data is a v2 store as JSON.
//!
//! ```text
//! snappb.snapshot  { 1 crc = CRC-32C of data, 2 data }
//! raftpb.Snapshot  { 1 data = v2 store JSON, 2 metadata { 1 ConfState, 2 index, 3 term } }
//! v2 store         /0/members/<hex id>/{raftAttributes, attributes}, /0/removed_members/<hex id>, /0/version
//! ```
//! etcd 3.5 reads the members from here; 3.6 loads it for the ConfState; 3.7 does not read it.
//! Source: etcd `server/etcdserver/api/{snap,v2store,membership}`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::facts::Member;
use crate::files;
use crate::ids::EtcdId;
use crate::proto::{RaftSnapshot, SnapFile, SnapshotMetadata};
use crate::restore::cluster::{NewCluster, go_json};
use crate::wal;

/// A v2 store is small in a v3 cluster; what is larger is not read.
const SNAP_MAX_BYTES: u64 = 64 << 20;

/// What a `.snap` file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snap {
    /// Raft index up to which it covers the log.
    pub index: u64,
    /// Raft term of that index.
    pub term: u64,
    /// Ids of the voting members.
    pub voters: Vec<EtcdId>,
    /// Ids of the learners.
    pub learners: Vec<EtcdId>,
    /// The members in its v2 store.
    pub members: Vec<Member>,
}

/// Reads a `.snap` file.
///
/// # Errors
/// [`Error::SnapFile`] when it is damaged, [`Error::Io`] when it cannot be read.
pub fn read(path: &Path) -> Result<Snap> {
    let io = |source| Error::Io { path: path.to_owned(), action: "read it", source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(SNAP_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    parse(&bytes).map_err(|fault| Error::SnapFile { path: path.to_owned(), fault })
}

/// Parses the bytes of a `.snap` file; an error says what is wrong with them.
pub fn parse(bytes: &[u8]) -> Result<Snap, String> {
    if bytes.len() as u64 > SNAP_MAX_BYTES {
        return Err(format!("longer than {SNAP_MAX_BYTES} bytes"));
    }
    let file = SnapFile::decode(bytes).map_err(|e| format!("its frame is no protobuf: {e}"))?;
    let data = file.data.unwrap_or_default();
    let (expected, actual) = (file.crc.unwrap_or(0), crc32c::crc32c(&data));
    if data.is_empty() || expected == 0 {
        return Err("it is empty".into());
    }
    if expected != actual {
        return Err(format!("checksum {actual:08x}, recorded {expected:08x}"));
    }
    let snapshot =
        RaftSnapshot::decode(&data[..]).map_err(|e| format!("its raft snapshot is no protobuf: {e}"))?;
    let metadata = snapshot.metadata.unwrap_or_default();
    let conf = metadata.conf_state.unwrap_or_default();
    Ok(Snap {
        index: metadata.index.unwrap_or(0),
        term: metadata.term.unwrap_or(0),
        voters: conf.voters.into_iter().map(EtcdId).collect(),
        learners: conf.learners.into_iter().map(EtcdId).collect(),
        members: store_members(&snapshot.data.unwrap_or_default())?,
    })
}

/// Writes the `.snap` of a founding member into `snap_dir`; gives its path.
pub(crate) fn write(snap_dir: &Path, cluster: &NewCluster) -> Result<PathBuf> {
    let index = cluster.by_id().len() as u64;
    let path = snap_dir.join(format!("{:016x}-{index:016x}.snap", wal::TERM));
    let io = |action| {
        let path = path.clone();
        move |source| Error::Io { path, action, source }
    };
    let mut file = files::create_private(&path).map_err(io("create it"))?;
    file.write_all(&encode(cluster)).map_err(io("write it"))?;
    file.sync_all().map_err(io("sync it to disk"))?;
    Ok(path)
}

fn encode(cluster: &NewCluster) -> Vec<u8> {
    let metadata = SnapshotMetadata {
        conf_state: Some(wal::conf_state(cluster)),
        index: Some(cluster.by_id().len() as u64),
        term: Some(wal::TERM),
    };
    let snapshot = RaftSnapshot { data: Some(store_json(cluster).into_bytes()), metadata: Some(metadata) };
    let data = snapshot.encode_to_vec();
    SnapFile { crc: Some(crc32c::crc32c(&data)), data: Some(data) }.encode_to_vec()
}

/// A node of the v2 store.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    path: String,
    created_index: u64,
    modified_index: u64,
    #[serde(skip_deserializing)]
    expire_time: &'static str,
    value: String,
    children: Option<BTreeMap<String, Node>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Store {
    root: Node,
    current_index: u64,
    current_version: u64,
}

impl Node {
    fn new(path: &str, index: u64, value: String, children: Option<BTreeMap<String, Node>>) -> Self {
        // Go's zero time: the node never expires
        let expire_time = "0001-01-01T00:00:00Z";
        Self { path: path.into(), created_index: index, modified_index: index, expire_time, value, children }
    }

    fn child(&self, name: &str) -> Option<&Node> {
        self.children.as_ref()?.get(name)
    }
}

/// The v2 store of a founding cluster, without the event history, which etcd starts empty then.
fn store_json(cluster: &NewCluster) -> String {
    let mut members = BTreeMap::new();
    for (index, (id, member)) in (1u64..).zip(cluster.by_id()) {
        let path = format!("/0/members/{id}");
        let attributes = go_json(&serde_json::json!({ "peerURLs": member.peer_urls }));
        let leaf = Node::new(&format!("{path}/raftAttributes"), index, attributes, None);
        let children = BTreeMap::from([("raftAttributes".to_owned(), leaf)]);
        members.insert(id.to_string(), Node::new(&path, index, String::new(), Some(children)));
    }
    let members = Node::new("/0/members", 1, String::new(), Some(members));
    let zero = Node::new("/0", 0, String::new(), Some(BTreeMap::from([("members".to_owned(), members)])));
    let one = Node::new("/1", 0, String::new(), Some(BTreeMap::new()));
    let top = BTreeMap::from([("0".to_owned(), zero), ("1".to_owned(), one)]);
    let store = Store {
        root: Node::new("/", 0, String::new(), Some(top)),
        current_index: cluster.by_id().len() as u64,
        current_version: 2,
    };
    go_json(&serde_json::to_value(store).unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RaftAttributes {
    #[serde(rename = "peerURLs", default)]
    peer_urls: Option<Vec<String>>,
    #[serde(default)]
    is_learner: bool,
}

#[derive(Deserialize, Default)]
struct Attributes {
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs", default)]
    client_urls: Option<Vec<String>>,
}

/// The members in a v2 store; a store that is no JSON is a fault, one without members has none.
fn store_members(json: &[u8]) -> Result<Vec<Member>, String> {
    if json.is_empty() {
        return Ok(Vec::new());
    }
    let store: Store = serde_json::from_slice(json).map_err(|e| format!("its v2 store: {e}"))?;
    let Some(nodes) =
        store.root.child("0").and_then(|n| n.child("members")).and_then(|n| n.children.as_ref())
    else {
        return Ok(Vec::new());
    };
    nodes.iter().map(|(hex, node)| node_member(hex, node)).collect()
}

fn node_member(hex: &str, node: &Node) -> Result<Member, String> {
    let id = EtcdId::parse_hex(hex).ok_or_else(|| format!("its v2 store has a member named {hex:?}"))?;
    let raft = node.child("raftAttributes").ok_or_else(|| format!("member {id} without raftAttributes"))?;
    let raft: RaftAttributes =
        serde_json::from_str(&raft.value).map_err(|e| format!("raftAttributes of member {id}: {e}"))?;
    let attributes: Attributes = match node.child("attributes") {
        Some(n) => serde_json::from_str(&n.value).map_err(|e| format!("attributes of member {id}: {e}"))?,
        None => Attributes::default(),
    };
    Ok(Member {
        id,
        name: attributes.name,
        peer_urls: raft.peer_urls.unwrap_or_default(),
        client_urls: attributes.client_urls.unwrap_or_default(),
        is_learner: raft.is_learner,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn three() -> NewCluster {
        let text = "m1=http://127.0.0.1:1001,m2=http://127.0.0.1:1002,m3=http://127.0.0.1:1003";
        NewCluster::from_initial_cluster(text, "tok").unwrap()
    }

    #[test]
    fn a_founding_snap_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), &three()).unwrap();
        assert_eq!(path.file_name().unwrap(), "0000000000000001-0000000000000003.snap");
        let snap = read(&path).unwrap();
        assert_eq!((snap.index, snap.term), (3, 1));
        assert_eq!(snap.voters, three().by_id().iter().map(|(id, _)| *id).collect::<Vec<_>>());
        assert!(snap.learners.is_empty());
        assert_eq!(snap.members.len(), 3);
        assert_eq!(snap.members[0].peer_urls, ["http://127.0.0.1:1003"]);
    }

    proptest! {
        #[test]
        fn a_changed_or_cut_snap_is_refused(at: prop::sample::Index, flip in 1u8.., cut: bool) {
            let mut bytes = encode(&three());
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= flip;
            }
            prop_assert!(parse(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        /// The checksum fits, the content is anything.
        #[test]
        fn any_store_is_survived(json: String) {
            let snapshot = RaftSnapshot { data: Some(json.into_bytes()), metadata: None };
            let data = snapshot.encode_to_vec();
            let _ = parse(&SnapFile { crc: Some(crc32c::crc32c(&data)), data: Some(data) }.encode_to_vec());
        }
    }
}
