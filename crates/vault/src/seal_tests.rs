use super::*;
use crate::keys::Recipients;
use age::secrecy::ExposeSecret;
use rekindle_model::Redacted;

fn keys() -> (Recipients, Identities) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("identity");
    let identity = age::x25519::Identity::generate();
    std::fs::write(&path, identity.to_string().expose_secret()).unwrap();
    (Recipients::new([identity.to_public().to_string().as_str()]).unwrap(), Identities::read(&path).unwrap())
}

fn sealed(content: &[u8], recipients: &Recipients) -> (Part, Vec<u8>) {
    let mut bytes = Vec::new();
    let sealed = seal("part", content, None, recipients, &mut bytes).unwrap();
    (sealed.part("part".into()), bytes)
}

// Content comes back byte for byte, of any size around the buffers' sizes, and the digest of its first bytes is right.
#[test]
fn what_is_sealed_comes_back() {
    let (recipients, identities) = keys();
    for size in [0, 1, BUFFER_BYTES - 1, BUFFER_BYTES, 3 * BUFFER_BYTES + 7] {
        let content: Vec<u8> = (0..size).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
        for head in [0, 1, size / 2, size] {
            let head = head.min(size);
            let mut bytes = Vec::new();
            let sealed = seal("part", &*content, Some(head as u64), &recipients, &mut bytes).unwrap();
            assert_eq!(sealed.size_bytes, bytes.len() as u64);
            if size > 0 {
                assert_eq!(
                    sealed.head_sha256,
                    Some(hex(&Sha256::digest(&content[..head]))),
                    "{head} of {size}"
                );
            }
            let mut back = Vec::new();
            unseal("part", &sealed.part("part".into()), &*bytes, &identities, &mut back).unwrap();
            assert_eq!(back, content);
        }
    }
}

// A passphrase works like a recipient; another identity, or another passphrase, reads nothing.
#[test]
fn only_the_right_key_reads() {
    let (recipients, _) = keys();
    let (_, other) = keys();
    let (part, bytes) = sealed(b"secret", &recipients);
    let mut back = Vec::new();
    let refused = unseal("part", &part, &*bytes, &other, &mut back);
    assert!(matches!(refused, Err(Error::Decrypt { .. })), "{refused:?}");
    assert!(back.is_empty());
    let phrase = |text: &str| Redacted::new(text.to_owned());
    let (part, bytes) = sealed(b"secret", &Recipients::passphrase(phrase("correct horse")));
    unseal("part", &part, &*bytes, &Identities::passphrase(phrase("correct horse")), &mut back).unwrap();
    assert_eq!(back, b"secret");
    let wrong = unseal("part", &part, &*bytes, &Identities::passphrase(phrase("battery staple")), io::sink());
    assert!(matches!(wrong, Err(Error::Decrypt { .. })), "{wrong:?}");
}

// Every flipped bit of a stored part is found, with an identity and without, and said to be damage of what is stored.
#[test]
fn every_flipped_byte_is_found() {
    let (recipients, identities) = keys();
    let (part, bytes) = sealed(&[b'x'; 5000], &recipients);
    for place in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[place] ^= 0x10;
        for outcome in
            [check_stored("part", &part, &*bad), unseal("part", &part, &*bad, &identities, io::sink())]
        {
            assert!(matches!(outcome, Err(Error::Digest { what: "", .. })), "byte {place}: {outcome:?}");
        }
    }
    for (cut, name) in [(bytes.len() - 1, "cut"), (0, "empty")] {
        let outcome = unseal("part", &part, &bytes[..cut], &identities, io::sink());
        assert!(matches!(outcome, Err(Error::Size { .. })), "{name}: {outcome:?}");
    }
    let longer = [&bytes[..], b"more"].concat();
    assert!(matches!(check_stored("part", &part, &*longer), Err(Error::Size { .. })));
}

// A part whose stored form is as promised but whose content is not: a bomb ends at the promised size.
#[test]
fn content_larger_than_promised_is_not_unpacked() {
    let (recipients, identities) = keys();
    let (part, bytes) = sealed(&vec![0; 50 << 20], &recipients);
    assert!(bytes.len() < 100_000, "compressed");
    let promised = Part { plain_size_bytes: 1000, ..part.clone() };
    let mut counting = Hashing::new(io::sink(), None);
    let refused = unseal("part", &promised, &*bytes, &identities, &mut counting);
    assert!(matches!(refused, Err(Error::Size { what: "bytes of content", .. })), "{refused:?}");
    assert!(counting.count <= 1001);
    let other = Part { plain_sha256: part.sha256.clone(), ..part };
    let refused = unseal("part", &other, &*bytes, &identities, io::sink());
    assert!(matches!(refused, Err(Error::Digest { what: "the content of ", .. })), "{refused:?}");
}

// Hostile: a header that never ends is given up, not kept in memory.
#[test]
fn an_endless_header_is_given_up() {
    let (_, identities) = keys();
    let mut bytes = b"age-encryption.org/v1\n".to_vec();
    while bytes.len() < 4 << 20 {
        bytes.extend_from_slice(b"-> X25519 TEiF0ypqr+bpvcqXNyCVJpL7OuwPdVwPL7KQEbFDOCc\n");
        bytes.extend_from_slice(b"EmECAEcKN+n/Vs9SbWiV+Hu0r+E8R77DdWYyd83nw7U\n");
    }
    let part = Part {
        name: "part".into(),
        size_bytes: bytes.len() as u64,
        sha256: hex(&Sha256::digest(&bytes)),
        plain_size_bytes: 1,
        plain_sha256: String::new(),
    };
    let refused = unseal("part", &part, &*bytes, &identities, io::sink());
    assert!(matches!(refused, Err(Error::Decrypt { .. })), "{refused:?}");
}
