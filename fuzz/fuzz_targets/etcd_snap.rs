//! A `.snap` file: any bytes are read or refused, and so is any content behind a checksum that fits.
#![no_main]

use etcd_disk::proto::{RaftSnapshot, SnapFile, SnapshotMetadata};
use prost::Message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = etcd_disk::snapfile::parse(bytes);
    let store = RaftSnapshot { data: Some(bytes.to_vec()), metadata: Some(SnapshotMetadata::default()) };
    for data in [bytes.to_vec(), store.encode_to_vec()] {
        let crc = crc32c::crc32c(&data);
        let _ = etcd_disk::snapfile::parse(&SnapFile { crc: Some(crc), data: Some(data) }.encode_to_vec());
    }
});
