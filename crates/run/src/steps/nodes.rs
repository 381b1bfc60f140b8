//! `WaitNodes`: Ready in restored data is history; a node counts when its lease was renewed since.

use super::api::{Api, refused, resource_version};
use super::context::{Ctx, Polled, outputs};
use super::leases::Since;
use crate::error::StepError;
use rekindle_model::event::Outputs;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(500);

/// What one look showed.
#[derive(Default)]
struct Look {
    ready: Vec<String>,
    waiting: Vec<String>,
    revision: Option<i64>,
}

pub(super) async fn wait_nodes(
    ctx: &Ctx<'_>,
    except: &[String],
    timeout_seconds: u64,
) -> Result<Outputs, StepError> {
    let api = Api::on_this_host(ctx).await?;
    let last = std::cell::RefCell::new(None);
    let since = std::cell::Cell::new(Since::api_came_back(ctx));
    let waited = ctx
        .poll("the nodes", EVERY, Duration::from_secs(timeout_seconds), || async {
            match look(ctx, &api, except, &since).await {
                Ok(look) if look.waiting.is_empty() => Ok(Polled::Ready(look)),
                Ok(look) => {
                    let told = look.waiting.join(", ");
                    *last.borrow_mut() = Some(look);
                    Ok(Polled::Pending(told))
                }
                Err(error) => Ok(Polled::Pending(crate::error::causes(&error).join(": "))),
            }
        })
        .await;
    let look = match (waited, last.into_inner()) {
        (Ok(look), _) => look,
        // Nodes that do not come are no reason to call the recovery failed, and none to call it whole.
        (Err(StepError::Timeout { .. }), Some(look)) => look,
        (Err(error), _) => return Err(error),
    };
    Ok(outputs! {
        "ready" => look.ready,
        "partial" => look.waiting,
        "excepted" => except,
        "revision" => look.revision,
        "verifiedMs" => crate::now_ms(),
    })
}

/// `since` none: leases must be renewed after this look.
async fn look(
    ctx: &Ctx<'_>,
    api: &Api,
    except: &[String],
    since: &std::cell::Cell<Option<Since>>,
) -> Result<Look, StepError> {
    let nodes = list(ctx, api, "/api/v1/nodes").await?;
    let leases = list(ctx, api, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases").await?;
    let renewed_since = since.get().unwrap_or_else(|| Since::revision(resource_version(&leases)));
    since.set(Some(renewed_since));
    let by_name: BTreeMap<&str, &Value> =
        items(&leases).iter().filter_map(|lease| Some((name_of(lease)?, lease))).collect();
    let mut look = Look { revision: resource_version(&nodes), ..Look::default() };
    for node in items(&nodes) {
        let Some(name) = name_of(node).filter(|name| !except.iter().any(|lost| lost == name)) else {
            continue;
        };
        let renewed = by_name.get(name).and_then(|lease| renewed_since.is_before(lease, "/spec/renewTime"));
        match (ready(node), renewed) {
            (Some("True"), Some(true)) => look.ready.push(name.to_owned()),
            (Some("True"), _) => look.waiting.push(format!("{name} (lease not renewed since)")),
            (status, _) => look.waiting.push(format!("{name} (Ready: {})", status.unwrap_or("not told"))),
        }
    }
    Ok(look)
}

/// Deletes a Node object.
pub(super) async fn delete(ctx: &Ctx<'_>, name: &str) -> Result<Outputs, StepError> {
    let api = Api::on_this_host(ctx).await?;
    let path = format!("/api/v1/nodes/{name}");
    let answer = api.delete(ctx, &path).await?;
    match answer.status {
        200 | 202 | 404 => Ok(outputs! { "deleted" => name }),
        _ => Err(refused("DELETE", &path, &answer)),
    }
}

async fn list(ctx: &Ctx<'_>, api: &Api, path: &str) -> Result<Value, StepError> {
    let missing = || StepError::Api { request: format!("GET {path}"), status: 404, body: String::new() };
    api.get_json(ctx, path).await?.ok_or_else(missing)
}

fn items(list: &Value) -> &[Value] {
    list.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn name_of(object: &Value) -> Option<&str> {
    object.pointer("/metadata/name")?.as_str()
}

fn ready(node: &Value) -> Option<&str> {
    let conditions = node.pointer("/status/conditions")?.as_array()?;
    let ready = conditions.iter().find(|c| c.get("type").and_then(Value::as_str) == Some("Ready"))?;
    ready.get("status")?.as_str()
}
