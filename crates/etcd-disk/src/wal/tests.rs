//! What is written is read back; what a crash or a bad disk leaves is told apart and never misread.

use std::path::Path;

use proptest::prelude::*;
use prost::Message;
use sha1::{Digest, Sha1};

use super::write::{Encoder, records};
use super::{Record, Tail, create, decode_bytes, facts, kind, read};
use crate::error::{Error, WalFault};
use crate::ids::EtcdId;
use crate::proto::{Entry, HardState, WalMetadata};
use crate::restore::NewCluster;

const THREE: &str = "m1=http://127.0.0.1:1001,m2=http://127.0.0.1:1002,m3=http://127.0.0.1:1003";

fn three() -> NewCluster {
    NewCluster::from_initial_cluster(THREE, "tok").unwrap()
}

/// The log that `etcdutl snapshot restore` of 3.5 and 3.6 wrote for these members, without its trailing zeros.
#[test]
fn the_founding_log_is_etcdutls_byte_for_byte() {
    let cluster = three();
    let mut log = records(cluster.member_id("m1").unwrap().0, &cluster);
    while log.last() == Some(&0) {
        log.pop();
    }
    assert_eq!(log.len(), 529);
    let sha: [u8; 20] = Sha1::digest(&log).into();
    assert_eq!(crate::snapshot::hex(&sha), "949d65b71b333f314fd3339a25741662d9790a9a");
}

#[test]
fn a_founding_log_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let wal_dir = dir.path().join("wal");
    create(&wal_dir, 7, &three()).unwrap();
    let segment = wal_dir.join("0000000000000000-0000000000000000.wal");
    assert_eq!(std::fs::metadata(segment).unwrap().len(), 64_000_000);
    let facts = facts(&wal_dir).unwrap();
    assert_eq!(facts.member_id, Some(EtcdId(7)));
    assert_eq!(facts.cluster_id, Some(three().cluster_id()));
    assert_eq!((facts.first_index, facts.last_index, facts.last_term, facts.commit), (1, 3, 1, 3));
    assert_eq!((facts.conf_changes, facts.segments), (3, 1));
    assert_eq!(facts.snapshots, [(0, 0), (3, 1)]);
    assert_eq!(facts.tail, Tail::Clean);
}

/// Entries 1..=n of the given sizes over segments that hold `per_segment` of them.
fn write_log(dir: &Path, sizes: &[usize], per_segment: usize) -> Vec<Vec<u8>> {
    let metadata = WalMetadata { node_id: Some(1), cluster_id: Some(2) }.encode_to_vec();
    let mut crc = 0;
    let mut written = Vec::new();
    for (number, chunk) in sizes.chunks(per_segment).enumerate() {
        let mut log = Encoder { bytes: Vec::new(), crc };
        log.record(kind::CRC, None);
        log.record(kind::METADATA, Some(metadata.clone()));
        for (position, size) in chunk.iter().enumerate() {
            let index = (number * per_segment + position + 1) as u64;
            let data = vec![u8::try_from(index % 251).unwrap() + 1; *size];
            let entry = Entry { entry_type: Some(0), term: Some(1), index: Some(index), data: Some(data) };
            log.record(kind::ENTRY, Some(entry.encode_to_vec()));
        }
        let state = HardState { term: Some(1), vote: Some(1), commit: Some(1) };
        log.record(kind::STATE, Some(state.encode_to_vec()));
        crc = log.crc;
        std::fs::write(segment_path(dir, number, per_segment), &log.bytes).unwrap();
        written.push(log.bytes);
    }
    written
}

fn segment_path(dir: &Path, number: usize, per_segment: usize) -> std::path::PathBuf {
    dir.join(format!("{number:016x}-{:016x}.wal", number * per_segment + 1))
}

fn entries(dir: &Path) -> (Vec<u64>, crate::Result<super::WalFacts>) {
    let mut seen = Vec::new();
    let facts = read(dir, &mut |record| {
        if let Record::Entry(entry) = record {
            seen.push(entry.index.unwrap());
        }
        Ok(())
    });
    (seen, facts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn logs_are_read_back_over_segments(sizes in prop::collection::vec(0usize..2000, 1..40), per in 1usize..12) {
        let dir = tempfile::tempdir().unwrap();
        write_log(dir.path(), &sizes, per);
        let (seen, facts) = entries(dir.path());
        let facts = facts.unwrap();
        prop_assert_eq!(seen, (1..=sizes.len() as u64).collect::<Vec<_>>());
        prop_assert_eq!(facts.segments, sizes.len().div_ceil(per) as u64);
        prop_assert_eq!(facts.tail, Tail::Clean);
    }

    /// A log cut anywhere is a shorter log: in the last segment torn, in another one damaged.
    #[test]
    fn a_cut_loses_only_what_is_behind_it(sizes in prop::collection::vec(0usize..600, 2..12), at: prop::sample::Index, first: bool) {
        let dir = tempfile::tempdir().unwrap();
        let per = sizes.len().div_ceil(2);
        let segments = write_log(dir.path(), &sizes, per);
        let number = if first { 0 } else { segments.len() - 1 };
        let bytes = &segments[number];
        let cut = at.index(bytes.len());
        std::fs::write(segment_path(dir.path(), number, per), &bytes[..cut]).unwrap();
        let (seen, facts) = entries(dir.path());
        prop_assert!(seen.iter().enumerate().all(|(i, &index)| index == i as u64 + 1), "{:?}", seen);
        match facts {
            Ok(facts) => prop_assert!(!first || facts.tail == Tail::Clean),
            Err(Error::Wal { .. }) => prop_assert!(first),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    /// A changed byte is found, or lies in padding, or ends the log where etcd would end it, too.
    #[test]
    fn a_changed_byte_never_changes_an_entry(sizes in prop::collection::vec(1usize..300, 1..12), at: prop::sample::Index, flip in 1u8..) {
        let dir = tempfile::tempdir().unwrap();
        let per = sizes.len();
        let mut bytes = write_log(dir.path(), &sizes, per).remove(0);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        std::fs::write(segment_path(dir.path(), 0, per), &bytes).unwrap();
        let mut index = 0;
        let _ = read(dir.path(), &mut |record| {
            if let Record::Entry(entry) = record {
                index += 1;
                assert_eq!(entry.index, Some(index));
                let expected = u8::try_from(index % 251).unwrap() + 1;
                assert!(entry.data.unwrap().iter().all(|&b| b == expected));
            }
            Ok(())
        });
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, is_last: bool) {
        let _ = decode_bytes(&bytes, is_last);
    }
}

/// The sector of a record that was never written is all zeros: torn, not damaged; elsewhere it is damage.
#[test]
fn a_torn_sector_is_told_from_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = write_log(dir.path(), &[100, 3000], 2).remove(0);
    let path = segment_path(dir.path(), 0, 2);
    bytes[1024..1536].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let (seen, facts) = entries(dir.path());
    assert_eq!(seen, [1]);
    assert!(matches!(facts.unwrap().tail, Tail::Torn { offset, .. } if offset < 1024));
    bytes[1024..1536].fill(9);
    std::fs::write(&path, &bytes).unwrap();
    let (_, facts) = entries(dir.path());
    assert!(matches!(facts, Err(Error::Wal { fault: WalFault::Crc { .. }, .. })));
}

#[test]
fn an_absurd_length_is_refused_before_memory_is_taken() {
    let mut bytes = (1u64 << 50).to_le_bytes().to_vec();
    bytes.resize(4096, 1);
    assert!(matches!(decode_bytes(&bytes, false), Err((0, WalFault::Length { .. }))));
}

#[test]
fn a_missing_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write_log(dir.path(), &[1, 2, 3], 1);
    std::fs::remove_file(segment_path(dir.path(), 1, 1)).unwrap();
    let error = facts(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Wal { fault: WalFault::Sequence { found: 2, last: 0 }, .. }), "{error}");
    let empty = tempfile::tempdir().unwrap();
    assert!(facts(empty.path()).is_err());
}
