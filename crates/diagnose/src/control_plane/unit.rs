//! A component that a systemd unit runs.

use super::{below_is_bad, certificate, given, running, title, told_by_member, why_ended};
use crate::etcd::EtcdState;
use crate::logs;
use crate::report::{Report, seen_at};
use crate::runtime::state;
use rekindle_model::diagnosis::ComponentVerdict;
use rekindle_model::finding::Layer;
use rekindle_model::host::{Component, HostFacts};

/// What the unit needs; none when it works or is not there.
pub(super) fn judge(
    host: &HostFacts,
    component: Component,
    etcd: &EtcdState,
    report: &mut Report,
) -> Option<ComponentVerdict> {
    let name = match component {
        Component::Etcd => format!("{}.service", logs::etcd_unit(host)),
        other => format!("{other}.service"),
    };
    let unit = host.unit(&name).filter(|u| u.exists());
    let Some(unit) = unit else {
        let why = host.units.get(&name).map(|u| u.why_unknown().unwrap_or("no such unit"));
        if let Some(why) = why.filter(|_| component != Component::Etcd || etcd.member(&host.id).is_some()) {
            report.unknown(Layer::ControlPlane, Some(&host.id), &title(component), why);
        }
        return None;
    };
    if unit.is_active() {
        return running(host, component, report);
    }
    let shown = seen_at(&host.id, format!("systemctl show {name}"), state(unit));
    if let Some(hit) = logs::component(host, component, logs::UNKNOWN_FLAG)
        && let Some(flag) = logs::flag_named(&hit.line)
        && let Some(given) = given(&unit.exec_start, &flag)
    {
        report.time(hit.at_ms, format!("{component} on {} says: unknown flag {flag}", host.id));
        let more = vec![seen_at(&host.id, &unit.fragment_path, given), shown];
        let summary = format!("{component} on {} is given {flag}, which it does not know", host.id);
        report.found("RK-C05", Some(&host.id), &title(component), summary, hit.evidence, more);
        report.about(component);
        return Some(ComponentVerdict::Down(format!(
            "unknown flag {flag} in {}: take it out",
            unit.fragment_path
        )));
    }
    let below = below_is_bad(host, component, etcd, report);
    let words = logs::last_words(host, component.name());
    report.time(words.as_ref().and_then(|w| w.at_ms), format!("last line of {name} on {}", host.id));
    if told_by_member(host, component, etcd) {
        report.failed(
            Layer::ControlPlane,
            &host.id,
            &title(component),
            format!("{name} is {}", unit.active_state),
        );
        return Some(if below {
            ComponentVerdict::Consequence
        } else {
            ComponentVerdict::UnitStopped { unit: name }
        });
    }
    let expired = certificate(host, component, report);
    let more = words.map(|w| w.evidence).into_iter().chain(why_ended(host, component)).collect();
    let summary = format!("{name} on {} is {}", host.id, unit.active_state);
    report.found("RK-C01", Some(&host.id), &title(component), summary, shown, more);
    report.about(component);
    Some(match expired {
        Some(text) if !below => ComponentVerdict::Down(text),
        // systemd starts it again by itself once what is below it works
        _ if below && unit.active_state == "activating" => ComponentVerdict::Consequence,
        _ => ComponentVerdict::UnitStopped { unit: name },
    })
}
