//! `ProveNothingLeft`: a namespace that is gone has left nothing behind, in any type that is served.

use super::super::context::{Ctx, outputs};
use super::list;
use crate::error::StepError;
use rekindle_model::event::Outputs;
use rekindle_world::discovery;

/// Lists every namespaced type in the namespace. A type that can't be listed is not proved, and said so.
pub(in super::super) async fn prove(ctx: &Ctx<'_>, namespace: &str) -> Result<Outputs, StepError> {
    let cluster = ctx.cluster()?;
    let found = discovery::discover(cluster).await?;
    let mut partial: Vec<String> =
        found.failed.iter().map(|(group, why)| format!("nothing is left of {group}: {why}")).collect();
    let mut left = Vec::new();
    let types: Vec<_> = found.resources.iter().filter(|one| one.namespaced && one.can("list")).collect();
    for one in &types {
        match cluster.get(&format!("{}?limit=5", one.collection(Some(namespace)))).await {
            Ok(answer) => {
                let items = answer.as_ref().map_or(0, |answer| list(answer, "/items").len());
                if items > 0 {
                    left.push(format!("{} ({items} or more)", one.full_name()));
                }
            }
            Err(error) => partial.push(format!("nothing is left of {}: {error}", one.full_name())),
        }
    }
    if !left.is_empty() {
        return Err(StepError::NotProved(format!(
            "nothing is left in {namespace}: there are {}",
            left.join(", ")
        )));
    }
    Ok(outputs! { "types" => types.len(), "partial" => partial })
}
