//! A segment of the write-ahead log, as the last one and as an earlier one: any bytes are read or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let last = etcd_disk::wal::decode_bytes(bytes, true);
    let earlier = etcd_disk::wal::decode_bytes(bytes, false);
    // what is damage in the last segment is damage anywhere
    assert!(!(last.is_err() && earlier.is_ok()));
});
