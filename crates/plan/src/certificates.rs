//! Renewing certificates: keys and requests on the hosts they are for, signatures where the authority's key lies, then
//! the swap and the restart of what uses them.
//!
//! While everything works, one host after another, and quorum and API server are proved before the next. When it does not
//! (all certificates have expired, so no member of etcd trusts another) there is nothing to keep up: all hosts at once.
//! Components are stopped before the swap and started after it, so that taking it back in reverse order does the same.

use crate::build::Steps;
use crate::parts::{add_start_unit, add_stop_containers, add_stop_unit, add_wait_component, has_api_server};
use crate::parts_plan::{Parts, assemble};
use crate::paths::aside_in;
use crate::refuse;
use crate::restart::nothing_lost;
use crate::saves::add_saves;
use crate::sources::{host_of, none_needed};
use crate::survey::{Context, Survey, kubelet_unit, unit_of};
use crate::words::and_list;
use rekindle_model::certificate::{
    Certificate, CertificateFacts, CertificateFile, CertificatePlace, KeyState, Renewal, ServedCertificate,
};
use rekindle_model::diagnosis::{Diagnosis, EtcdVerdict};
use rekindle_model::host::{ApiProbe, Component, HostFacts, Layout, UnitFacts};
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Goal, Phase, PlanOutcome};
use rekindle_model::source::SourceKind;
use rekindle_model::step::{Reversibility, Step};
use rekindle_model::{HostId, HostPath, Seen};
use std::collections::BTreeSet;

/// New certificates begin a little earlier, for clocks that are behind.
const BACKDATE_S: i64 = 300;
/// A shorter life than this is not made.
const SHORTEST_S: i64 = 3_600;
/// How long nodes may take to come back.
const NODES_TIMEOUT_S: u64 = 240;
/// The pair that kubelet signs itself.
const KUBELET_SERVING: &str = "kubelet-serving";

/// Which certificates are renewed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renew {
    /// By name, on every host that has them.
    pub names: Vec<String>,
    /// All of them.
    pub all: bool,
    /// Names and addresses that server certificates among the named ones are also to be for.
    pub added_names: Vec<String>,
}

/// What is done on one host.
struct Work<'a> {
    host: &'a HostFacts,
    facts: &'a CertificateFacts,
    /// Each with the host that signs it.
    renewals: Vec<(HostId, Renewal)>,
    set_aside: Vec<(HostPath, HostPath)>,
    components: Vec<Component>,
    kubelet: bool,
}

/// Plans the renewal.
pub fn renew_certificates(
    inventory: &Inventory,
    diagnosis: &Diagnosis,
    goal: &Goal,
    wanted: &Renew,
    now_ms: i64,
) -> PlanOutcome {
    let context = Context { inventory, diagnosis, goal, now_ms };
    let refused =
        |reason: String, possible: Vec<String>| refuse::because(none_needed(&context), reason, possible);
    if let Some(name) = unknown_name(&context, wanted) {
        return refused(format!("no host given has a certificate named {name}"), vec![names_there(&context)]);
    }
    let mut external = Vec::new();
    let mut works: Vec<Work<'_>> = Vec::new();
    for host in reachable(&context) {
        match work(&context, host, wanted, &mut external) {
            Ok(Some(work)) => works.push(work),
            Ok(None) => {}
            Err(why) => return refused(why, Vec::new()),
        }
    }
    if works.is_empty() && external.is_empty() {
        return PlanOutcome::NothingToDo("there is no certificate to renew on these hosts".into());
    }
    if works.is_empty() {
        let sign =
            "sign them where the authority's key is kept; `kubeadm certs generate-csr` writes the requests";
        return refused(external.join("; "), vec![sign.into()]);
    }
    let survey = context.survey(&[]);
    let rolling = is_healthy(&context);
    let restarts_etcd = works.iter().any(|w| w.components.contains(&Component::Etcd));
    if !rolling
        && restarts_etcd
        && let Some(missing) = survey.uncovered.first()
    {
        return refused(
            format!(
                "etcd has no quorum, and its member {} is on a host that was not given: it would not come back",
                missing.name
            ),
            vec!["give every control-plane host with --host".into()],
        );
    }
    PlanOutcome::Plan(Box::new(assemble(&context, parts(&context, &survey, &works, rolling, external))))
}

fn reachable<'a>(context: &Context<'a>) -> impl Iterator<Item = &'a HostFacts> {
    let lost = context.inventory.lost_hosts.as_slice();
    context.inventory.hosts.iter().filter(move |h| h.unreachable.is_none() && !lost.contains(&h.id))
}

fn is_healthy(context: &Context<'_>) -> bool {
    let serves = |h: &HostFacts| !has_api_server(h) || h.api.known().is_some_and(ApiProbe::is_ready);
    context.diagnosis.etcd == EtcdVerdict::Healthy && reachable(context).all(serves)
}

fn all_names(context: &Context<'_>) -> BTreeSet<String> {
    let facts = reachable(context).filter_map(|h| h.certificates.known());
    let renewable = |f: &&CertificateFile| f.authority.is_some() || f.name == KUBELET_SERVING;
    facts.flat_map(|f| f.files.iter().filter(renewable)).map(|f| f.name.clone()).collect()
}

fn unknown_name(context: &Context<'_>, wanted: &Renew) -> Option<String> {
    let known = all_names(context);
    wanted.names.iter().find(|name| !known.contains(*name)).cloned()
}

fn names_there(context: &Context<'_>) -> String {
    let names: Vec<String> = all_names(context).into_iter().collect();
    format!("these are there: {}", names.join(", "))
}

/// What is to be done on a host; none when nothing.
fn work<'a>(
    context: &Context<'a>,
    host: &'a HostFacts,
    wanted: &Renew,
    external: &mut Vec<String>,
) -> Result<Option<Work<'a>>, String> {
    let Some(facts) = host.certificates.known() else { return Ok(None) };
    let mut work = Work {
        host,
        facts,
        renewals: Vec::new(),
        set_aside: Vec::new(),
        components: Vec::new(),
        kubelet: false,
    };
    let now_s = context.inventory.host_now_s(host);
    for file in &facts.files {
        let named = wanted.names.contains(&file.name);
        if !(named || wanted.all) {
            continue;
        }
        let Some(authority) = &file.authority else {
            let ending = file.certificate.known().is_none_or(|c| c.is_ending_at(now_s));
            if file.name == KUBELET_SERVING && (named || ending) {
                work.set_aside.extend(moved_aside(context, file));
                work.kubelet = true;
            }
            continue;
        };
        let old = match &file.certificate {
            Seen::Known(old) => old,
            Seen::Unknown(why) => {
                return Err(format!(
                    "{} on {} can't be read, so nothing tells whom it is for: {why}",
                    file.name, host.id
                ));
            }
        };
        match signer(context, host, authority, file, old) {
            Ok((by, ca, ca_file)) => {
                let renewal = renewal(context, wanted, now_s, facts, file, old, ca, ca_file);
                work.renewals.push((by, renewal?));
                work.uses(&file.name);
            }
            Err(why) => external.push(format!("{} on {}: {why}", file.name, host.id)),
        }
    }
    work.components.retain(|component| runs(host, *component));
    // A disk that is looked at under another root has no kubelet to restart.
    work.kubelet &= host.unit("kubelet").is_some_and(UnitFacts::exists);
    let empty = work.renewals.is_empty() && work.set_aside.is_empty();
    Ok((!empty).then_some(work))
}

impl Work<'_> {
    /// Notes who reads a certificate only when it starts.
    fn uses(&mut self, name: &str) {
        let component = match name {
            "etcd-server" | "etcd-peer" => Component::Etcd,
            "apiserver" | "apiserver-kubelet-client" | "apiserver-etcd-client" | "front-proxy-client" => {
                Component::KubeApiserver
            }
            "controller-manager.conf" => Component::KubeControllerManager,
            "scheduler.conf" => Component::KubeScheduler,
            "kubelet-client" | "kubelet-server" | "kubelet.conf" => {
                self.kubelet = true;
                return;
            }
            _ => return,
        };
        if !self.components.contains(&component) {
            self.components.push(component);
        }
    }

    fn renewals(&self) -> Vec<Renewal> {
        self.renewals.iter().map(|(_, renewal)| renewal.clone()).collect()
    }
}

fn runs(host: &HostFacts, component: Component) -> bool {
    match host.layout {
        Layout::Units => unit_of(host, component).is_some(),
        _ => host.manifest(component).is_some(),
    }
}

fn moved_aside(context: &Context<'_>, file: &CertificateFile) -> Vec<(HostPath, HostPath)> {
    let CertificatePlace::Pair { cert, key } = &file.place else { return Vec::new() };
    let aside = |path: &HostPath| {
        let folder = aside_in(path.parent().unwrap_or(path), &context.goal.run_id);
        (path.clone(), folder.join("old").join(path.file_name().unwrap_or("file")))
    };
    vec![aside(cert), aside(key)]
}

/// Who signs: this host, else (for a node's own identity only) another one with the same authority and its key.
fn signer<'a>(
    context: &Context<'a>,
    host: &'a HostFacts,
    authority: &str,
    file: &CertificateFile,
    old: &Certificate,
) -> Result<(HostId, &'a Certificate, &'a CertificateFile), String> {
    let own = host.certificates.known().and_then(|facts| facts.file(authority));
    let own_ca =
        own.and_then(|ca| ca.certificate.known()).ok_or(format!("its authority {authority} is not there"))?;
    let usable = |ca: &CertificateFile, now_s| {
        ca.key == KeyState::Matches && ca.certificate.known().is_some_and(|c| c.is_valid_at(now_s))
    };
    if !own_ca.is_valid_at(context.inventory.host_now_s(host)) {
        return Err(format!("its authority {authority} is not valid any more"));
    }
    if let Some(ca) = own.filter(|ca| usable(ca, context.inventory.host_now_s(host))) {
        return Ok((host.id.clone(), own_ca, ca));
    }
    // No host may have somebody else's identity made for it.
    let is_node = ["kubelet-client", "kubelet-server"].contains(&file.name.as_str())
        && old.subject.starts_with("O=system:nodes, CN=system:node:");
    let mut others = reachable(context).filter_map(|other| {
        let ca = other.certificates.known()?.file(authority)?;
        let same = ca.certificate.known().is_some_and(|c| c.sha256 == own_ca.sha256);
        (same && usable(ca, context.inventory.host_now_s(other))).then(|| (other.id.clone(), own_ca, ca))
    });
    match others.next() {
        Some(found) if is_node => Ok(found),
        Some((by, ..)) => {
            Err(format!("the key of {authority} is on {by} only; copy it here, or renew it there"))
        }
        None => Err(format!("the key of {authority} is on none of the hosts given (an external authority)")),
    }
}

#[allow(clippy::too_many_arguments)] // what a renewal is made of
fn renewal(
    context: &Context<'_>,
    wanted: &Renew,
    now_s: i64,
    facts: &CertificateFacts,
    file: &CertificateFile,
    old: &Certificate,
    ca: &Certificate,
    ca_file: &CertificateFile,
) -> Result<Renewal, String> {
    let CertificatePlace::Pair { cert: authority_cert, key: authority_key } = &ca_file.place else {
        return Err(format!("{} is no authority with files of its own", ca_file.name));
    };
    let folder = match &file.place {
        CertificatePlace::Pair { .. } => facts.pki_dir.clone(),
        CertificatePlace::Kubeconfig { path } | CertificatePlace::Link { current: path } => {
            HostPath::from(path.parent().unwrap_or(path))
        }
    };
    let behind = match &file.place {
        CertificatePlace::Link { current } => Some(behind(current, &file.name, now_s)),
        _ => None,
    };
    let serves = old.usages.iter().any(|usage| usage == "serverAuth");
    Ok(Renewal {
        name: file.name.clone(),
        place: file.place.clone(),
        old: old.clone(),
        folder: aside_in(&folder, &context.goal.run_id),
        behind,
        not_before_s: now_s.saturating_sub(BACKDATE_S).max(ca.not_before_s),
        not_after_s: now_s.saturating_add(old.lifetime_s().max(SHORTEST_S)).min(ca.not_after_s),
        authority_cert: authority_cert.clone(),
        authority_key: authority_key.clone(),
        authority_sha256: ca.sha256.clone(),
        added_names: if serves { wanted.added_names.clone() } else { Vec::new() },
    })
}

/// The file behind kubelet's link, named as kubelet names it (client-go `certificate_store.go`).
fn behind(current: &HostPath, name: &str, now_s: i64) -> HostPath {
    let time = jiff::Timestamp::from_second(now_s).map(|t| t.strftime("%Y-%m-%d-%H-%M-%S").to_string());
    let name = format!("{name}-{}.pem", time.unwrap_or_else(|_| now_s.to_string()));
    HostPath::from(current.with_file_name(name))
}

fn parts(
    context: &Context<'_>,
    survey: &Survey<'_>,
    works: &[Work<'_>],
    rolling: bool,
    external: Vec<String>,
) -> Parts {
    let mut steps = Steps::default();
    let stops_etcd =
        |id: &HostId| works.iter().any(|w| &w.host.id == id && w.components.contains(&Component::Etcd));
    steps.stage();
    // A stopped member's files are not touched: only what runs, and is stopped, is saved.
    let is_running = |kind: &SourceKind| matches!(kind, SourceKind::Served(_) | SourceKind::OpenDb(_));
    add_saves(context, &mut steps, |kind| is_running(kind) && host_of(kind).is_some_and(stops_etcd));
    add_signed(&mut steps, works);
    if rolling {
        for work in works {
            steps.stage();
            add_swap(&mut steps, work);
            add_waits(&mut steps, survey, std::slice::from_ref(work), rolling);
        }
    } else {
        steps.stage();
        works.iter().for_each(|work| add_swap(&mut steps, work));
        add_waits(&mut steps, survey, works, rolling);
    }
    add_proofs(context, &mut steps, works);
    let mut hosts: Vec<HostId> = works.iter().map(|w| w.host.id.clone()).collect();
    let steps = steps.into_vec();
    hosts.extend(steps.iter().filter_map(|s| s.host.clone()));
    hosts.sort();
    hosts.dedup();
    Parts {
        hosts,
        summary: summary(works, rolling),
        choice: none_needed(context),
        cost: nothing_lost(),
        steps,
        how_to_go_back: format!(
            "`rekindle runs undo {}` puts the old certificates and keys back and restarts what uses them.",
            context.goal.run_id
        ),
        warnings: warnings(works, external),
    }
}

fn summary(works: &[Work<'_>], rolling: bool) -> String {
    let of_host = |w: &Work<'_>| {
        let count = w.renewals.len() + w.set_aside.len().div_ceil(2);
        format!("{count} on {}", w.host.id)
    };
    let counts: Vec<String> = works.iter().map(of_host).collect();
    let order = if rolling {
        "One host after another: quorum and API server are proved before the next."
    } else {
        "The control plane does not work as it is, so all hosts are done at once."
    };
    format!(
        "Certificates are made anew with the local authority, for the same subjects, names and usages and for as long as \
         before: {}. New keys are made on their hosts and never leave them; the old certificates and keys are kept in \
         folders of the run. {order}",
        and_list(&counts)
    )
}

fn warnings(works: &[Work<'_>], external: Vec<String>) -> Vec<String> {
    let mut warnings: Vec<String> = external.into_iter().map(|why| format!("Not renewed: {why}.")).collect();
    if works.iter().any(|w| w.renewals.iter().any(|(_, r)| r.name.ends_with("admin.conf"))) {
        warnings.push(
            "Copies of admin.conf (~/.kube/config, pipelines) hold the old certificate: copy it anew.".into(),
        );
    }
    warnings
}

/// Keys and requests on each host, then the signatures.
fn add_signed(steps: &mut Steps, works: &[Work<'_>]) {
    let signed = || works.iter().filter(|w| !w.renewals.is_empty());
    steps.stage();
    for work in signed() {
        let step = Step::RequestCertificates { renewals: work.renewals() };
        let summary = format!("make {} new keys, which never leave the host", work.renewals.len());
        steps.add(Some(&work.host.id), Phase::Restore, Reversibility::Reversible, summary, step);
    }
    steps.stage();
    for work in signed() {
        let signers: BTreeSet<&HostId> = work.renewals.iter().map(|(by, _)| by).collect();
        for by in signers {
            let of_signer = work.renewals.iter().filter(|(other, _)| other == by);
            let renewals: Vec<Renewal> = of_signer.map(|(_, renewal)| renewal.clone()).collect();
            let names: Vec<&str> = renewals.iter().map(|r| r.name.as_str()).collect();
            let summary = format!("sign for {}: {}", work.host.id, names.join(", "));
            let step = Step::SignCertificates { for_host: work.host.id.clone(), renewals };
            steps.add(Some(by), Phase::Restore, Reversibility::Reversible, summary, step);
        }
    }
}

/// Stops what uses the certificates of a host, swaps them, starts it again.
fn add_swap(steps: &mut Steps, work: &Work<'_>) {
    let (host, id) = (work.host, &work.host.id);
    let pods = host.layout != Layout::Units;
    let kubelet = work.kubelet || (pods && !work.components.is_empty());
    let units: Vec<&str> = Component::ALL
        .into_iter()
        .filter(|component| !pods && work.components.contains(component))
        .filter_map(|component| unit_of(host, component))
        .collect();
    if kubelet {
        add_stop_unit(steps, id, kubelet_unit(host), false);
    }
    units.iter().rev().for_each(|unit| add_stop_unit(steps, id, unit, false));
    let running: Vec<Component> =
        work.components.iter().copied().filter(|c| *c != Component::Etcd || is_up(host, *c)).collect();
    if pods && !running.is_empty() {
        add_stop_containers(steps, id, &running);
    }
    let step = Step::InstallCertificates { renewals: work.renewals(), set_aside: work.set_aside.clone() };
    let summary = "put the new certificates and keys in place, the old ones into the run's folders";
    steps.add(Some(id), Phase::Restore, Reversibility::Reversible, summary, step);
    for unit in &units {
        add_start_unit(steps, id, unit, false, Reversibility::Compensated);
    }
    if kubelet {
        add_start_unit(steps, id, kubelet_unit(host), false, Reversibility::Compensated);
    }
}

/// Whether a component was seen running.
fn is_up(host: &HostFacts, component: Component) -> bool {
    host.process(component).is_some() || host.container(component).is_some_and(|c| c.running)
}

fn add_waits(steps: &mut Steps, survey: &Survey<'_>, works: &[Work<'_>], rolling: bool) {
    let restarted = |w: &Work<'_>, component| w.components.contains(&component);
    steps.stage();
    for work in works.iter().filter(|w| restarted(w, Component::Etcd)) {
        let Some(config) = work.host.etcd_config.known() else { continue };
        let step = Step::ProveMember { endpoint: config.endpoint.clone(), members: survey.voters };
        let summary = format!("wait until member {} answers in a quorum", config.name);
        steps.add(Some(&work.host.id), Phase::Verify, Reversibility::Reversible, summary, step);
    }
    steps.stage();
    for work in works.iter().filter(|w| runs(w.host, Component::KubeApiserver)) {
        if restarted(work, Component::KubeApiserver) || restarted(work, Component::Etcd) || !rolling {
            let summary = "wait until its API server is ready";
            let step = Step::WaitApiReady {};
            steps.add(Some(&work.host.id), Phase::Ready, Reversibility::Reversible, summary, step);
        }
    }
    steps.stage();
    for work in works {
        for component in [Component::KubeControllerManager, Component::KubeScheduler] {
            if restarted(work, component) {
                add_wait_component(steps, &work.host.id, component);
            }
        }
    }
}

/// What is proved at the end: the certificates on every host, and the nodes where kubelets were restarted.
fn add_proofs(context: &Context<'_>, steps: &mut Steps, works: &[Work<'_>]) {
    steps.stage();
    for work in works {
        let asked = |s: &&ServedCertificate| work.renewals.iter().any(|(_, r)| s.names.contains(&r.name));
        let served = work
            .facts
            .served
            .iter()
            .filter(asked)
            .map(|s| ServedCertificate { certificate: Seen::default(), ..s.clone() });
        let step = Step::ProveCertificates {
            pki_dir: work.facts.pki_dir.clone(),
            renewals: work.renewals(),
            served: served.collect(),
        };
        let summary = "prove the new certificates, in the files and as the ports serve them";
        steps.add(Some(&work.host.id), Phase::Verify, Reversibility::Reversible, summary, step);
    }
    let kubelets = works.iter().any(|w| w.kubelet || !w.components.is_empty());
    let api = reachable(context).find(|h| runs(h, Component::KubeApiserver)).filter(|_| kubelets);
    if let Some(host) = api {
        if !steps.any(|step| matches!(step, Step::WaitApiReady {})) {
            // Leases are compared with what the API server said when it was ready.
            steps.stage();
            let summary = "wait until its API server is ready";
            let step = Step::WaitApiReady {};
            steps.add(Some(&host.id), Phase::Ready, Reversibility::Reversible, summary, step);
        }
        steps.stage();
        let step = Step::WaitNodes { except: Vec::new(), timeout_seconds: NODES_TIMEOUT_S };
        let summary = "wait until all nodes are Ready with renewed leases";
        steps.add(Some(&host.id), Phase::Verify, Reversibility::Reversible, summary, step);
    }
}
