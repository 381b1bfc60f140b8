//! The full restore: quorum is lost, so every member starts anew from one source, in a cluster of its own token.
//!
//! Order: everything that holds data is saved; the new store is built and staged while nothing is stopped, so that a
//! full disk or a bad source costs nothing; then all stop, all swap, all start; every member is proved; only then do
//! API servers start, and that is the point of no return. A source that still serves writes, or an empty cluster that
//! sits in the place of the lost one, is stopped first instead.

use crate::build::Steps;
use crate::manifest::EtcdEdit;
use crate::parts::{
    CLIENTS, add_found_manifest, add_saves, add_settings, add_start_unit, add_stop_clients,
    add_stop_containers, add_stop_unit, add_wait_component, add_wait_nodes, and_list, client_manifests,
    has_api_server, mebibytes, parked, save_step, span, time,
};
use crate::paths::{Swap, base, file_part};
use crate::refuse;
use crate::revision;
use crate::sources::{Choice, choose, host_of};
use crate::space;
use crate::survey::{Context, Member, Survey, kubelet_unit, unit_of};
use rekindle_model::diagnosis::EtcdVerdict;
use rekindle_model::etcd::{DbFacts, EtcdDefinition};
use rekindle_model::host::{Component, HostFacts, Layout};
use rekindle_model::plan::{Cost, Phase, Plan, PlanOutcome};
use rekindle_model::source::{Identity, SourceCandidate, SourceKind};
use rekindle_model::step::{NewMember, RestoreForm, Reversibility, SourceFile, Step};
use rekindle_model::{HostPath, Seen};

/// etcd's own limit when `--quota-backend-bytes` is not given or 0 (`server/storage/quota.go`).
const DEFAULT_QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// What the steps of one restore share.
struct Restore<'c, 'a> {
    context: &'c Context<'a>,
    survey: &'c Survey<'a>,
    source: &'c SourceCandidate,
    facts: &'c DbFacts,
    new_members: Vec<NewMember>,
    form: RestoreForm,
    edit: EtcdEdit,
}

/// Plans a full restore, or refuses.
pub(crate) fn plan(context: &Context<'_>) -> PlanOutcome {
    let choice = choose(context);
    if let Some(why) = refuse::undecided(context) {
        let possible =
            vec!["mend what could not be read on that host, or give it up with --lost HOST".to_owned()];
        return refuse::because(choice, why, possible);
    }
    let Some((source, facts)) = choice.source().map(|(s, f)| (s.clone(), f.clone())) else {
        return refuse::no_source(context, choice);
    };
    let survey = context.survey(&facts.members);
    if let Some(refusal) = guard(context, &survey, &choice, &facts) {
        return refusal;
    }
    let form = match form(context, &source) {
        Ok(form) => form,
        Err(why) => return refuse::because(choice, why, vec!["restore as it is: --exact".into()]),
    };
    let new_members: Vec<NewMember> = survey.members.iter().map(new_member).collect();
    let pairs = new_members.iter().flat_map(|m| m.peer_urls.iter().map(|u| (m.name.clone(), u.clone())));
    let edit = EtcdEdit { initial_cluster: pairs.collect(), data_dir: None };
    let restore =
        Restore { context, survey: &survey, source: &source, facts: &facts, new_members, form, edit };
    match restore.steps(&choice) {
        Ok(steps) => PlanOutcome::Plan(Box::new(restore.finish(steps, choice.clone()))),
        Err(why) => {
            let possible = vec![
                "put the text into the form kubeadm (or a plain unit file) has, and plan again".to_owned(),
            ];
            refuse::because(choice, why, possible)
        }
    }
}

/// Refuses where a restore would split the cluster, meet a full disk, or not fit the hosts.
fn guard(
    context: &Context<'_>,
    survey: &Survey<'_>,
    choice: &Choice,
    facts: &DbFacts,
) -> Option<PlanOutcome> {
    let refuse =
        |reason: String, possible: String| Some(refuse::because(choice.clone(), reason, vec![possible]));
    if let Some((host, why)) = survey.unreadable.first() {
        return refuse(
            format!("{host} can't be planned for: {why}"),
            format!("make it readable, or give it up with --lost {host} when it is off for good"),
        );
    }
    if let Some(absent) = survey.uncovered.first() {
        let urls = absent.peer_urls.join(", ");
        return refuse(
            format!("member {:?} ({urls}) is of this cluster, but its host was not given", absent.name),
            "name its host with --host, or with --lost (by address or member name) when it is off for good; a member \
             that comes back beside a restored cluster would make two of one"
                .to_owned(),
        );
    }
    if survey.members.is_empty() {
        return refuse(
            "no given host runs an etcd member".to_owned(),
            "name the control-plane hosts with --host".to_owned(),
        );
    }
    if let Some(dir) = &context.goal.data_dir
        && survey.members.iter().any(|m| &m.config.data_dir == dir)
    {
        return refuse(
            format!("--data-dir {dir} is the data dir in use"),
            "leave --data-dir out: the data is swapped in place".to_owned(),
        );
    }
    let saved: u64 = context
        .inventory
        .sources
        .iter()
        .filter(|s| host_of(&s.kind).is_some())
        .filter_map(|s| s.facts.known())
        .fold(0, |sum, f| sum.saturating_add(f.size_bytes));
    let lacking = space::lacking(context, &survey.members, facts.size_bytes, saved);
    if !lacking.is_empty() {
        return refuse(
            format!("there is not enough room for the restore: {}", lacking.join("; ")),
            "make room there, or restore to another file system with --data-dir DIR".to_owned(),
        );
    }
    None
}

/// Exact, or raised above every revision in evidence.
fn form(context: &Context<'_>, source: &SourceCandidate) -> Result<RestoreForm, String> {
    if context.goal.exact {
        return Ok(RestoreForm::Exact);
    }
    let floor = revision::floor(context.inventory, &source.taken_ms, context.now_ms)?;
    Ok(RestoreForm::Bumped { to_revision: floor.to_revision })
}

fn new_member(member: &Member<'_>) -> NewMember {
    NewMember {
        host: member.host.id.clone(),
        name: member.config.name.clone(),
        peer_urls: member.config.peer_urls.clone(),
    }
}

impl Restore<'_, '_> {
    /// All steps in order.
    fn steps(&self, choice: &Choice) -> Result<Vec<rekindle_model::plan::PlannedStep>, String> {
        let mut steps = Steps::default();
        let saved = add_saves(self.context, &mut steps, |_| true);
        let first_copy = choice.taken.and_then(|index| saved.get(&index)).cloned();
        let served = self.still_written();
        let imposter = self.context.diagnosis.etcd == EtcdVerdict::EmptyImposter;
        steps.stage();
        if served || imposter {
            self.add_stop(&mut steps, !served);
        }
        let file = if served { self.add_last_save(&mut steps)? } else { first_copy };
        steps.stage();
        self.add_build(&mut steps, file)?;
        steps.stage();
        for member in &self.survey.members {
            self.add_stage_member(&mut steps, member);
        }
        steps.stage();
        if !served && !imposter {
            self.add_stop(&mut steps, true);
        } else if served {
            self.survey.members.iter().for_each(|m| self.add_stop_etcd(&mut steps, m));
        }
        steps.stage();
        let mut reload = Vec::new();
        for member in &self.survey.members {
            reload.push(self.add_swap(&mut steps, member)?);
        }
        steps.stage();
        for (member, reload) in self.survey.members.iter().zip(reload) {
            self.add_start_etcd(&mut steps, member, reload);
        }
        self.add_open(&mut steps);
        Ok(steps.into_vec())
    }

    /// Whether the source is a member that clients can still write to: then what was saved first is not the last of it.
    fn still_written(&self) -> bool {
        let SourceKind::Served(host) = &self.source.kind else { return false };
        let live = self.context.inventory.host(host).and_then(|h| h.etcd_live.known());
        live.is_none_or(|l| l.quorum.known() != Some(&false))
    }

    /// Stops the clients everywhere, and etcd too unless it is still to be saved from.
    fn add_stop(&self, steps: &mut Steps, etcd_too: bool) {
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
    fn add_stop_etcd(&self, steps: &mut Steps, member: &Member<'_>) {
        match &member.config.defined_in {
            EtcdDefinition::Manifest(_) => add_stop_containers(steps, &member.host.id, &[Component::Etcd]),
            EtcdDefinition::Unit { name, .. } => add_stop_unit(steps, &member.host.id, name, true),
        }
    }

    /// Saves the served source once more, now that nothing writes to it.
    fn add_last_save(&self, steps: &mut Steps) -> Result<Option<HostPath>, String> {
        let host = host_of(&self.source.kind).map(|h| file_part(&h.0)).unwrap_or_default();
        let stem = format!("saved-last-served-{host}");
        let (host, step) = save_step(self.context, &self.source.kind, &stem)?;
        steps.stage();
        let summary = "save it once more, now that no API server writes to it any more";
        steps.add(Some(&host), Phase::Save, Reversibility::Reversible, summary, step);
        Ok(Some(self.context.goal.run_dir.join(format!("{stem}.db"))))
    }

    /// Builds the new store once, for all members.
    fn add_build(&self, steps: &mut Steps, saved: Option<HostPath>) -> Result<(), String> {
        let (path, has_trailer, sha256) = match &self.source.kind {
            SourceKind::SnapshotFile(path) => {
                (path.clone(), self.source.sha256.is_some(), self.source.sha256.clone())
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

    fn built(&self) -> HostPath {
        self.context.goal.run_dir.join("restored.db")
    }

    /// Folders of a member's swap.
    fn swap(&self, member: &Member<'_>) -> Swap {
        let run = &self.context.goal.run_id;
        let wal_dir = member.config.wal_dir.as_ref();
        match &self.context.goal.data_dir {
            // A new data dir may be a mount point itself: inside it is always right.
            Some(dir) => Swap::new(dir, true, wal_dir, run),
            None => {
                let mounted = member.host.etcd_data.known().is_some_and(|d| d.is_mount_point);
                Swap::new(&member.config.data_dir, mounted, wal_dir, run)
            }
        }
    }

    fn add_stage_member(&self, steps: &mut Steps, member: &Member<'_>) {
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
    fn add_swap(&self, steps: &mut Steps, member: &Member<'_>) -> Result<bool, String> {
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
        let members = self.new_members.len();
        let step = Step::ProveMember { endpoint: member.config.endpoint.clone(), members };
        let summary = format!("prove member {}: revision, HashKV and number of keys", member.config.name);
        steps.add(Some(host), Phase::Verify, Reversibility::Reversible, summary, step);
    }

    /// Lets clients in again: past this nothing is taken back.
    fn add_open(&self, steps: &mut Steps) {
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

    /// Starts the clients of etcd on a host: with static pods all manifests go back at once, with units the API server
    /// comes `first` and the others once their leases are free.
    fn add_start_clients(&self, steps: &mut Steps, host: &HostFacts, first: bool) {
        if host.layout == Layout::Units {
            for component in CLIENTS.into_iter().filter(|c| (*c == Component::KubeApiserver) == first) {
                if let Some(unit) = unit_of(host, component) {
                    add_start_unit(steps, &host.id, unit, false, Reversibility::Final);
                }
            }
            return;
        }
        if !first {
            return;
        }
        let mut put_back = |component: Component, from: HostPath, to: HostPath| {
            let summary = format!("put the manifest of {component} back");
            let step = Step::Rename { from, to, optional: false };
            steps.add(Some(&host.id), Phase::Start, Reversibility::Final, summary, step);
        };
        for (component, manifest) in client_manifests(host) {
            put_back(component, parked(self.context, host, manifest), manifest.path.clone());
        }
        for component in CLIENTS {
            if host.manifest(component).is_none() {
                add_found_manifest(self.context, steps, host, component, Phase::Start, Reversibility::Final);
            }
        }
    }

    /// The plan around the steps.
    fn finish(&self, steps: Vec<rekindle_model::plan::PlannedStep>, choice: Choice) -> Plan {
        let cost = crate::cost::of_restore(self.context, self.survey, &choice);
        crate::parts_plan::assemble(
            self.context,
            crate::parts_plan::Parts {
                hosts: self.survey.members.iter().map(|m| m.host.id.clone()).collect(),
                summary: self.summary(),
                warnings: self.warnings(&cost),
                how_to_go_back: self.how_to_go_back(),
                choice,
                cost,
                steps,
            },
        )
    }

    fn summary(&self) -> String {
        let names: Vec<String> = self.new_members.iter().map(|m| m.name.clone()).collect();
        let why = if self.context.diagnosis.etcd == EtcdVerdict::EmptyImposter {
            "An empty cluster sits in the place of the lost one, and the old data survives elsewhere"
        } else if self.survey.voters == 1 {
            "The data of the only etcd member is lost"
        } else {
            "Too many etcd members lost their data for a quorum"
        };
        let age = match (&self.source.kind, self.source.taken_ms.known()) {
            (SourceKind::SnapshotFile(_), Some(taken)) => format!(" of {}", time(*taken)),
            _ => String::new(),
        };
        let form = match self.form {
            RestoreForm::Exact => format!("at its own revision {}", self.facts.revision),
            RestoreForm::Bumped { to_revision } => {
                format!(
                    "raised from revision {} to {to_revision}, above all that clients have seen",
                    self.facts.revision
                )
            }
        };
        let lost = match self.survey.lost.as_slice() {
            [] => String::new(),
            lost => {
                let names: Vec<String> = lost.iter().map(|l| l.name.clone()).collect();
                format!(
                    " Without {}: their hosts are lost; add them later as learners, one at a time.",
                    and_list(&names)
                )
            }
        };
        format!(
            "{why}, so {} {} restored from {}{age} ({}), {form}, as a new cluster.{lost}",
            and_list(&names),
            if names.len() == 1 { "is" } else { "are" },
            self.source.kind,
            mebibytes(self.facts.size_bytes),
        )
    }

    fn warnings(&self, cost: &Cost) -> Vec<String> {
        let mut warnings = Vec::new();
        match &cost.time_lost_seconds {
            Seen::Known(0) => {}
            Seen::Known(seconds) => {
                warnings.push(format!("Up to {} of acknowledged writes are lost.", span(*seconds)));
            }
            Seen::Unknown(why) => warnings.push(format!("How much is lost can't be bounded: {why}.")),
        }
        if self.form == RestoreForm::Exact {
            warnings.push(
                "Revisions are not raised (--exact): clients that saw higher ones may miss changes until restarted.".into(),
            );
        }
        if let Identity::Unknown(why) = &self.source.identity {
            warnings.push(format!(
                "Whose data the source is could not be told ({why}); you consented to take it."
            ));
        }
        if self.context.diagnosis.etcd == EtcdVerdict::EmptyImposter {
            warnings.push(
                "What was written to the empty cluster since it began is saved, but not carried over.".into(),
            );
        }
        for lost in &self.survey.lost {
            warnings.push(format!(
                "You attest that the host of {} is off for good. Its old member can't join the new cluster if it returns.",
                lost.name
            ));
        }
        if !self.survey.members.iter().any(|m| has_api_server(m.host)) {
            warnings.push(
                "No API server was found on these hosts: those elsewhere are not stopped and must be restarted after.".into(),
            );
        }
        warnings
    }

    fn how_to_go_back(&self) -> String {
        let run = &self.context.goal.run_id;
        let folders: Vec<String> = self
            .survey
            .members
            .iter()
            .map(|m| {
                let mounted = m.host.etcd_data.known().is_some_and(|d| d.is_mount_point);
                format!("{}:{}", m.host.id, base(&m.config.data_dir, mounted, run).join("old-member"))
            })
            .collect();
        let old = match self.context.goal.data_dir {
            Some(_) => "Old data stays where it is.".to_owned(),
            None => format!("Old data, where there is any, is kept in {}.", and_list(&folders)),
        };
        format!(
            "Until the API servers start, `rekindle runs undo {run}` puts everything back as it was. After that undo \
             refuses, because clients may have written. {old}"
        )
    }
}
