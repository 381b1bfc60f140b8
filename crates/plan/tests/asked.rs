//! The roads that are taken when they are asked for: certificates made anew, or let expire by a drill; a host taken out of
//! its cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use rekindle_model::certificate::{
    Certificate, CertificateFacts, CertificateFile, CertificatePlace, KeyState,
};
use rekindle_model::finding::{CheckResult, Layer};
use rekindle_model::fixtures::{Fixture, NOW_MS};
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Goal, Plan, PlanOutcome};
use rekindle_model::step::{Reversibility, Step};
use rekindle_model::{HostId, HostPath, RunId, Seen};
use rekindle_plan::breaking::{Scenario, breaking};
use rekindle_plan::certificates::{Renew, renew_certificates};
use rekindle_plan::lint;
use rekindle_plan::reset::reset;

const NOW_S: i64 = NOW_MS / 1000;
const DAY_S: i64 = 86_400;

fn goal() -> Goal {
    Goal {
        run_id: RunId("0199b000-0000-7000-8000-0000deadbeef".into()),
        run_dir: HostPath::from("/var/lib/rekindle/runs/x"),
        token: "rekindle-test".into(),
        exact: false,
        data_dir: None,
        accept_unknown_identity: false,
        accept_corrupt_alarm: false,
        skip_hash_check: false,
        go_back: false,
    }
}

fn file(name: &str, authority: Option<&str>, days_left: i64) -> CertificateFile {
    let end_s = NOW_S + days_left * DAY_S;
    let certificate = Certificate {
        sha256: format!("{name}-digest"),
        subject: format!("CN={name}"),
        issuer: "CN=kubernetes".into(),
        not_before_s: (end_s - 365 * DAY_S).min(NOW_S - DAY_S),
        not_after_s: end_s,
        dns_names: Vec::new(),
        ip_addresses: ["10.0.0.11", "10.0.0.12", "10.0.0.13"].map(str::to_owned).to_vec(),
        usages: vec!["clientAuth".into()],
        is_authority: authority.is_none(),
        key_kind: "RSA-2048".into(),
        public_key_sha256: String::new(),
        node: None,
    };
    let place = match name {
        "kubelet-client" => {
            CertificatePlace::Link { current: "/var/lib/kubelet/pki/kubelet-client-current.pem".into() }
        }
        _ => CertificatePlace::Pair {
            cert: HostPath::from(format!("/etc/kubernetes/pki/{name}.crt")),
            key: HostPath::from(format!("/etc/kubernetes/pki/{name}.key")),
        },
    };
    CertificateFile {
        name: name.into(),
        place,
        authority: authority.map(str::to_owned),
        certificate: Seen::Known(certificate),
        key: KeyState::Matches,
        signed_by_authority: authority.map(|_| true),
    }
}

/// Three hosts with certificates that have so many days left.
fn cluster(fixture: Fixture, days_left: i64) -> Inventory {
    let mut inventory = fixture.build();
    for host in &mut inventory.hosts {
        let mut node = file("kubelet-client", Some("ca"), days_left);
        if let Seen::Known(certificate) = &mut node.certificate {
            let name = host.hostname.known().unwrap();
            certificate.subject = format!("O=system:nodes, CN=system:node:{name}");
            certificate.node = Some(name.clone());
        }
        let files = vec![
            file("ca", None, 3000),
            file("etcd-ca", None, 3000),
            file("apiserver", Some("ca"), days_left),
            file("etcd-peer", Some("etcd-ca"), days_left),
            node,
        ];
        let pki_dir = HostPath::from("/etc/kubernetes/pki");
        host.certificates = Seen::Known(CertificateFacts { pki_dir, files, ..CertificateFacts::default() });
    }
    inventory
}

/// The facts of a host's certificate.
fn facts_of<'i>(inventory: &'i mut Inventory, host: usize, name: &str) -> &'i mut CertificateFile {
    let Seen::Known(facts) = &mut inventory.hosts[host].certificates else { panic!("not read") };
    facts.files.iter_mut().find(|file| file.name == name).unwrap()
}

fn refused(outcome: PlanOutcome) -> String {
    let PlanOutcome::Refused(refusal) = outcome else { panic!("not refused: {outcome:#?}") };
    refusal.reason
}

fn renewed(inventory: &Inventory) -> PlanOutcome {
    let diagnosis = rekindle_diagnose::diagnose(inventory);
    let all = Renew { all: true, ..Renew::default() };
    renew_certificates(inventory, &diagnosis, &goal(), &all, NOW_MS)
}

fn plan(outcome: PlanOutcome, inventory: &Inventory) -> Plan {
    let PlanOutcome::Plan(plan) = outcome else { panic!("no plan: {outcome:#?}") };
    assert_eq!(lint(&plan, inventory), Vec::<String>::new());
    *plan
}

fn stages(plan: &Plan, wanted: impl Fn(&Step) -> bool) -> Vec<u32> {
    plan.steps.iter().filter(|s| wanted(&s.step)).map(|s| s.stage).collect()
}

fn expired(inventory: &Inventory) -> PlanOutcome {
    let diagnosis = rekindle_diagnose::diagnose(inventory);
    let uid = inventory.cluster.kube_system_uid.known().unwrap().clone();
    breaking(inventory, &diagnosis, &goal(), Scenario::CertificatesExpired, &[uid], NOW_MS)
}

// A drill lets every certificate end an hour ago, after a life as long as the real one had, so that its successor is for as
// long again. Nothing is final. What it could not renew afterwards it leaves alone.
#[test]
fn a_drill_lets_certificates_expire_that_can_be_renewed() {
    let mut inventory = cluster(Fixture::kubeadm(3), 300);
    let PlanOutcome::Plan(plan) = expired(&inventory) else { panic!("no plan: {:#?}", expired(&inventory)) };
    assert!(plan.steps.iter().all(|step| step.reversibility != Reversibility::Final));
    let mut expired_hosts = 0;
    for step in &plan.steps {
        let Step::InstallCertificates { renewals, set_aside } = &step.step else { continue };
        expired_hosts += 1;
        assert_eq!((renewals.len(), set_aside.len()), (3, 0));
        for one in renewals {
            assert_eq!(one.not_after_s, NOW_S - 3_600, "{}", one.name);
            assert_eq!(one.not_after_s - one.not_before_s, one.old.lifetime_s(), "{}", one.name);
        }
    }
    assert_eq!(expired_hosts, 3);
    let (swaps, starts) = (
        stages(&plan, |step| matches!(step, Step::InstallCertificates { .. })),
        stages(&plan, |step| matches!(step, Step::StartUnit { .. })),
    );
    assert!(starts.len() == 3 && swaps.iter().max() < starts.iter().min(), "{swaps:?} {starts:?}");
    let Seen::Known(facts) = &mut inventory.hosts[1].certificates else { panic!() };
    facts.files[1].key = KeyState::Missing;
    let PlanOutcome::Refused(refusal) = expired(&inventory) else { panic!("broken for good") };
    assert!(refusal.reason.contains("could not be renewed afterwards: etcd-peer"), "{}", refusal.reason);
}

// A cluster that works keeps working: what runs is saved, hosts follow one another, and each is proved before the next
// is stopped. What undo takes back in reverse stops before it swaps and starts after it.
#[test]
fn a_working_cluster_is_renewed_host_by_host() {
    let inventory = cluster(Fixture::kubeadm(3), 20);
    let plan = plan(renewed(&inventory), &inventory);
    let swaps = stages(&plan, |s| matches!(s, Step::InstallCertificates { .. }));
    let proofs = stages(&plan, |s| matches!(s, Step::ProveMember { members: 3, .. }));
    let ready = stages(&plan, |s| matches!(s, Step::WaitApiReady {}));
    assert_eq!((swaps.len(), proofs.len(), ready.len()), (3, 3, 3));
    for host in 0..2 {
        assert!(
            swaps[host] < proofs[host] && ready[host] < swaps[host + 1],
            "{swaps:?} {proofs:?} {ready:?}"
        );
    }
    let saves = stages(&plan, |s| matches!(s, Step::SaveServed { .. }));
    assert_eq!(saves.len(), 3);
    let own: Vec<&Step> = plan.steps.iter().filter(|s| s.stage == swaps[0]).map(|s| &s.step).collect();
    let kinds: Vec<u8> = own
        .iter()
        .map(|s| match s {
            Step::StopUnit { .. } => 1,
            Step::StopContainers { .. } => 2,
            Step::InstallCertificates { .. } => 3,
            Step::StartUnit { .. } => 4,
            _ => 9,
        })
        .collect();
    assert_eq!(kinds, [1, 2, 3, 4]);
    assert!(plan.steps.iter().all(|s| s.reversibility != Reversibility::Final));
}

// With every certificate expired there is nothing to keep up: all hosts at once. With one of three hosts not given, the
// members given would never make a quorum, and nothing is begun.
#[test]
fn a_dead_cluster_is_renewed_at_once() {
    let mut inventory = cluster(
        Fixture::kubeadm(3).stop_kubelet_and_pods(0).stop_kubelet_and_pods(1).stop_kubelet_and_pods(2),
        -400,
    );
    let whole = plan(renewed(&inventory), &inventory);
    let swaps = stages(&whole, |s| matches!(s, Step::InstallCertificates { .. }));
    assert_eq!(swaps, [swaps[0]; 3]);
    let diagnosis = rekindle_diagnose::diagnose(&inventory);
    let roots: Vec<&str> =
        diagnosis.findings.iter().filter(|f| f.caused_by.is_none()).map(|f| f.code.as_str()).collect();
    assert_eq!(roots, ["RK-P01"; 3]);
    let recover = rekindle_plan::plan(&inventory, &diagnosis, &goal(), NOW_MS);
    let PlanOutcome::Refused(refusal) = recover else { panic!("{recover:#?}") };
    assert!(refusal.possible.iter().any(|p| p.contains("certs renew --all")), "{refusal:#?}");

    inventory.hosts.truncate(1);
    let PlanOutcome::Refused(refusal) = renewed(&inventory) else { panic!("planned with one host of three") };
    assert!(refusal.reason.contains("not given"), "{}", refusal.reason);
}

// Another host's key signs for a node's own identity, and for nothing else.
#[test]
fn only_a_nodes_identity_is_signed_elsewhere() {
    let mut inventory = cluster(Fixture::kubeadm(3), 20);
    if let Seen::Known(facts) = &mut inventory.hosts[2].certificates {
        facts.files[0].key = KeyState::Missing;
        facts.files[1].key = KeyState::Missing;
    }
    let third = inventory.hosts[2].id.clone();
    let plan = plan(renewed(&inventory), &inventory);
    let signed: Vec<(&HostId, Vec<&str>)> = plan
        .steps
        .iter()
        .filter_map(|s| match &s.step {
            Step::SignCertificates { for_host, renewals } if *for_host == third => {
                Some((s.host.as_ref()?, renewals.iter().map(|r| r.name.as_str()).collect()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(signed, [(&inventory.hosts[0].id, vec!["kubelet-client"])]);
    assert!(plan.warnings.iter().any(|w| w.contains("etcd-peer")), "{:?}", plan.warnings);
    let told = "kubelet-client (O=system:nodes, CN=system:node:cp-3)";
    assert!(plan.steps.iter().any(|s| s.summary.contains(told)), "the subject stands in the plan");
}

// A host without the authority's key that was taken over says of its certificate what it likes: that it is another node's, one
// that only reads like a node's, one that nobody signed. None of it is signed, whether the API tells who the nodes are or not.
#[test]
fn a_host_that_was_taken_over_gets_no_other_identity() {
    let mut inventory = cluster(Fixture::kubeadm(3), 20);
    facts_of(&mut inventory, 2, "ca").key = KeyState::Missing;
    let with = |change: &dyn Fn(&mut Inventory)| {
        let mut changed = inventory.clone();
        change(&mut changed);
        let plan = plan(renewed(&changed), &changed);
        let told = plan.warnings.iter().find(|w| w.contains("kubelet-client on root@10.0.0.13")).cloned();
        told.unwrap_or_default()
    };
    let pose = |inventory: &mut Inventory, node: Option<&str>| {
        let Seen::Known(old) = &mut facts_of(inventory, 2, "kubelet-client").certificate else { panic!() };
        old.node = node.map(str::to_owned);
    };
    let blind = |inventory: &mut Inventory| inventory.cluster.nodes = Seen::Unknown("down".into());
    assert_eq!(with(&|_| {}), "");
    assert_eq!(with(&|i| blind(i)), "");
    assert!(with(&|i| pose(i, None)).contains("is the identity of no node"));
    assert!(with(&|i| pose(i, Some("cp-1"))).contains("the host is node cp-3"));
    let lied = with(&|i| {
        pose(i, Some("cp-1"));
        i.hosts[2].hostname = Seen::Known("cp-1".into());
        i.hosts[2].addresses = Seen::Known(vec!["10.0.0.11".into()]);
    });
    assert!(lied.contains("the host is node cp-3"), "{lied}");
    let dark = with(&|i| {
        pose(i, Some("cp-1"));
        blind(i);
    });
    assert!(dark.contains("root@10.0.0.11 may be that node"), "{dark}");
    let forged = with(&|i| facts_of(i, 2, "kubelet-client").signed_by_authority = Some(false));
    assert!(forged.contains("not seen to have signed"), "{forged}");
}

// One of the hosts given can't be reached, or its certificates can't be read: a run without it would end as if all was renewed.
#[test]
fn no_host_that_was_given_is_passed_over() {
    let all = cluster(Fixture::kubeadm(3), 20);
    let mut away = all.clone();
    away.hosts[2].unreachable = Some("no route to host".into());
    let why = refused(renewed(&away));
    assert!(why.contains("root@10.0.0.13: no route to host"), "{why}");
    away.lost_hosts.push(away.hosts[2].id.clone());
    assert!(matches!(renewed(&away), PlanOutcome::Plan(_)), "it was given up by name");
    let mut unread = all.clone();
    unread.hosts[1].certificates = Seen::Unknown("no answer within 30 s".into());
    let why = refused(renewed(&unread));
    assert!(why.contains("root@10.0.0.12: no answer within 30 s"), "{why}");
    assert!(refused(expired(&unread)).contains("no answer within 30 s"));
}

// A garbled certificate, a missing or unreadable key of a leaf: each is found, and nothing beside it is called well. An
// authority's key may be kept elsewhere.
#[test]
fn what_can_not_be_read_is_not_well() {
    let inventory = cluster(Fixture::kubeadm(1), 300);
    let codes = |inventory: &Inventory| {
        let found = rekindle_diagnose::diagnose(inventory);
        let wrong: Vec<String> = found.findings.iter().map(|f| f.code.clone()).collect();
        let well = found.checks.iter().filter(|c| c.layer == Layer::Certificates);
        (wrong, well.filter(|c| c.result == CheckResult::Ok && c.title.starts_with("keys")).count())
    };
    assert_eq!(codes(&inventory), (Vec::new(), 1));
    let changes: [fn(&mut CertificateFile); 3] = [
        |file| file.certificate = Seen::Unknown("its certificate does not parse".into()),
        |file| file.key = KeyState::Missing,
        |file| file.key = KeyState::Unreadable("permission denied".into()),
    ];
    for change in changes {
        let mut broken = inventory.clone();
        change(facts_of(&mut broken, 0, "apiserver"));
        assert_eq!(codes(&broken), (vec!["RK-P12".to_owned()], 0));
    }
    let mut external = inventory.clone();
    facts_of(&mut external, 0, "ca").key = KeyState::Missing;
    assert_eq!(codes(&external), (Vec::new(), 1));
}

// The Node is named as the API names it, whatever the host calls itself: DELETE of a name that is none answers 404, which is
// taken for done.
#[test]
fn the_node_that_is_deleted_is_the_hosts() {
    let deleted = |own: &str, change: &dyn Fn(&mut Inventory)| {
        let mut inventory = Fixture::kubeadm(3).build();
        inventory.hosts[2].hostname = Seen::Known(own.into());
        change(&mut inventory);
        let (diagnosis, target) = (rekindle_diagnose::diagnose(&inventory), inventory.hosts[2].id.clone());
        let plan = plan(reset(&inventory, &diagnosis, &goal(), &target, NOW_MS), &inventory);
        let name = plan.steps.iter().find_map(|s| match &s.step {
            Step::DeleteNode { name } => Some(name.clone()),
            _ => None,
        });
        (name, plan.warnings.iter().any(|w| w.contains("none is deleted")))
    };
    let node = (Some("cp-3".to_owned()), false);
    assert_eq!(deleted("CP-3", &|_| {}), node);
    assert_eq!(deleted("cp-3.example.com", &|_| {}), node);
    assert_eq!(deleted("CP-3", &|i| i.cluster.nodes = Seen::Unknown("forbidden".into())), node);
    let gone = deleted("cp-3", &|i| {
        if let Seen::Known(nodes) = &mut i.cluster.nodes {
            nodes.truncate(2);
        }
    });
    assert_eq!(gone, (None, true));
}

// The host's etcd manifest does not parse: its member still leaves etcd, by name or address as the others list it. When no list
// names it the host stays: a member that is listed and gone for good costs the next failure its quorum.
#[test]
fn a_member_leaves_though_its_settings_can_not_be_read() {
    let mut inventory = Fixture::kubeadm(3).build();
    inventory.hosts[2].etcd_config = Seen::Unknown("etcd.yaml does not parse".into());
    let target = inventory.hosts[2].id.clone();
    let planned = |inventory: &Inventory| {
        reset(inventory, &rekindle_diagnose::diagnose(inventory), &goal(), &target, NOW_MS)
    };
    let found = plan(planned(&inventory), &inventory);
    let left = |s: &Step| matches!(s, Step::RemoveMember { member, .. } if member.name == "cp-3");
    assert!(found.steps.iter().any(|s| left(&s.step)), "{:#?}", found.steps);
    assert!(
        found.warnings.iter().any(|w| w.contains("neither saved nor moved aside")),
        "{:?}",
        found.warnings
    );
    for host in &mut inventory.hosts {
        let Seen::Known(live) = &mut host.etcd_live else { continue };
        let Seen::Known(members) = &mut live.members else { continue };
        let third = members.iter_mut().find(|m| m.name == "cp-3").unwrap();
        (third.name, third.peer_urls) = ("infra0".into(), vec!["https://192.0.2.3:2380".into()]);
    }
    let why = refused(planned(&inventory));
    assert!(why.contains("etcd.yaml does not parse") && why.contains("would stay in etcd"), "{why}");
}

// The host that goes is archived before a survivor removes its member; the way back stands in the plan. A member that the
// others can't spare stays.
#[test]
fn a_host_is_reset_only_when_the_others_keep_quorum() {
    let inventory = Fixture::kubeadm(3).build();
    let (diagnosis, target) = (rekindle_diagnose::diagnose(&inventory), inventory.hosts[2].id.clone());
    let plan = plan(reset(&inventory, &diagnosis, &goal(), &target, NOW_MS), &inventory);
    let at = |wanted: &dyn Fn(&Step) -> bool| plan.steps.iter().position(|s| wanted(&s.step)).unwrap();
    let saved = at(&|s| matches!(s, Step::SaveServed { .. }));
    let stopped = at(&|s| matches!(s, Step::RemovePods {}));
    let aside = at(&|s| matches!(s, Step::Rename { from, .. } if from.ends_with("member")));
    let proved = at(&|s| matches!(s, Step::ProveMember { .. }));
    let removed = at(&|s| matches!(s, Step::RemoveMember { .. }));
    let deleted = at(&|s| matches!(s, Step::DeleteNode { .. }));
    assert!(saved < stopped && stopped < aside && aside < proved && proved < removed && removed < deleted);
    assert_eq!(plan.point_of_no_return(), Some(plan.steps[removed].number));
    assert_ne!(plan.steps[removed].host.as_ref(), Some(&target));
    assert!(plan.summary.contains("upload-certs"), "{}", plan.summary);

    let broken = Fixture::kubeadm(3).lose_data_and_crash(1).build();
    let diagnosis = rekindle_diagnose::diagnose(&broken);
    let outcome = reset(&broken, &diagnosis, &goal(), &target, NOW_MS);
    assert!(matches!(outcome, PlanOutcome::Refused(_)), "{outcome:#?}");

    let alone = Fixture::kubeadm(1).build();
    let diagnosis = rekindle_diagnose::diagnose(&alone);
    let outcome = reset(&alone, &diagnosis, &goal(), &alone.hosts[0].id, NOW_MS);
    let PlanOutcome::Plan(plan) = outcome else { panic!("{outcome:#?}") };
    assert_eq!(lint(&plan, &alone), Vec::<String>::new());
    assert_eq!(plan.point_of_no_return(), None, "all of it can be taken back");
}
