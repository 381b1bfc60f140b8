//! Whether the keys of a bundle are those of the backup: without the cluster's own service-account keys and CA every token
//! and certificate in a restored cluster is worth nothing.

use crate::commands::drill::report::Check;
use crate::commands::drill::sandbox::Settings;
use crate::failure::{Doing, Failure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use rekindle_model::Redacted;
use rekindle_world::cluster::{Cluster, Sent};
use serde_json::{Value, json};

const KEYS: &str = "the service-account keys are those of the backup";
const CA: &str = "the CA is that of the backup";

/// All that can be looked at.
pub(super) async fn checks(cluster: &Cluster, settings: &Settings, revision: i64) -> Vec<Check> {
    let unproved =
        "no PKI was given: name one with --pki, or put a bundle into the vault (`rekindle backup bundle`)";
    let keys = match &settings.service_account {
        None => Check::not_proved(KEYS, unproved),
        Some(_) => keys(cluster).await.unwrap_or_else(|failure| Check::failed(KEYS, failure.line())),
    };
    let ca = match &settings.ca {
        None => Check::not_proved(CA, unproved),
        Some(file) => match ca(cluster, file, revision).await {
            Ok(check) => check,
            Err(failure) => Check::failed(CA, failure.line()),
        },
    };
    vec![keys, ca]
}

/// Tokens of service accounts that lie in Secrets.
const STORED: &str = "/api/v1/secrets?fieldSelector=type%3Dkubernetes.io%2Fservice-account-token";
/// What marks a token that nobody used for long: an API server refuses it by design, whatever its keys
/// (Kubernetes `pkg/serviceaccount/legacy.go`).
const INVALID: &str = "kubernetes.io%2Flegacy-token-invalid-since";
/// Marked ones are counted up to here.
const COUNTED: usize = 500;

/// Tokens that lie in the backup must be good; where there are none, one that the private key signs.
async fn keys(cluster: &Cluster) -> Result<Check, Failure> {
    let stored = get(cluster, &format!("{STORED}&labelSelector=%21{INVALID}&limit=3")).await?;
    let tokens: Vec<Redacted<String>> = items(&stored).iter().filter_map(stored_token).collect();
    for token in &tokens {
        if !accepted(cluster, token).await? {
            return Ok(Check::failed(
                KEYS,
                "a service-account token of the backup is not accepted with these keys",
            ));
        }
    }
    if !tokens.is_empty() {
        return Ok(Check::passed(KEYS, format!("{} stored tokens are accepted", tokens.len())));
    }
    let marked = get(cluster, &format!("{STORED}&labelSelector={INVALID}&limit={COUNTED}")).await?;
    let none = none_to_compare(items(&marked).len());
    let accounts = get(cluster, "/api/v1/serviceaccounts?limit=1").await?;
    let Some(account) = items(&accounts).first().and_then(name) else {
        return Ok(Check::not_proved(KEYS, "there is no service account in the backup"));
    };
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", account.0, account.1);
    let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let made = cluster.send(&Method::POST, &path, Sent::Object(&asked)).await;
    let made = made.doing(|| "no token is made with these keys".into())?;
    let token = made.pointer("/status/token").and_then(Value::as_str).unwrap_or_default();
    let fits = accepted(cluster, &Redacted::new(token.to_owned())).await?;
    Ok(if fits {
        let detail = format!("sa.key and sa.pub fit each other; {none}");
        Check::passed("the service-account keys are a pair", detail)
    } else {
        Check::failed(KEYS, "what sa.key signs is not accepted with sa.pub: they are no pair")
    })
}

/// Why no stored token tells.
fn none_to_compare(marked: usize) -> String {
    let more = if marked >= COUNTED { " or more" } else { "" };
    match marked {
        0 => "the backup holds no token to compare them with".into(),
        _ => format!(
            "the backup holds no token to compare them with but {marked}{more} that the cluster had marked invalid, unused for long"
        ),
    }
}

async fn get(cluster: &Cluster, path: &str) -> Result<Value, Failure> {
    Ok(cluster.get(path).await.doing(|| format!("cannot read {path}"))?.unwrap_or_default())
}

fn items(list: &Value) -> &[Value] {
    list.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn name(object: &Value) -> Option<(&str, &str)> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    Some((text("/metadata/namespace")?, text("/metadata/name")?))
}

/// None also where its Secret is being deleted: such a token is refused by design, too.
fn stored_token(secret: &Value) -> Option<Redacted<String>> {
    if secret.pointer("/metadata/deletionTimestamp").is_some() {
        return None;
    }
    let encoded = secret.pointer("/data/token")?.as_str()?;
    Some(Redacted::new(String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?))
}

async fn accepted(cluster: &Cluster, token: &Redacted<String>) -> Result<bool, Failure> {
    let asked = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.expose()},
    });
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let answer = cluster.send(&Method::POST, path, Sent::Object(&asked)).await;
    let answer = answer.doing(|| "the restored API server reviews no token".into())?;
    Ok(answer.pointer("/status/authenticated").and_then(Value::as_bool).unwrap_or(false))
}

/// Every namespace has the CA in a ConfigMap.
async fn ca(cluster: &Cluster, file: &camino::Utf8Path, revision: i64) -> Result<Check, Failure> {
    let given = std::fs::read_to_string(file).doing(|| format!("cannot read {file}"))?;
    let at = format!(
        "fieldSelector=metadata.name%3Dkube-root-ca.crt&resourceVersion={revision}&resourceVersionMatch=Exact"
    );
    let found = get(cluster, &format!("/api/v1/configmaps?{at}")).await?;
    let texts: Vec<&str> =
        items(&found).iter().filter_map(|map| map.get("data")?.get("ca.crt")?.as_str()).collect();
    let same = |text: &&str| text.split_whitespace().eq(given.split_whitespace());
    Ok(match (texts.len(), texts.iter().filter(|text| same(text)).count()) {
        (0, _) => Check::not_proved(CA, "the backup holds no ConfigMap kube-root-ca.crt"),
        (all, equal) if all == equal => Check::passed(CA, format!("equal in {all} namespaces")),
        (all, equal) => Check::failed(CA, format!("{} of {all} namespaces hold another one", all - equal)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // A token that is on its way out says nothing of the keys, and of what was passed over it is told how much there was.
    #[test]
    fn what_is_refused_by_design_is_no_witness() {
        let secret = json!({"metadata": {"name": "a"}, "data": {"token": "dA=="}});
        assert!(stored_token(&secret).is_some_and(|token| token.expose() == "t"));
        let mut leaving = secret;
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(stored_token(&leaving).is_none());
        assert_eq!(none_to_compare(0), "the backup holds no token to compare them with");
        assert!(none_to_compare(2).contains("but 2 that"), "{}", none_to_compare(2));
        assert!(none_to_compare(COUNTED).contains("500 or more"));
    }
}
