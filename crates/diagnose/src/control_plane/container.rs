//! What the containers of a component tell: how the newest one ended, and since when it is down.

use crate::report::{Report, seen_at};
use rekindle_model::Seen;
use rekindle_model::finding::Evidence;
use rekindle_model::host::{Component, ContainerFacts, HostFacts};

/// A run shorter than this is part of a crash loop.
const LOOP_MS: i64 = 300_000;

/// The newest container's end.
pub(super) fn evidence(host: &HostFacts, component: Component) -> Vec<Evidence> {
    let Some(container) = host.container(component) else { return Vec::new() };
    let code = container.exit_code.map_or_else(|| "?".into(), |code| code.to_string());
    let text = format!(
        "{} exited with {code} ({}), attempt {}",
        container.id.get(..12).unwrap_or(&container.id),
        container.reason,
        container.attempt
    );
    vec![seen_at(&host.id, format!("container {component}"), text)]
}

/// When it went down: the end of the last container that had run for a while; those of a crash loop come after it.
pub(super) fn time(host: &HostFacts, component: Component, report: &mut Report) {
    let Seen::Known(all) = &host.containers else { return };
    let mut first: Option<&ContainerFacts> = None;
    for container in all.iter().filter(|c| c.name == component.name()) {
        if container.running {
            break;
        }
        first = Some(container);
        if container.finished_ms.saturating_sub(container.started_ms) > LOOP_MS {
            break;
        }
    }
    if let Some(container) = first {
        report
            .time(Some(container.finished_ms), format!("the container of {component} on {} ended", host.id));
    }
}
