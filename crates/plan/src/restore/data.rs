//! The data: built once, staged beside the old, swapped in with everything stopped, started and proved.

use super::Restore;
use crate::build::Steps;
use crate::parts::{
    CLIENTS, add_settings, add_start_unit, add_stop_clients, add_stop_containers, add_stop_unit,
    add_wait_peers_served,
};
use crate::paths::{Swap, file_part};
use crate::saves::save_step;
use crate::sources::host_of;
use crate::survey::{Member, kubelet_unit};
use rekindle_model::HostPath;
use rekindle_model::etcd::EtcdDefinition;
use rekindle_model::host::{Component, Layout};
use rekindle_model::plan::Phase;
use rekindle_model::source::SourceKind;
use rekindle_model::step::{RestoreForm, Reversibility, SourceFile, Step};

/// etcd's own limit when `--quota-backend-bytes` is not given or 0 (`server/storage/quota.go`).
const DEFAULT_QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;

impl Restore<'_, '_> {
    /// Whether the source is a member that clients can still write to: then what was saved first is not the last of it.
    pub(super) fn still_written(&self) -> bool {
        let SourceKind::Served(host) = &self.source.kind else { return false };
        let live = self.context.inventory.host(host).and_then(|h| h.etcd_live.known());
        live.is_none_or(|l| l.quorum.known() != Some(&false))
    }

    /// Stops the clients everywhere, and etcd too unless it is still to be saved from.
    pub(super) fn add_stop(&self, steps: &mut Steps, etcd_too: bool) {
        for member in &self.survey.members {
            add_stop_clients(self.context, steps, member.host);
            if member.host.layout == Layout::StaticPods {
                let all: &[Component] = if etcd_too { &Component::ALL } else { &CLIENTS };
                add_stop_containers(steps, &member.host.id, all);
            } else if etcd_too {
                self.add_stop_etcd(steps, member);
            }
        }
    }

    /// Stops etcd alone.
    pub(super) fn add_stop_etcd(&self, steps: &mut Steps, member: &Member<'_>) {
        match &member.config.defined_in {
            EtcdDefinition::Manifest(_) => add_stop_containers(steps, &member.host.id, &[Component::Etcd]),
            EtcdDefinition::Unit { name, .. } => add_stop_unit(steps, &member.host.id, name, true),
        }
    }

    /// Saves the served source once more, now that nothing writes to it.
    pub(super) fn add_last_save(&self, steps: &mut Steps) -> Result<Option<HostPath>, String> {
        let host = host_of(&self.source.kind).map(|h| file_part(&h.0)).unwrap_or_default();
        let stem = format!("saved-last-served-{host}");
        let (host, step) = save_step(self.context, &self.source.kind, &stem)?;
        steps.stage();
        let summary = "save it once more, now that no API server writes to it any more";
        steps.add(Some(&host), Phase::Save, Reversibility::Reversible, summary, step);
        Ok(Some(self.context.goal.run_dir.join(format!("{stem}.db"))))
    }

    /// Builds the new store once, for all members.
    pub(super) fn add_build(&self, steps: &mut Steps, saved: Option<HostPath>) -> Result<(), String> {
        let (path, has_trailer, sha256) = match &self.source.kind {
            SourceKind::SnapshotFile(path) => {
                (path.clone(), !self.source.copied_db, self.source.sha256.clone())
            }
            kind => {
                let path = saved.ok_or_else(|| format!("{kind} was not saved"))?;
                (path, matches!(kind, SourceKind::Served(_)), None)
            }
        };
        let quota = |m: &Member<'_>| m.config.quota_bytes.filter(|q| *q > 0).unwrap_or(DEFAULT_QUOTA_BYTES);
        let step = Step::BuildDb {
            source: SourceFile {
                path,
                has_trailer,
                sha256,
                min_revision: self.facts.revision,
                kube_system_uid: self.facts.kube_system_uid.known().cloned(),
            },
            form: self.form.clone(),
            members: self.new_members.clone(),
            token: self.context.goal.token.clone(),
            quota_bytes: self.survey.members.iter().map(quota).min().unwrap_or(DEFAULT_QUOTA_BYTES),
            allow_corrupt_alarm: self.context.goal.accept_corrupt_alarm,
            file: self.built(),
        };
        let raised = match self.form {
            RestoreForm::Exact => "every revision kept".to_owned(),
            RestoreForm::Bumped { to_revision } => format!("raised to revision {to_revision}"),
        };
        let summary = format!("write the new store from {}, {raised}", self.source.kind);
        steps.add(None, Phase::Restore, Reversibility::Reversible, summary, step);
        Ok(())
    }

    pub(super) fn built(&self) -> HostPath {
        self.context.goal.run_dir.join("restored.db")
    }

    /// Folders of a member's swap.
    pub(super) fn swap(&self, member: &Member<'_>) -> Swap {
        let run = &self.context.goal.run_id;
        match &self.context.goal.data_dir {
            // A new data dir may be a mount point itself: inside it is always right.
            Some(dir) => Swap::new(dir, true, member.config.wal_dir.as_ref(), run),
            None => Swap::in_place(member.host, member.config, run),
        }
    }

    pub(super) fn add_stage_member(&self, steps: &mut Steps, member: &Member<'_>) {
        let swap = self.swap(member);
        let summary = format!("put the new data of member {} beside the old", member.config.name);
        let step = Step::StageMember {
            db: self.built(),
            members: self.new_members.clone(),
            name: member.config.name.clone(),
            token: self.context.goal.token.clone(),
            staging: swap.staging,
            wal_staging: swap.wal.map(|w| w.staging),
        };
        steps.add(Some(&member.host.id), Phase::Restore, Reversibility::Reversible, summary, step);
    }

    /// Moves the old data aside and the new data in, and writes the settings. Returns whether a unit file changed.
    pub(super) fn add_swap(&self, steps: &mut Steps, member: &Member<'_>) -> Result<bool, String> {
        let swap = self.swap(member);
        let id = Some(&member.host.id);
        let mut rename = |from: &HostPath, to: &HostPath, optional: bool, what: &str| {
            let step = Step::Rename { from: from.clone(), to: to.clone(), optional };
            steps.add(id, Phase::Restore, Reversibility::Reversible, what, step);
        };
        rename(&swap.member, &swap.old_member, true, "move the old data aside, on its own file system");
        rename(&swap.staging.join("member"), &swap.member, false, "move the new data in");
        if let Some(wal) = &swap.wal {
            rename(&wal.dir, &wal.old, true, "move the old WAL aside, on its own file system");
            rename(&wal.staging, &wal.dir, false, "move the new WAL in");
        }
        let mut edit = self.edit.clone();
        if let Some(dir) = &self.context.goal.data_dir {
            edit.data_dir = Some((member.config.data_dir.to_string(), dir.to_string()));
        }
        add_settings(self.context, steps, member, &edit)
    }

    /// Starts the members one after the other, each when the one before serves its peers, and proves them all.
    pub(super) fn add_start_members(&self, steps: &mut Steps, reloads: &[bool]) {
        let members = &self.survey.members;
        for (number, (member, reload)) in (1..).zip(members.iter().zip(reloads)) {
            steps.stage();
            self.add_start_etcd(steps, member, *reload);
            if number < members.len() {
                add_wait_peers_served(steps, &member.host.id, member.config);
            }
        }
        steps.stage();
        for member in members {
            let step = Step::ProveMember {
                endpoint: member.config.endpoint.clone(),
                members: self.new_members.len(),
            };
            let summary = format!("prove member {}: revision, HashKV and number of keys", member.config.name);
            steps.add(Some(&member.host.id), Phase::Verify, Reversibility::Reversible, summary, step);
        }
    }

    fn add_start_etcd(&self, steps: &mut Steps, member: &Member<'_>, reload: bool) {
        let host = &member.host.id;
        match &member.config.defined_in {
            EtcdDefinition::Manifest(_) => {
                add_start_unit(steps, host, kubelet_unit(member.host), false, Reversibility::Compensated);
            }
            EtcdDefinition::Unit { name, .. } => {
                add_start_unit(steps, host, name, reload, Reversibility::Compensated);
            }
        }
    }
}
