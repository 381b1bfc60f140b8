//! The way back in: stale addresses deleted, API servers started (the point of no return), leases released, all waited
//! for.

use super::Restore;
use crate::build::Steps;
use crate::parts::{
    CLIENTS, add_found_manifest, add_start_unit, add_wait_component, add_wait_nodes, has_api_server, parked,
};
use crate::survey::unit_of;
use rekindle_model::etcd::EtcdDefinition;
use rekindle_model::host::{Component, HostFacts, Layout};
use rekindle_model::plan::Phase;
use rekindle_model::step::{Reversibility, Step};

impl Restore<'_, '_> {
    /// Lets clients in again: past this nothing is taken back.
    pub(super) fn add_open(&self, steps: &mut Steps) {
        let hosts: Vec<&HostFacts> = self.survey.members.iter().map(|m| m.host).collect();
        let Some(first) = self.survey.members.first() else { return };
        steps.stage();
        let step = Step::DeleteStaleMasterleases { endpoint: first.config.endpoint.clone() };
        let summary = "delete the address leases of API servers that no longer run";
        steps.add(Some(&first.host.id), Phase::Start, Reversibility::Compensated, summary, step);
        steps.stage();
        for host in &hosts {
            self.add_start_clients(steps, host, true);
            if has_api_server(host) {
                let summary = "wait until its API server is ready";
                steps.add(Some(&host.id), Phase::Ready, Reversibility::Final, summary, Step::WaitApiReady {});
            }
        }
        let Some(api) = hosts.iter().find(|h| has_api_server(h)) else { return };
        steps.stage();
        let leases = vec!["kube-controller-manager".to_owned(), "kube-scheduler".to_owned()];
        let summary = "release the leader leases of the stopped controller-managers and schedulers";
        let step = Step::ReleaseLeaderLeases { leases };
        steps.add(Some(&api.id), Phase::Start, Reversibility::Final, summary, step);
        if let Some(data_dir) = &self.context.goal.data_dir
            && matches!(first.config.defined_in, EtcdDefinition::Manifest(_))
        {
            let old_data_dir = first.config.data_dir.clone();
            let step = Step::SetKubeadmDataDir { data_dir: data_dir.clone(), old_data_dir };
            let summary = "write the new data dir into kubeadm-config, so that the next upgrade keeps it";
            steps.add(Some(&api.id), Phase::Verify, Reversibility::Final, summary, step);
        }
        steps.stage();
        for host in &hosts {
            self.add_start_clients(steps, host, false);
            for component in [Component::KubeControllerManager, Component::KubeScheduler] {
                let in_manifest = host
                    .manifests
                    .known()
                    .is_some_and(|all| all.iter().any(|m| m.component == Some(component)));
                let present = match host.layout {
                    Layout::Units => unit_of(host, component).is_some(),
                    _ => in_manifest,
                };
                if present {
                    add_wait_component(steps, &host.id, component);
                }
            }
        }
        steps.stage();
        add_wait_nodes(steps, &api.id, self.survey.lost.iter().map(|l| l.name.clone()).collect());
    }

    /// Starts the clients of etcd on a host: the API server comes `first`, the others once their leases are free. Until
    /// then they could only wait for it, and would take processor time from its start.
    pub(super) fn add_start_clients(&self, steps: &mut Steps, host: &HostFacts, first: bool) {
        for component in CLIENTS.into_iter().filter(|c| (*c == Component::KubeApiserver) == first) {
            if host.layout == Layout::Units {
                if let Some(unit) = unit_of(host, component) {
                    add_start_unit(steps, &host.id, unit, false, Reversibility::Final);
                }
            } else if let Some(manifest) = host.manifest(component) {
                let summary = format!("put the manifest of {component} back");
                let (from, to) = (parked(self.context, host, manifest), manifest.path.clone());
                let step = Step::Rename { from, to, optional: false };
                steps.add(Some(&host.id), Phase::Start, Reversibility::Final, summary, step);
            } else {
                add_found_manifest(self.context, steps, host, component, Phase::Start, Reversibility::Final);
            }
        }
    }
}
