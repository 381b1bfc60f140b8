//! A managed cluster: what its API tells is judged as elsewhere; the layers beneath are the provider's, and said to be.

use crate::fleet;
use crate::report::Report;
use crate::stuck;
use rekindle_model::Seen;
use rekindle_model::finding::{CheckLine, Evidence, Finding, Layer};
use rekindle_model::kube::nodes::{Node, NodeState, Thresholds};
use rekindle_model::kube::stuck::StuckFacts;

/// What was read through the API of a managed cluster.
#[derive(Clone, Debug)]
pub struct ManagedFacts {
    /// Whose service it is, by name: `EKS`.
    pub provider: String,
    /// URL of the API server.
    pub server: String,
    /// HTTP status of its `/readyz`, or why it did not answer.
    pub readyz: Seen<u16>,
    /// The nodes, and how long they may be silent.
    pub nodes: Seen<(Vec<Node>, Thresholds)>,
    /// What will not go away, or keeps others from working.
    pub stuck: StuckFacts,
    /// When, milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// What nobody but the provider can look at, and what tells of it instead.
const BENEATH: [(Layer, &str, &str); 7] = [
    (Layer::Host, "control-plane hosts work", "no access to them is given"),
    (Layer::Certificates, "certificates are valid", "it issues and renews them"),
    (Layer::Runtime, "container runtimes work", "that of a node shows in the node's conditions"),
    (Layer::Kubelet, "kubelets work", "that of a node shows in the node's conditions"),
    (Layer::ControlPlane, "control-plane components run", "their logs are in its logging service"),
    (Layer::Etcd, "etcd is healthy", "no access to it is given: back up with `rekindle resources backup`"),
    (Layer::Leases, "controllers lead", "it may hide them"),
];

/// Check lines in layer order, and findings. When the API does not answer, nothing else is judged.
pub fn judge(facts: &ManagedFacts) -> (Vec<CheckLine>, Vec<Finding>) {
    let mut report = Report::default();
    for (layer, title, instead) in BENEATH {
        let why = format!("not looked at: this is {}'s part; {instead}", facts.provider);
        report.unknown(layer, None, title, why);
    }
    if api(facts, &mut report) {
        nodes(facts, &mut report);
        objects(&facts.stuck, &mut report);
    }
    report.checks.sort_by_key(|line| line.layer);
    (report.checks, report.findings)
}

/// Whether the API server answers at all.
fn api(facts: &ManagedFacts, report: &mut Report) -> bool {
    let title = "API server is ready";
    let said = match &facts.readyz {
        Seen::Known(200) => {
            report.ok(Layer::ApiServer, None, title, &facts.server);
            return true;
        }
        // the question was understood, and by whom it may be asked is the operator's to decide
        Seen::Known(status @ (401 | 403)) => {
            report.unknown(Layer::ApiServer, None, title, format!("/readyz: status {status}"));
            return *status == 403;
        }
        Seen::Known(status) => format!("status {status}"),
        Seen::Unknown(why) => why.clone(),
    };
    let evidence = Evidence { source: format!("{}/readyz", facts.server), text: said };
    let summary = format!("the API server of this {} cluster is not ready", facts.provider);
    report.found("RK-A12", None, title, summary, evidence, Vec::new());
    facts.readyz.known().is_some()
}

fn nodes(facts: &ManagedFacts, report: &mut Report) {
    let title = "nodes work";
    let (nodes, thresholds) = match &facts.nodes {
        Seen::Known(read) => read,
        Seen::Unknown(why) => {
            report.unknown(Layer::Nodes, None, title, why);
            return;
        }
    };
    let seen = fleet::Seen { nodes, thresholds, now_ms: facts.now_ms, hosts: None, host_findings: &[] };
    let fleet = fleet::judge(&seen);
    let ready = fleet.nodes.iter().filter(|one| one.state == NodeState::Ready).count();
    if ready > 0 || fleet.findings.is_empty() {
        report.ok(Layer::Nodes, None, title, format!("{ready} of {} are Ready", fleet.nodes.len()));
    }
    fleet.findings.into_iter().for_each(|finding| report.told(title, finding));
}

fn objects(facts: &StuckFacts, report: &mut Report) {
    let title = "nothing is stuck";
    let found = stuck::find(facts);
    if found.is_empty() && facts.unread.is_empty() {
        report.ok(Layer::Objects, None, title, "pods, namespaces, CRDs, volumes, webhooks, APIServices");
    }
    found.into_iter().for_each(|one| report.told(title, one.finding));
    for why in &facts.unread {
        report.unknown(Layer::Objects, None, title, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_model::finding::CheckResult;

    fn facts(readyz: Seen<u16>) -> ManagedFacts {
        ManagedFacts {
            provider: "EKS".into(),
            server: "https://example.eks.amazonaws.com".into(),
            readyz,
            nodes: Seen::Unknown("not asked".into()),
            stuck: StuckFacts::default(),
            now_ms: 0,
        }
    }

    // Nobody answers: that is the one finding, and not taken for a cluster in which nothing is stuck.
    #[test]
    fn an_api_server_that_is_away_is_the_only_finding() {
        let (checks, findings) = judge(&facts(Seen::Unknown("no connection".into())));
        assert_eq!(findings.iter().map(|f| f.code.as_str()).collect::<Vec<_>>(), ["RK-A12"]);
        assert!(checks.iter().all(|line| line.result != CheckResult::Ok), "{checks:?}");
        assert!(checks.is_sorted_by_key(|line| line.layer));
    }

    // A reader who may not ask for `/readyz` still gets what he may read; one whose credentials count for nothing does not.
    #[test]
    fn rights_are_no_failure_of_the_cluster() {
        let (checks, findings) = judge(&facts(Seen::Known(403)));
        assert!(findings.is_empty());
        assert!(checks.iter().any(|line| line.layer == Layer::Objects && line.result == CheckResult::Ok));
        let (checks, _) = judge(&facts(Seen::Known(401)));
        assert!(checks.iter().all(|line| line.layer != Layer::Objects));
    }
}
