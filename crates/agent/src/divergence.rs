//! Whether the members hold the same data. Each compaction leaves in every member a hash of what it kept; as long as it is
//! cached there it is free to ask for (`server/storage/mvcc/hash.go`, 3.5 to 3.7).

use camino::Utf8PathBuf;
use futures::future::join_all;
use rekindle_model::etcd::{EtcdEndpoint, HashKv};
use rekindle_world::etcd_client::MemberClient;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

use crate::health::{Compared, Health};

/// Longest wait for a member: a cached hash comes at once.
const ANSWER: Duration = Duration::from_secs(10);

/// Asks every member for the hash of a compaction, and publishes who differs.
pub(crate) async fn compare(
    endpoints: Vec<EtcdEndpoint>,
    root: Utf8PathBuf,
    revision: i64,
    health: Arc<watch::Sender<Health>>,
) {
    let asked = endpoints.iter().map(|endpoint| async {
        let answer = async {
            let client = MemberClient::open(endpoint, &root).await.ok()?;
            client.hash_kv(revision).await.ok()
        };
        let answer = tokio::time::timeout(ANSWER, answer).await.ok().flatten()?;
        Some((endpoint.url.clone(), answer))
    });
    let answers: Vec<(String, HashKv)> = join_all(asked).await.into_iter().flatten().collect();
    if let Some(diverged) = diverged(&answers) {
        health.send_modify(|health| health.compared = Some(Compared { revision, diverged }));
    }
}

/// Endpoints that differ from most; none: nothing could be compared. A hash that was made anew instead of cached (its
/// member was started again) is of another stretch of revisions and says nothing.
fn diverged(answers: &[(String, HashKv)]) -> Option<Vec<String>> {
    let mut stretches: BTreeMap<(i64, i64), Vec<(&String, u32)>> = BTreeMap::new();
    for (url, told) in answers {
        stretches.entry((told.compact_revision, told.revision)).or_default().push((url, told.hash));
    }
    let alike = stretches.into_values().max_by_key(Vec::len).filter(|alike| alike.len() > 1)?;
    let with = |hash: u32| alike.iter().filter(|(_, other)| *other == hash).count();
    let agreed = alike.iter().map(|(_, hash)| *hash).find(|hash| with(*hash) * 2 > alike.len());
    let differs = alike.iter().filter(|(_, hash)| Some(*hash) != agreed);
    Some(differs.map(|(url, _)| (*url).clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(url: &str, hash: u32, compact_revision: i64) -> (String, HashKv) {
        (url.to_owned(), HashKv { hash, revision: 9, compact_revision })
    }

    // Whom the majority speaks against is named; two that disagree are both named, since neither is known to be right.
    #[test]
    fn who_differs_is_named() {
        let [a, b, c] = [answer("a", 1, 4), answer("b", 1, 4), answer("c", 2, 4)];
        assert_eq!(diverged(&[a.clone(), b.clone(), c.clone()]), Some(vec!["c".into()]));
        assert_eq!(diverged(&[a.clone(), b.clone()]), Some(Vec::new()));
        assert_eq!(diverged(&[a.clone(), c]), Some(vec!["a".into(), "c".into()]));
        assert_eq!(diverged(std::slice::from_ref(&a)), None);
    }

    // A member that was started again has hashed what is left, not what was compacted: no accusation.
    #[test]
    fn other_stretches_are_not_compared() {
        assert_eq!(diverged(&[answer("a", 1, 4), answer("b", 3, 9)]), None);
        let three = [answer("a", 1, 4), answer("b", 1, 4), answer("c", 3, 9)];
        assert_eq!(diverged(&three), Some(Vec::new()));
    }
}
