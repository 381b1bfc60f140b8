//! What holds for every inventory, however broken: found by breaking healthy ones at random, several faults at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use rekindle_diagnose::{codes, diagnose};
use rekindle_model::Seen;
use rekindle_model::diagnosis::{ComponentVerdict, EtcdVerdict, MemberVerdict};
use rekindle_model::finding::CheckResult;
use rekindle_model::fixtures::Fixture;
use rekindle_model::host::{Component, HostFacts};

const FAULTS: &[fn(Fixture, usize) -> Fixture] = &[
    Fixture::lose_data,
    Fixture::lose_data_and_crash,
    Fixture::serve_from_deleted,
    Fixture::open_db_only,
    Fixture::corrupt_db,
    Fixture::truncate_db,
    Fixture::garble_wal,
    Fixture::corrupt_db_running,
    Fixture::stop_etcd,
    Fixture::stop_kubelet,
    Fixture::stop_kubelet_and_pods,
    Fixture::empty_imposter,
    Fixture::shut_out,
    Fixture::wiped_first_panics,
    Fixture::rejoin_wiped,
    Fixture::returned_old_member,
    Fixture::unreachable,
    Fixture::lost_host,
    Fixture::disk_full,
    |f, h| f.clock_off(h, 5_000),
    |f, h| f.alarm(h, "NOSPACE"),
    |f, h| f.alarm(h, "CORRUPT"),
    |f, _| f.vip_down(),
    |f, _| f.snapshot(48_000),
    |f, _| f.foreign_snapshot(),
    |f, _| f.earlier_run(1_000_000),
    |f, h| f.stop_component(h, Component::KubeScheduler),
    |f, h| f.bad_flag(h, Component::KubeApiserver, "--nope", false),
    |f, h| f.bad_flag(h, Component::Etcd, "--nope=1", true),
    |f, h| f.unparsable_manifest(h, Component::KubeControllerManager),
    |f, h| f.move_manifest(h, Component::KubeApiserver, "/root/kube-apiserver.yaml"),
    |f, h| f.fail_unit(h, Component::KubeApiserver, "last words"),
    |f, h| f.host(h, |host| host.processes = Seen::Unknown("no permission".into())),
    |f, h| f.host(h, |host| host.containers = Seen::Unknown("no socket".into())),
    |f, h| f.host(h, |host| host.manifests = Seen::Unknown("no permission".into())),
    |f, h| f.host(h, |host| host.etcd_data = Seen::Unknown("no permission".into())),
    |f, h| f.host(h, |host| host.etcd_live = Seen::default()),
    |f, h| f.host(h, |host| host.api = Seen::default()),
    |f, h| f.host(h, |host| host.units.clear()),
    |f, h| f.log(h, Component::Etcd, "x509: certificate has expired or is not yet valid"),
];

fn broken() -> impl Strategy<Value = Fixture> {
    let faults = prop::collection::vec((0..FAULTS.len(), 0..3usize), 0..7);
    (0..4usize, faults).prop_map(|(kind, faults)| {
        let start = match kind {
            0 => Fixture::systemd(),
            1 => Fixture::kubeadm(1),
            2 => Fixture::kubeadm(5),
            _ => Fixture::kubeadm(3),
        };
        faults.into_iter().fold(start, |fixture, (fault, host)| FAULTS[fault](fixture, host))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    // No finding without evidence, no code outside the table, no cause behind its consequence, no failed line without
    // the finding behind it; and asked twice, the same answer.
    #[test]
    fn findings_are_founded_ordered_and_repeatable(fixture in broken()) {
        let inventory = fixture.build();
        let d = diagnose(&inventory);
        prop_assert_eq!(&d, &diagnose(&inventory));
        for (at, finding) in d.findings.iter().enumerate() {
            prop_assert!(codes::CODES.iter().any(|c| c.code == finding.code), "{}", finding.code);
            prop_assert!(!finding.evidence.is_empty(), "{:?}", finding);
            prop_assert!(finding.evidence.iter().all(|e| !e.source.is_empty() && !e.text.is_empty()), "{:?}", finding);
            prop_assert!(finding.caused_by.is_none_or(|cause| cause < at), "{:?}", finding);
        }
        for check in &d.checks {
            prop_assert!(check.finding.is_none_or(|at| at < d.findings.len()));
            let bad = matches!(check.result, CheckResult::Failed | CheckResult::Warning);
            prop_assert_eq!(bad, check.finding.is_some(), "{:?}", check);
        }
        let layers: Vec<_> = d.checks.iter().map(|c| c.layer).collect();
        prop_assert!(layers.is_sorted());
    }

    // The planner acts on verdicts: each that calls for data to be given up rests on something that was read, and
    // what was not read gives no verdict but unknown.
    #[test]
    fn nothing_unread_is_called_lost(fixture in broken()) {
        let inventory = fixture.build();
        let d = diagnose(&inventory);
        for host in &inventory.hosts {
            let Some(verdict) = d.members.get(&host.id) else { continue };
            if inventory.lost_hosts.contains(&host.id) {
                prop_assert_eq!(verdict, &MemberVerdict::HostLost);
            } else if host.unreachable.is_some() {
                prop_assert!(matches!(verdict, MemberVerdict::Unknown(_)), "{:?}", verdict);
            } else if blind(host) {
                prop_assert!(!verdict.is_lost(), "{:?} of {:?}", verdict, host.etcd_data);
            }
            // what still answers is never called simply gone: it must be saved first
            let answers = host.etcd_live.known().is_some_and(|l| l.status.known().is_some());
            if answers && !inventory.lost_hosts.contains(&host.id) {
                prop_assert!(!matches!(verdict, MemberVerdict::DataLost | MemberVerdict::DataCorrupt | MemberVerdict::StoppedIntact), "{:?}", verdict);
            }
        }
        if d.etcd == EtcdVerdict::DataLost {
            let lost = d.members.values().filter(|v| v.is_lost()).count();
            prop_assert!(lost * 2 >= d.members.len(), "{:?}", d.members);
            // what may be whole is counted as if it were
            let may_be_whole = d.members.len() - lost;
            prop_assert!(may_be_whole < d.members.len() / 2 + 1, "{:?}", d.members);
        }
        for verdict in d.components.values().flat_map(|c| c.values()) {
            if let ComponentVerdict::ManifestBroken { repaired, .. } = verdict {
                prop_assert!(!repaired.contains("--nope") && repaired.contains("kind: Pod"), "{}", repaired);
            }
        }
    }
}

/// Neither the data dir nor the member nor its process could be looked at.
fn blind(host: &HostFacts) -> bool {
    host.etcd_data.known().is_none()
        && host.etcd_live.known().is_none_or(|l| l.status.known().is_none())
        && host.process(Component::Etcd).is_none_or(|p| p.deleted_files.is_empty())
}
