//! S7: no usable source. Refused with exit code 5, every candidate named with its reason, nothing touched. A copied db is
//! one only by consent.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, STOP_ALL, verified};
use testbed::set::Kind;

// A snapshot with a wrong sha256, one cut short, and one that does not exist: none may be taken. What is left is a copy of
// the db: refused too, until the operator consents; then the cluster comes back from it.
#[test]
fn no_usable_source_is_refused() {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    let host = cluster.set.host("cp1").unwrap();
    cluster.mark("early").unwrap();
    cluster.snapshot("cp1", "/backup/good.db").unwrap();
    let faults = "cd /backup; cp good.db flipped.db; printf X | dd of=flipped.db bs=1 seek=20000 conv=notrunc status=none; \
                  head -c 40000 good.db > short.db; \
                  mkdir /other; mv good.db /other/good.db";
    cluster.fault("cp1", faults).unwrap();
    let lost = "mkdir /copied; cp /var/lib/etcd/member/snap/db /copied/db; rm -rf /var/lib/etcd/member";
    cluster.fault("cp1", &format!("{STOP_ALL}; {lost}")).unwrap();
    let tree = || {
        host.script("find /etc/kubernetes /var/lib/etcd -type f | xargs sha256sum; find /var/lib/etcd")
            .unwrap()
    };
    let before = tree();
    let said = cluster.on("cp1", &["recover", "--snapshot", "/backup", "--yes"]).unwrap().expect(5).unwrap();
    for word in ["flipped.db", "short.db", "Refused"] {
        assert!(said.stdout.contains(word), "{word} is not told of in {}", said.stdout);
    }
    let said =
        cluster.on("cp1", &["recover", "--snapshot", "/nowhere.db", "--yes"]).unwrap().expect(5).unwrap();
    assert!(said.stdout.contains("/nowhere.db"), "{}", said.stdout);
    let said = cluster.on("cp1", &["recover", "--yes"]).unwrap().expect(5).unwrap();
    assert!(said.stdout.contains("--snapshot"), "what is possible is not told: {}", said.stdout);
    let copied = ["recover", "--snapshot", "/copied", "--yes"];
    let said = cluster.on("cp1", &copied).unwrap().expect(5).unwrap();
    assert!(said.stdout.contains("--skip-hash-check"), "the way to consent is not told: {}", said.stdout);
    assert_eq!(before, tree(), "something was touched");
    let said = cluster.on("cp1", &[&copied[..], &["--skip-hash-check", "-o", "json"]].concat()).unwrap();
    verified(&said.expect(0).unwrap()).unwrap();
    assert!(cluster.has_mark("early").unwrap());
}
