//! Whatever was seen and however it was judged, even wrongly: planning never panics, gives the same answer twice, and
//! never a plan that the linter refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{diagnosis, goal, planned};
use proptest::prelude::*;
use rekindle_model::diagnosis::{ComponentVerdict, Diagnosis, EtcdVerdict, MemberVerdict};
use rekindle_model::fixtures::Fixture;
use rekindle_model::host::Component;
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::Goal;
use rekindle_model::{HostPath, MemberId, Seen};

fn fault(fixture: Fixture, host: usize, kind: u8) -> Fixture {
    match kind {
        0 => fixture.lose_data(host),
        1 => fixture.lose_data_and_crash(host),
        2 => fixture.serve_from_deleted(host),
        3 => fixture.open_db_only(host),
        4 => fixture.corrupt_db(host),
        5 => fixture.truncate_db(host),
        6 => fixture.garble_wal(host),
        7 => fixture.corrupt_db_running(host),
        8 => fixture.stop_etcd(host),
        9 => fixture.stop_component(host, Component::KubeApiserver),
        10 => fixture.move_manifest(host, Component::KubeApiserver, "/root/kube-apiserver.yaml"),
        11 => fixture.move_manifest(host, Component::Etcd, "/root/etcd.yaml"),
        12 => fixture.stop_kubelet(host),
        13 => fixture.stop_kubelet_and_pods(host),
        14 => fixture.empty_imposter(host),
        15 => fixture.shut_out(host),
        16 => fixture.wiped_first_panics(host),
        17 => fixture.rejoin_wiped(host),
        18 => fixture.unreachable(host),
        19 => fixture.lost_host(host),
        20 => fixture.disk_full(host),
        21 => fixture.unparsable_manifest(host, Component::Etcd),
        22 => fixture.bad_flag(host, Component::KubeApiserver, "--nonsense=1", true),
        23 => fixture.snapshot(48_000),
        24 => fixture.snapshot(i64::MAX),
        25 => fixture.broken_snapshot("truncated"),
        26 => fixture.foreign_snapshot(),
        27 => fixture.earlier_run(5_000_000),
        28 => fixture.alarm(host, "CORRUPT"),
        29 => fixture.host(host, |h| h.etcd_config = Seen::Unknown("no such file".into())),
        30 => fixture.host(host, |h| h.manifests = Seen::Unknown("permission denied".into())),
        31 => fixture.host(host, |h| h.units.clear()),
        32 => fixture.host(host, |h| {
            if let Seen::Known(data) = &mut h.etcd_data {
                data.is_mount_point = true;
            }
        }),
        33 => fixture.host(host, |h| {
            if let Seen::Known(config) = &mut h.etcd_config {
                config.wal_dir = Some(HostPath::from("/wal/etcd"));
            }
        }),
        34 => fixture.host(host, |h| h.etcd_data = Seen::Unknown("i/o error".into())),
        35 => fixture.host(host, |h| h.unit_files.clear()),
        _ => fixture.with(move |i| {
            if host < i.hosts.len() {
                i.hosts.remove(host);
            }
        }),
    }
}

fn member_verdict() -> impl Strategy<Value = MemberVerdict> {
    prop_oneof![
        Just(MemberVerdict::Healthy),
        Just(MemberVerdict::StoppedIntact),
        Just(MemberVerdict::NoQuorum),
        Just(MemberVerdict::ServingFromLostFiles),
        Just(MemberVerdict::OpenDbOnly),
        Just(MemberVerdict::DataLost),
        Just(MemberVerdict::DataCorrupt),
        Just(MemberVerdict::RejoinedWiped),
        Just(MemberVerdict::EmptyImposter),
        Just(MemberVerdict::Removed(MemberId(7))),
        Just(MemberVerdict::HostLost),
        Just(MemberVerdict::Unknown("not read".into())),
    ]
}

fn etcd_verdict() -> impl Strategy<Value = EtcdVerdict> {
    prop_oneof![
        1 => Just(EtcdVerdict::Healthy),
        2 => Just(EtcdVerdict::QuorumHolds),
        1 => Just(EtcdVerdict::Stopped),
        4 => Just(EtcdVerdict::DataLost),
        2 => Just(EtcdVerdict::EmptyImposter),
        1 => Just(EtcdVerdict::Unknown("not read".into())),
    ]
}

fn component_verdict(
    inventory: &Inventory,
    host: usize,
    component: Component,
    kind: u8,
) -> Option<ComponentVerdict> {
    let host = inventory.hosts.get(host)?;
    let manifest = host.manifests.known()?.iter().find(|m| m.component == Some(component));
    Some(match kind {
        0 => ComponentVerdict::UnitStopped { unit: format!("{component}.service") },
        1 => {
            let manifest = manifest.filter(|m| !m.in_place)?;
            let belongs = host.manifest_dir.join(format!("{component}.yaml"));
            ComponentVerdict::ManifestMoved { found: manifest.path.clone(), belongs }
        }
        2 => ComponentVerdict::ManifestMissing,
        3 => {
            let manifest = manifest.filter(|m| m.in_place)?;
            ComponentVerdict::ManifestBroken {
                path: manifest.path.clone(),
                sha256: manifest.sha256.clone(),
                repaired: manifest.text.clone(),
                repair: "the last good copy".into(),
            }
        }
        4 => ComponentVerdict::ContainerStopped,
        5 => ComponentVerdict::Consequence,
        _ => ComponentVerdict::Down("no answer".into()),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn planning_never_panics_and_never_plans_harm(
        layout in 0usize..4,
        faults in proptest::collection::vec((0usize..3, 0u8..37), 0..7),
        etcd in etcd_verdict(),
        members in proptest::collection::vec(member_verdict(), 3),
        components in proptest::collection::vec((0usize..3, 0usize..4, 0u8..7), 0..5),
        kubelets in proptest::collection::vec(any::<bool>(), 3),
        (exact, elsewhere, unknown, corrupt) in any::<(bool, bool, bool, bool)>(),
        failed_since in proptest::option::of(any::<i64>()),
    ) {
        let healthy = match layout {
            0 => Fixture::kubeadm(1),
            1 => Fixture::systemd(),
            _ => Fixture::kubeadm(3),
        };
        let inventory = faults.iter().fold(healthy, |f, (host, kind)| fault(f, *host, *kind)).build();
        let mut found: Diagnosis = diagnosis(&inventory, etcd, &members);
        found.failed_since = failed_since.map(|ms| (ms, "a log line".into()));
        for (host, component, kind) in components {
            let component = Component::ALL[component];
            if let Some(verdict) = component_verdict(&inventory, host, component, kind) {
                found.components.entry(inventory.hosts[host].id.clone()).or_default().insert(component, verdict);
            }
        }
        found.kubelets_stopped = inventory.hosts.iter().zip(&kubelets).filter(|(_, s)| **s).map(|(h, _)| h.id.clone()).collect();
        let goal = Goal {
            exact,
            data_dir: elsewhere.then(|| HostPath::from("/srv/etcd")),
            accept_unknown_identity: unknown,
            accept_corrupt_alarm: corrupt,
            skip_hash_check: corrupt,
            ..goal()
        };
        planned(&inventory, &found, &goal);
    }
}
