use super::*;
use proptest::prelude::*;

fn key() -> SigningKey {
    let dir = tempfile::tempdir().unwrap();
    SigningKey::create(&dir.path().join("key")).unwrap()
}

fn name(text: &str) -> ClusterName {
    ClusterName::new(text).unwrap()
}

fn some() -> Manifest {
    let writer = WriterName::new("cp-1").unwrap();
    let part = Part {
        name: "segment/01a205d8-ea45-7304-aa68-32643625d417-cp-1.seg.zst.age".into(),
        size_bytes: u64::MAX,
        sha256: "00".into(),
        plain_size_bytes: 1,
        plain_sha256: "11".into(),
    };
    let sample = HashKv { hash: u32::MAX, revision: 12, compact_revision: -1 };
    let segment = Segment {
        part,
        identity: ClusterIdentity {
            kube_system_uid: Some("0d3c".into()),
            etcd_cluster_id: Some(MemberId(0xfeed_beef_0000_0001)),
        },
        timeline: TimelineRef { id: "t".into(), parent: None, fork_revision: None },
        first_revision: 10,
        last_revision: 20,
        first_ms: 1,
        last_ms: 2,
        etcd_version: None,
        member: None,
        hash_kv: vec![sample],
        replaces: Vec::new(),
    };
    Manifest {
        api_version: API_VERSION.into(),
        cluster: name("c"),
        sequence: 5,
        before: Some(Link { sequence: 4, sha256: "22".into() }),
        writer,
        written_ms: 3,
        program: "test".into(),
        content: Content::Segment(segment),
    }
}

fn opened(bytes: &[u8], trusted: &[Signer]) -> Result<Manifest> {
    Manifest::opened("object", bytes, &name("c"), 5, trusted)
}

// A signed manifest counts for who trusts its signer, and only at its own place.
#[test]
fn signed_opened_and_bound_to_its_place() {
    let key = key();
    let bytes = some().sealed(&key).unwrap();
    assert_eq!(opened(&bytes, &[key.signer()]).unwrap(), some());
    let elsewhere = Manifest::opened("o", &bytes, &name("d"), 5, &[key.signer()]);
    assert!(matches!(elsewhere, Err(Error::Misplaced { .. })));
    let later = Manifest::opened("o", &bytes, &name("c"), 6, &[key.signer()]);
    assert!(matches!(later, Err(Error::Misplaced { .. })));
}

// Encryption is public: only the signature tells a backup from a forgery. A stranger's manifest is refused, and so is
// a stranger's signature under a trusted name.
#[test]
fn forgeries_are_refused() {
    let (ours, stranger) = (key(), key());
    let forged = some().sealed(&stranger).unwrap();
    assert!(matches!(opened(&forged, &[ours.signer()]), Err(Error::UnknownSigner { .. })));
    let text = String::from_utf8(forged).unwrap();
    let renamed = text.replace(&stranger.signer().to_string(), &ours.signer().to_string());
    assert!(matches!(opened(renamed.as_bytes(), &[ours.signer()]), Err(Error::Signature { .. })));
}

// What a trusted writer would never write is refused, too: a part outside the folder, a link that leads nowhere.
#[test]
fn contradictions_are_refused() {
    let key = key();
    let refused = |change: fn(&mut Manifest)| {
        let mut manifest = some();
        change(&mut manifest);
        let outcome = opened(&manifest.sealed(&key).unwrap(), &[key.signer()]);
        assert!(matches!(outcome, Err(Error::Contradiction { .. })), "{outcome:?}");
    };
    refused(|m| m.before = None);
    refused(|m| m.before.as_mut().unwrap().sequence = 3);
    refused(|m| {
        let Content::Segment(segment) = &mut m.content else { unreachable!() };
        segment.part.name = "../other/full/x".into();
    });
    refused(|m| {
        let Content::Segment(segment) = &mut m.content else { unreachable!() };
        segment.first_revision = 21;
    });
    let mut other = some();
    other.api_version = "rekindle.dev/v9".into();
    let outcome = opened(&other.sealed(&key).unwrap(), &[key.signer()]);
    assert!(matches!(outcome, Err(Error::Version { .. })));
}

// A later version's additional field does not make an older reader lose the backup.
#[test]
fn unknown_fields_are_let_pass() {
    let key = key();
    let mut value = serde_json::to_value(some()).unwrap();
    value["later"] = serde_json::json!({"a": 1});
    let raw = serde_json::value::to_raw_value(&value).unwrap();
    let envelope = serde_json::json!({
        "signer": key.signer(), "signature": key.sign(raw.get().as_bytes()), "manifest": value,
    });
    assert_eq!(opened(&serde_json::to_vec(&envelope).unwrap(), &[key.signer()]).unwrap(), some());
}

proptest! {
    // Hostile bytes, and every change of a good manifest: an error, never a panic, never accepted as something else.
    #[test]
    fn no_change_is_accepted(place in 0usize..10_000, bit in 0u8..8, noise in proptest::collection::vec(any::<u8>(), 0..200)) {
        static KEY: std::sync::LazyLock<SigningKey> = std::sync::LazyLock::new(key);
        let key = &*KEY;
        let bytes = some().sealed(key).unwrap();
        prop_assert!(opened(&noise, &[key.signer()]).is_err());
        let mut bad = bytes.clone();
        let place = place % bytes.len();
        bad[place] ^= 1 << bit;
        if let Ok(manifest) = opened(&bad, &[key.signer()]) {
            prop_assert_eq!(manifest, some(), "only white space outside the signed bytes");
        }
    }
}

// What a reader need not read is kept as runs: in whatever order, overlap and number they come.
#[test]
fn sets_of_numbers() {
    let mut set = NumberSet::default();
    for (first, last) in
        [(10, 20), (1, 3), (15, 25), (4, 4), (12, 13), (u64::MAX, u64::MAX), (30, 40), (24, 31)]
    {
        set.add(Numbers { first, last });
    }
    let runs: Vec<(u64, u64)> = set.0.iter().map(|(first, last)| (*first, *last)).collect();
    assert_eq!(runs, [(1, 4), (10, 40), (u64::MAX, u64::MAX)]);
    assert!([1, 4, 10, 40, u64::MAX].into_iter().all(|n| set.has(n)));
    assert!([0, 5, 9, 41].into_iter().all(|n| !set.has(n)));
    let numbers = BTreeSet::from([7, 1, 2, 9, 8]);
    let runs = Numbers::runs(&numbers);
    assert_eq!(runs, [Numbers { first: 1, last: 2 }, Numbers { first: 7, last: 9 }]);
}
