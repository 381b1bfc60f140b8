//! A segment of the change stream: any bytes are read or refused, also behind a header that fits, in frames that do.
#![no_main]

use etcd_disk::segment::survey_bytes;

/// Each chunk of at most 40 bytes as a frame with a right checksum.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"REKSEG01".to_vec();
    let header = [&[1u8][..], &[0; 24], &5i64.to_be_bytes(), &[0; 8]].concat();
    for content in std::iter::once(header.as_slice()).chain(bytes.chunks(40)) {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        out.extend(length);
        out.extend(crc32c::crc32c_append(crc32c::crc32c(&length), content).to_be_bytes());
        out.extend(content);
    }
    out
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = survey_bytes(bytes);
    if let Ok(facts) = survey_bytes(&framed(bytes)) {
        assert!(facts.last_revision >= facts.header.first_revision - 1);
    }
});
