//! Static pods and units of the control plane: what each component needs, judged with etcd's verdict at hand. Here the
//! static pods; [`unit`] has the units, [`container`] what containers tell.

mod container;
mod unit;

use crate::etcd::EtcdState;
use crate::logs;
use crate::manifest;
use crate::report::{Report, seen_at};
use rekindle_model::diagnosis::{ComponentVerdict, MemberVerdict};
use rekindle_model::finding::{Evidence, Layer};
use rekindle_model::host::{ApiProbe, Component, HostFacts, Layout, ManifestFacts};
use rekindle_model::inventory::Inventory;
use rekindle_model::{HostId, Seen};
use std::collections::BTreeMap;

type Verdicts = BTreeMap<HostId, BTreeMap<Component, ComponentVerdict>>;

pub(crate) fn check(inventory: &Inventory, etcd: &EtcdState, report: &mut Report) -> Verdicts {
    let mut verdicts = Verdicts::new();
    for host in
        inventory.hosts.iter().filter(|h| h.unreachable.is_none() && !inventory.lost_hosts.contains(&h.id))
    {
        for component in Component::ALL {
            let verdict = match host.layout {
                Layout::StaticPods => static_pod(host, component, etcd, report),
                Layout::Units => unit::judge(host, component, etcd, report),
                Layout::None => None,
            };
            if let Some(verdict) = verdict {
                verdicts.entry(host.id.clone()).or_default().insert(component, verdict);
            }
        }
    }
    verdicts
}

pub(crate) fn title(component: Component) -> String {
    format!("{component} runs")
}

/// Whether it runs, as far as containers or processes tell.
fn runs(host: &HostFacts, component: Component) -> Option<bool> {
    match (&host.containers, &host.processes) {
        (_, Seen::Known(_)) if host.process(component).is_some() => Some(true),
        (Seen::Known(_), _) => Some(host.container(component).is_some_and(|c| c.running)),
        (_, Seen::Known(_)) => Some(false),
        _ => None,
    }
}

fn static_pod(
    host: &HostFacts,
    component: Component,
    etcd: &EtcdState,
    report: &mut Report,
) -> Option<ComponentVerdict> {
    let Seen::Known(manifests) = &host.manifests else {
        let why = host.manifests.why_unknown().unwrap_or_default();
        report.unknown(Layer::ControlPlane, Some(&host.id), &title(component), why);
        return None;
    };
    if component == Component::Etcd && etcd.member(&host.id).is_none() {
        return None;
    }
    duplicates(host, component, manifests, report);
    let Some(in_place) = host.manifest(component) else { return absent(host, component, report) };
    if let Some(error) = &in_place.parse_error {
        return Some(unparsable(host, component, in_place, error, report));
    }
    match runs(host, component) {
        // a crash loop may be met in the moment it runs
        Some(true) if !works(host, component, etcd) => {
            bad_flag(host, component, in_place, report).or_else(|| running(host, component, report))
        }
        Some(true) => running(host, component, report),
        Some(false) => Some(down(host, component, in_place, etcd, report)),
        None => {
            let why = host.containers.why_unknown().unwrap_or_default();
            report.unknown(Layer::ControlPlane, Some(&host.id), &title(component), why);
            None
        }
    }
}

fn duplicates(host: &HostFacts, component: Component, manifests: &[ManifestFacts], report: &mut Report) {
    let mut all = manifests.iter().filter(|m| m.in_place && m.component == Some(component));
    let (Some(first), Some(second)) = (all.next(), all.next()) else { return };
    let quote =
        |m: &ManifestFacts| seen_at(&host.id, &m.path, format!("pod of {component}, sha256 {}", m.sha256));
    let summary = format!("{} has more than one manifest for {component}", host.id);
    let title = format!("{component} has one manifest");
    report.found("RK-C08", Some(&host.id), &title, summary, quote(first), vec![quote(second)]);
    report.about(component);
}

fn absent(host: &HostFacts, component: Component, report: &mut Report) -> Option<ComponentVerdict> {
    let belongs = host.manifest_dir.join(format!("{component}.yaml"));
    let folder = seen_at(&host.id, &host.manifest_dir, format!("no manifest of {component}"));
    container::time(host, component, report);
    Some(match manifest::good_copy(host, component) {
        Some(copy) => {
            let found =
                seen_at(&host.id, &copy.path, format!("a manifest of {component}, sha256 {}", copy.sha256));
            let summary = format!("the manifest of {component} on {} was moved to {}", host.id, copy.path);
            report.found("RK-C02", Some(&host.id), &title(component), summary, folder, vec![found]);
            report.about(component);
            ComponentVerdict::ManifestMoved { found: copy.path.clone(), belongs }
        }
        None => {
            let summary = format!("the manifest of {component} on {} is missing", host.id);
            report.found("RK-C03", Some(&host.id), &title(component), summary, folder, vec![]);
            report.about(component);
            ComponentVerdict::ManifestMissing
        }
    })
}

fn unparsable(
    host: &HostFacts,
    component: Component,
    in_place: &ManifestFacts,
    error: &str,
    report: &mut Report,
) -> ComponentVerdict {
    let evidence = seen_at(&host.id, &in_place.path, error);
    let summary = format!("the manifest of {component} on {} cannot be read as a pod", host.id);
    report.time(Some(in_place.modified_ms), format!("{} was changed on {}", in_place.path, host.id));
    report.found("RK-C04", Some(&host.id), &title(component), summary, evidence, vec![]);
    report.about(component);
    match manifest::replace_unparsable(host, component) {
        Some(repair) => broken(in_place, repair),
        None => ComponentVerdict::Down(format!(
            "{} does not parse ({error}), and no good copy was found",
            in_place.path
        )),
    }
}

fn broken(manifest: &ManifestFacts, repair: manifest::Repair) -> ComponentVerdict {
    ComponentVerdict::ManifestBroken {
        path: manifest.path.clone(),
        sha256: manifest.sha256.clone(),
        repaired: repair.text,
        repair: repair.how,
    }
}

/// Runs: controller-manager and scheduler are asked for their health; etcd and the API server have layers of their own.
fn running(host: &HostFacts, component: Component, report: &mut Report) -> Option<ComponentVerdict> {
    report.ok(Layer::ControlPlane, Some(&host.id), &title(component), "");
    let health = host.healthz.get(&component)?;
    let title = format!("{component} is healthy");
    match health {
        Seen::Known(true) => report.ok(Layer::ControlPlane, Some(&host.id), &title, ""),
        Seen::Unknown(why) => report.unknown(Layer::ControlPlane, Some(&host.id), &title, why),
        Seen::Known(false) => {
            let evidence = seen_at(&host.id, format!("{component} /healthz"), "not ok");
            let summary = format!("{component} on {} runs but is not healthy", host.id);
            let more = logs::last_words(host, component.name()).map(|hit| hit.evidence);
            report.found("RK-C07", Some(&host.id), &title, summary, evidence, more.into_iter().collect());
            report.about(component);
            return Some(if api_ready(host) {
                ComponentVerdict::Down("it runs but its health check fails".into())
            } else {
                ComponentVerdict::Consequence
            });
        }
    }
    None
}

fn down(
    host: &HostFacts,
    component: Component,
    manifest: &ManifestFacts,
    etcd: &EtcdState,
    report: &mut Report,
) -> ComponentVerdict {
    container::time(host, component, report);
    if let Some(verdict) = bad_flag(host, component, manifest, report) {
        return verdict;
    }
    let below = below_is_bad(host, component, etcd, report);
    if told_by_member(host, component, etcd) {
        report.failed(Layer::ControlPlane, &host.id, &title(component), "its container does not run");
        return if below { ComponentVerdict::Consequence } else { ComponentVerdict::ContainerStopped };
    }
    let expired = certificate(host, component, report);
    let mut evidence = container::evidence(host, component);
    let first = evidence.pop().unwrap_or_else(|| {
        seen_at(&host.id, "containers", format!("none of {component}, though {} is in place", manifest.path))
    });
    let more = evidence.into_iter().chain(why_ended(host, component)).collect();
    let summary = format!("the container of {component} on {} does not run", host.id);
    report.found("RK-C06", Some(&host.id), &title(component), summary, first, more);
    report.about(component);
    match expired {
        Some(text) if !below => ComponentVerdict::Down(text),
        _ if below => ComponentVerdict::Consequence,
        _ => ComponentVerdict::ContainerStopped,
    }
}

/// etcd's own container or unit is down and the member's verdict says why: that is the finding, not this.
fn told_by_member(host: &HostFacts, component: Component, etcd: &EtcdState) -> bool {
    let told = |verdict: &MemberVerdict| {
        !matches!(verdict, MemberVerdict::Healthy | MemberVerdict::Unknown(_) | MemberVerdict::HostLost)
    };
    component == Component::Etcd && etcd.member(&host.id).is_some_and(told)
}

/// Its program ends because of a flag it does not know, and the manifest has that flag: an old line does not count.
fn bad_flag(
    host: &HostFacts,
    component: Component,
    manifest: &ManifestFacts,
    report: &mut Report,
) -> Option<ComponentVerdict> {
    let hit = logs::component(host, component, logs::UNKNOWN_FLAG)?;
    let flag = logs::flag_named(&hit.line)?;
    let given = given(&manifest.command, &flag)?;
    let in_manifest = seen_at(&host.id, &manifest.path, given);
    report.time(hit.at_ms, format!("{component} on {} says: unknown flag {flag}", host.id));
    report.time(Some(manifest.modified_ms), format!("{} was changed on {}", manifest.path, host.id));
    let summary = format!("{component} on {} is given {flag}, which it does not know", host.id);
    report.found("RK-C05", Some(&host.id), &title(component), summary, hit.evidence, vec![in_manifest]);
    report.about(component);
    Some(match manifest::without_flag(host, manifest, &flag) {
        Some(repair) => broken(manifest, repair),
        None => {
            ComponentVerdict::Down(format!("unknown flag {flag} in {}: take it out by hand", manifest.path))
        }
    })
}

/// The argument of a command line that is this flag.
fn given<'a>(command: &'a [String], flag: &str) -> Option<&'a String> {
    let name = flag.trim_start_matches('-');
    command
        .iter()
        .find(|arg| arg.starts_with('-') && arg.trim_start_matches('-').split('=').next() == Some(name))
}

fn certificate(host: &HostFacts, component: Component, report: &mut Report) -> Option<String> {
    if component == Component::Etcd {
        return None;
    }
    let hit = logs::component(host, component, logs::CERT_EXPIRED)?;
    report.time(hit.at_ms, format!("{component} on {} says that a certificate has expired", host.id));
    let summary = format!("{component} on {} says that a certificate has expired", host.id);
    let title = format!("certificates of {component} are valid");
    let text = hit.evidence.text.clone();
    report.found("RK-C10", Some(&host.id), &title, summary, hit.evidence, vec![]);
    report.about(component);
    Some(format!("a certificate has expired: {text}"))
}

fn why_ended(host: &HostFacts, component: Component) -> Option<Evidence> {
    let known = match component {
        Component::Etcd => logs::component(host, component, logs::ETCD_DAMAGE)
            .or_else(|| logs::component(host, component, logs::ETCD_LOG_LOST)),
        Component::KubeApiserver => logs::component(host, component, logs::API_STORAGE),
        _ => None,
    };
    known.or_else(|| logs::last_words(host, component.name())).map(|hit| hit.evidence)
}

/// Something below this component keeps it down: kubelet or runtime, its own data, etcd, or the API server.
fn below_is_bad(host: &HostFacts, component: Component, etcd: &EtcdState, report: &Report) -> bool {
    let pods = host.layout == Layout::StaticPods
        && ["RK-K01", "RK-K02", "RK-K04", "RK-R01"].iter().any(|code| report.has(code, Some(&host.id)));
    let member = etcd.member(&host.id);
    pods || match component {
        Component::Etcd => member.is_some_and(MemberVerdict::is_lost),
        Component::KubeApiserver => member.is_some_and(|m| *m != MemberVerdict::Healthy),
        Component::KubeControllerManager | Component::KubeScheduler => !api_ready(host),
    }
}

/// Whether it says itself that it works.
fn works(host: &HostFacts, component: Component, etcd: &EtcdState) -> bool {
    match component {
        Component::Etcd => etcd.member(&host.id) == Some(&MemberVerdict::Healthy),
        Component::KubeApiserver => api_ready(host),
        Component::KubeControllerManager | Component::KubeScheduler => {
            host.healthz.get(&component).and_then(Seen::known) == Some(&true)
        }
    }
}

fn api_ready(host: &HostFacts) -> bool {
    host.api.known().is_some_and(ApiProbe::is_ready)
}
