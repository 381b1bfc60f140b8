//! Nodes as a whole: for each one that does not work the cause told apart, and whether many share one.
//!
//! The API tells only that a node stopped reporting. Why is told by what an API server finds when it connects to the
//! kubelet (refused: the host runs; silent: it does not, or is cut off; healthy: it can't report), and by what was read
//! on the host itself, which counts more.

use crate::report::Report;
use rekindle_model::finding::{Evidence, Finding};
use rekindle_model::host::HostFacts;
use rekindle_model::inventory::Inventory;
use rekindle_model::kube::nodes::{
    Condition, Node, NodeState, NodeVerdict, OUT_OF_SERVICE, Reach, Thresholds,
};
use std::collections::BTreeMap;

/// Share of a zone's nodes from which on a shared cause is taken for granted (the node lifecycle controller's
/// `--unhealthy-zone-threshold`, by default 0.55), in percent; and how many nodes it takes.
const SHARED_PERCENT: usize = 55;
const SHARED_NODES: usize = 3;
/// Nodes that all went within this time went for one reason, in milliseconds.
const TOGETHER_MS: i64 = 60_000;
/// A node that is cordoned for longer than this is taken for forgotten, in milliseconds.
const FORGOTTEN_MS: i64 = 3_600_000;
/// Conditions that say that something runs out.
const PRESSURES: [&str; 3] = ["MemoryPressure", "DiskPressure", "PIDPressure"];
/// What of a kubelet's message tells of its container runtime.
const RUNTIME: [&str; 3] = ["container runtime is down", "runtime status check", "PLEG is not healthy"];
/// Taints that must be gone once a node works.
const PASSING: [&str; 4] = [
    OUT_OF_SERVICE,
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/not-ready",
    "node.cloudprovider.kubernetes.io/shutdown",
];

/// All nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// One each, in the order given.
    pub nodes: Vec<NodeVerdict>,
    /// What is wrong: a shared cause first.
    pub findings: Vec<Finding>,
}

/// What was read.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The nodes.
    pub nodes: &'a [Node],
    /// How long they may be silent.
    pub thresholds: &'a Thresholds,
    /// Now, milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// What was read on hosts, if any was.
    pub hosts: Option<&'a Inventory>,
    /// What is wrong with those hosts.
    pub host_findings: &'a [Finding],
}

/// Judges all nodes.
pub fn judge(seen: &Seen<'_>) -> Fleet {
    let mut report = Report::default();
    if let Some(shared) = shared_cause(seen) {
        report.findings.push(shared);
    }
    let nodes = seen.nodes.iter().map(|node| one(node, seen, &mut report)).collect();
    Fleet { nodes, findings: report.findings }
}

fn is_silent(node: &Node, seen: &Seen<'_>) -> bool {
    node.lease_renewed_ms.is_some_and(|at| !seen.thresholds.allow(at, seen.now_ms))
}

/// Whether nodes fail together: over 55 % of a zone (and three or more), or all of them within a minute.
pub fn shared_cause(seen: &Seen<'_>) -> Option<Finding> {
    let lost = |node: &&Node| !node.is_ready() || is_silent(node, seen);
    let mut zones: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    for node in seen.nodes {
        zones.entry(node.zone.as_str()).or_default().push(node);
    }
    for (zone, nodes) in zones {
        let gone: Vec<&Node> = nodes.iter().copied().filter(|node| lost(node)).collect();
        if gone.len() >= SHARED_NODES && gone.len() * 100 > nodes.len() * SHARED_PERCENT {
            let place = if zone.is_empty() { "of the cluster".to_owned() } else { format!("of zone {zone}") };
            let what = format!("{} of {} nodes {place} do not work", gone.len(), nodes.len());
            return Some(shared(&what, &gone));
        }
    }
    let gone: Vec<&Node> = seen.nodes.iter().filter(lost).collect();
    let times: Vec<i64> = gone.iter().filter_map(|node| node.condition("Ready")?.since_ms).collect();
    let span = times.iter().max().zip(times.iter().min()).map(|(last, first)| last - first);
    let all = gone.len() > 1 && gone.len() == seen.nodes.len() && times.len() == gone.len();
    (all && span.is_some_and(|span| span <= TOGETHER_MS))
        .then(|| shared(&format!("all {} nodes stopped working within a minute", gone.len()), &gone))
}

fn shared(what: &str, nodes: &[&Node]) -> Finding {
    let mut report = Report::default();
    let mut evidence = nodes.iter().take(5).map(|node| ready_evidence(node));
    let first = evidence.next().unwrap_or_else(|| Evidence { source: "nodes".into(), text: what.into() });
    let summary = format!("{what}: that is one shared cause, not many");
    report.found("RK-N10", None, "nodes fail one by one", summary, first, evidence.collect());
    report.findings.remove(0)
}

fn ready_evidence(node: &Node) -> Evidence {
    let text = node.condition("Ready").map_or_else(
        || "no condition Ready".to_owned(),
        |ready| format!("Ready={} {}: {}", ready.status, ready.reason, ready.message),
    );
    Evidence { source: format!("node {}", node.name()), text }
}

fn one(node: &Node, seen: &Seen<'_>, report: &mut Report) -> NodeVerdict {
    let ready = node.condition("Ready");
    let (state, detail) = match ready {
        Some(ready) if ready.status == "True" && is_silent(node, seen) => {
            silent(node, seen, Some(ready), report)
        }
        Some(ready) if ready.status == "True" => works(node, seen, report),
        Some(ready) if ready.status == "False" && !is_silent(node, seen) => says_no(node, ready, report),
        ready => silent(node, seen, ready, report),
    };
    let age = node.lease_renewed_ms.map(|at| seen.now_ms.saturating_sub(at) / 1000);
    NodeVerdict { name: node.name().to_owned(), state, detail, lease_age_seconds: age }
}

/// A node that reports and is Ready: pressure, cordon, taints left over.
fn works(node: &Node, seen: &Seen<'_>, report: &mut Report) -> (NodeState, String) {
    let mut said = Vec::new();
    let mut state = NodeState::Ready;
    let found = |code, summary: String, text: String, report: &mut Report| {
        let evidence = Evidence { source: format!("node {}", node.name()), text };
        report.found(code, None, "node works", summary, evidence, Vec::new());
    };
    for pressure in
        PRESSURES.iter().filter_map(|kind| node.condition(kind)).filter(|one| one.status == "True")
    {
        state = NodeState::Pressure;
        said.push(pressure.kind.clone());
        let text = format!("{}=True {}: {}", pressure.kind, pressure.reason, pressure.message);
        found("RK-N07", format!("{} is under {}", node.name(), pressure.kind), text, report);
    }
    for taint in node.taints.iter().filter(|taint| PASSING.contains(&taint.key.as_str())) {
        said.push(format!("left-over taint {}", taint.key));
        let text = format!("{}={}:{}", taint.key, taint.value, taint.effect);
        found(
            "RK-N09",
            format!("{} works, and still has the taint {}", node.name(), taint.key),
            text,
            report,
        );
    }
    if node.unschedulable {
        if state == NodeState::Ready {
            state = NodeState::Cordoned;
        }
        let age = node.cordoned_ms.map(|at| seen.now_ms.saturating_sub(at));
        let since =
            age.map_or_else(|| "for an unknown time".to_owned(), |age| format!("for {} min", age / 60_000));
        let by =
            if node.cordoned_by.is_empty() { String::new() } else { format!(" by {}", node.cordoned_by) };
        said.push(format!("cordoned {since}{by}"));
        if age.is_some_and(|age| age > FORGOTTEN_MS) {
            let summary = format!("{} is cordoned {since}{by}: forgotten?", node.name());
            found("RK-N08", summary, "spec.unschedulable=true".into(), report);
        }
    }
    (state, said.join(", "))
}

/// A node whose kubelet reports, and says that it is not ready.
fn says_no(node: &Node, ready: &Condition, report: &mut Report) -> (NodeState, String) {
    let said = format!("{}: {}", ready.reason, ready.message);
    let (state, code, what) = if RUNTIME.iter().any(|words| ready.message.contains(words)) {
        (NodeState::RuntimeDown, "RK-N06", "the container runtime is down")
    } else if ready.message.contains("NetworkPluginNotReady") || ready.message.contains("NetworkReady=false")
    {
        (NodeState::NetworkNotReady, "RK-N11", "the network plugin is not ready")
    } else {
        (NodeState::NotReady, "RK-N01", "the kubelet is not ready")
    };
    let summary = format!("{}: {what}, its kubelet says", node.name());
    report.found(code, None, "node works", summary, ready_evidence(node), Vec::new());
    (state, said)
}

/// A node that does not report: why, as far as something tells.
fn silent(
    node: &Node,
    seen: &Seen<'_>,
    ready: Option<&Condition>,
    report: &mut Report,
) -> (NodeState, String) {
    let name = node.name();
    let mut evidence = vec![ready_evidence(node)];
    if let Some(at) = node.lease_renewed_ms {
        let age = seen.now_ms.saturating_sub(at) / 1000;
        let text = format!(
            "renewed {age} s ago; {} s are allowed ({})",
            seen.thresholds.grace_period_seconds, seen.thresholds.source
        );
        evidence.push(Evidence { source: format!("lease kube-node-lease/{name}"), text });
    }
    let (state, code, what) = match host_tells(node, seen, &mut evidence) {
        Some(told) => told,
        None => proxy_tells(node, ready, &mut evidence),
    };
    let detail = evidence.last().map(|last| last.text.clone()).unwrap_or_default();
    let first = evidence.remove(0);
    report.found(code, None, "node works", format!("{name}: {what}"), first, evidence);
    (state, detail)
}

type Told = (NodeState, &'static str, &'static str);

/// What was read on the node's own host.
fn host_tells(node: &Node, seen: &Seen<'_>, evidence: &mut Vec<Evidence>) -> Option<Told> {
    let host = seen.hosts?.hosts.iter().find(|host| is_host_of(host, node))?;
    if let Some(why) = &host.unreachable {
        evidence.push(Evidence { source: host.id.to_string(), text: why.clone() });
        return matches!(node.kubelet, Reach::Silent(_) | Reach::Unknown(_) | Reach::NotAsked).then_some((
            NodeState::HostSilent,
            "RK-N04",
            "its host answers neither here nor to the API server",
        ));
    }
    let own: Vec<&Finding> =
        seen.host_findings.iter().filter(|one| one.host.as_ref() == Some(&host.id)).collect();
    let of = |code: &str| own.iter().find(|one| one.code == code);
    let certificate: Told =
        (NodeState::CertificateExpired, "RK-K03", "its kubelet's client certificate has expired");
    if let Some(expired) = expired(host, seen.now_ms / 1000) {
        evidence.push(expired);
        return Some(certificate);
    }
    let told: [(&str, Told); 5] = [
        ("RK-K03", certificate),
        ("RK-R01", (NodeState::RuntimeDown, "RK-N06", "its container runtime does not run")),
        ("RK-K01", (NodeState::KubeletDown, "RK-N03", "its kubelet does not run")),
        ("RK-K04", (NodeState::KubeletFrozen, "RK-N12", "its kubelet's process is there, and does nothing")),
        ("RK-K02", (NodeState::KubeletDown, "RK-N03", "its kubelet does not stay up")),
    ];
    for (code, told) in told {
        if let Some(finding) = of(code) {
            evidence.extend(finding.evidence.iter().cloned());
            return Some(told);
        }
    }
    let text = "the host answers, and its kubelet runs".to_owned();
    evidence.push(Evidence { source: host.id.to_string(), text });
    Some((NodeState::CutOff, "RK-N05", "it is alive, and its kubelet's reports do not arrive"))
}

/// The certificate with which the host's kubelet asks API servers, when it has expired. Of a kubelet that goes on running
/// its journal alone need not tell.
fn expired(host: &HostFacts, now_s: i64) -> Option<Evidence> {
    let facts = host.certificates.known()?;
    let file = facts.file("kubelet-client").or_else(|| facts.file("kubelet.conf"))?;
    let ended_s = file.certificate.known()?.not_after_s;
    let at = jiff::Timestamp::from_second(ended_s).ok()?;
    let text = format!("{}: {} expired {at}", file.path(), file.name);
    (ended_s < now_s).then(|| Evidence { source: host.id.to_string(), text })
}

/// Whether what was read on a host is of this node: by its name or an address of it.
fn is_host_of(host: &HostFacts, node: &Node) -> bool {
    let destination = host.id.0.rsplit('@').next().unwrap_or_default();
    let by_name = host.hostname.known().is_some_and(|name| name == node.name());
    let by_address =
        host.addresses.known().is_some_and(|all| all.iter().any(|one| node.addresses.contains(one)));
    by_name || by_address || destination == node.name() || node.addresses.iter().any(|one| one == destination)
}

/// What an API server found when it connected to the kubelet.
fn proxy_tells(node: &Node, ready: Option<&Condition>, evidence: &mut Vec<Evidence>) -> Told {
    let source = || format!("API server to the kubelet of {}", node.name());
    let mut told = |text: &str| evidence.push(Evidence { source: source(), text: text.to_owned() });
    match &node.kubelet {
        Reach::Healthy => {
            told("its kubelet answers that it is healthy");
            (
                NodeState::CutOff,
                "RK-N05",
                "it is alive, but its reports do not arrive: its way to the API server, or its client certificate",
            )
        }
        Reach::CannotAsk(said) => {
            told(said);
            (NodeState::CutOff, "RK-N05", "it is alive, and reaches no API server")
        }
        Reach::Unhealthy(said) => {
            told(said);
            (NodeState::KubeletDown, "RK-N03", "its kubelet answers, and is not healthy")
        }
        Reach::Hung(said) => {
            told(said);
            (
                NodeState::KubeletFrozen,
                "RK-N12",
                "its host takes connections for its kubelet, and nobody serves them",
            )
        }
        Reach::Refused(said) => {
            told(said);
            (NodeState::KubeletDown, "RK-N03", "its host runs, its kubelet does not")
        }
        Reach::Silent(said) => {
            told(said);
            (
                NodeState::HostSilent,
                "RK-N04",
                "its host does not answer: off, or cut off from the control plane",
            )
        }
        Reach::Unknown(said) => {
            told(said);
            (NodeState::NotReady, "RK-N01", "it does not report, and nothing tells why")
        }
        Reach::NotAsked if ready.is_some_and(|ready| ready.status == "True") => {
            (NodeState::Stale, "RK-N02", "it says Ready, and has not renewed its lease")
        }
        Reach::NotAsked => (NodeState::NotReady, "RK-N01", "it does not report"),
    }
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
