//! The way back in: stale addresses deleted, API servers started (the point of no return), leases released, all waited
//! for.

use super::Restore;
use crate::build::Steps;
use crate::parts::{add_start_clients, add_wait_component, add_wait_nodes, has_api_server};
use crate::survey::lost_nodes;
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
            add_start_clients(self.context, steps, host, true, Reversibility::Final);
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
            add_start_clients(self.context, steps, host, false, Reversibility::Final);
            for component in [Component::KubeControllerManager, Component::KubeScheduler] {
                let in_manifest = host
                    .manifests
                    .known()
                    .is_some_and(|all| all.iter().any(|m| m.component == Some(component)));
                let present = match host.layout {
                    Layout::Units => host.unit_of(component).is_some(),
                    _ => in_manifest,
                };
                if present {
                    add_wait_component(steps, &host.id, component);
                }
            }
        }
        steps.stage();
        add_wait_nodes(steps, &api.id, lost_nodes(self.context, self.survey));
    }
}
