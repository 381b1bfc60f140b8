//! Whole plans over the simulated world: fixture -> diagnosis -> plan -> world -> run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    dead_code
)]

mod pki;

use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::Seen;
use rekindle_model::certificate::CertificateFacts;
use rekindle_model::diagnosis::Diagnosis;
use rekindle_model::event::{Event, Outcome, What};
use rekindle_model::fixtures::{Fixture, NOW_MS};
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Goal, Plan, PlanOutcome};
use rekindle_model::report::RunReport;
use rekindle_model::{HostPath, RunId};
use rekindle_plan::certificates::{Renew, renew_certificates};
use rekindle_run::fault::Hooks;
use rekindle_run::{Before, RunError, RunOptions, Sink, Turn};
use rekindle_world::sim::SimWorld;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub(crate) const RUN: &str = "0199b000-0000-7000-8000-0000deadbeef";

/// A name and what makes the inventory.
pub(crate) type Scenario = (&'static str, fn() -> Inventory);

/// The clusters and faults every harness goes through.
pub(crate) fn cases() -> Vec<Scenario> {
    vec![
        ("S1 kubeadm, data deleted", s1_kubeadm),
        ("S1 kubeadm, db overwritten", s1_corrupt),
        ("S2 kubeadm, two of three disks lost", s2_kubeadm),
        ("S3 kubeadm, one of three disks lost", s3_kubeadm),
        ("S4 units, data deleted", s4_units),
        ("S5 kubeadm, kubelet stopped", s5_kubelet),
        ("S5 kubeadm, etcd's manifest moved away", s5_manifest),
        ("kubeadm, certificates renewed", certificates),
    ]
}

pub(crate) fn s1_kubeadm() -> Inventory {
    Fixture::kubeadm(1).lose_data_and_crash(0).snapshot(48_000).build()
}

pub(crate) fn s1_corrupt() -> Inventory {
    Fixture::kubeadm(1).corrupt_db(0).snapshot(48_000).build()
}

pub(crate) fn s2_kubeadm() -> Inventory {
    Fixture::kubeadm(3).lose_data_and_crash(1).lose_data_and_crash(2).snapshot(48_000).build()
}

pub(crate) fn s3_kubeadm() -> Inventory {
    Fixture::kubeadm(3).lose_data_and_crash(1).build()
}

pub(crate) fn s4_units() -> Inventory {
    Fixture::systemd().lose_data_and_crash(0).snapshot(48_000).build()
}

pub(crate) fn s5_kubelet() -> Inventory {
    Fixture::kubeadm(1).stop_kubelet_and_pods(0).build()
}

pub(crate) fn s5_manifest() -> Inventory {
    let etcd = rekindle_model::host::Component::Etcd;
    Fixture::kubeadm(1).move_manifest(0, etcd, "/root/etcd.yaml").build()
}

const PKI_DIR: &str = "/etc/kubernetes/pki";

/// Nothing is wrong; where the certificates are known to lie, [`Case::new`] makes some and plans to renew them.
pub(crate) fn certificates() -> Inventory {
    let mut inventory = Fixture::kubeadm(1).build();
    let facts = CertificateFacts { pki_dir: HostPath::from(PKI_DIR), ..CertificateFacts::default() };
    inventory.hosts[0].certificates = Seen::Known(facts);
    inventory
}

/// Makes certificates on the hosts of a world and reads them into its inventory.
fn make_certificates(inventory: &mut Inventory, world: &SimWorld, dir: &Utf8Path) {
    let wanted = CertificateFacts { pki_dir: HostPath::from(PKI_DIR), ..CertificateFacts::default() };
    if inventory.hosts[0].certificates.known() != Some(&wanted) {
        return;
    }
    pki::write(&dir.join("host-0"));
    let asked = world.world().hosts[0].clone();
    let facts = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(asked.certificates(&HostPath::from(PKI_DIR), Vec::new())).unwrap()
    });
    inventory.hosts[0].certificates = Seen::Known(facts.join().unwrap());
}

/// One world with its plan.
pub(crate) struct Case {
    pub(crate) world: SimWorld,
    pub(crate) plan: Plan,
    pub(crate) state_dir: Utf8PathBuf,
    pub(crate) before: BTreeMap<String, String>,
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
    _dir: tempfile::TempDir,
}

/// What makes the plan of a case.
type Planner = fn(&Inventory, &Diagnosis, &Goal) -> PlanOutcome;

fn planned(inventory: &Inventory, diagnosis: &Diagnosis, goal: &Goal) -> PlanOutcome {
    if inventory.hosts[0].certificates.known().is_some_and(|facts| !facts.files.is_empty()) {
        let names = ["apiserver", "etcd-peer", "scheduler.conf", "kubelet-client", "kubelet-serving"];
        let wanted = Renew { names: names.map(str::to_owned).to_vec(), ..Renew::default() };
        return renew_certificates(inventory, diagnosis, goal, &wanted, NOW_MS);
    }
    rekindle_plan::plan(inventory, diagnosis, goal, NOW_MS)
}

impl Case {
    pub(crate) fn new(inventory: fn() -> Inventory) -> Self {
        Self::with(inventory, planned)
    }

    pub(crate) fn with(inventory: fn() -> Inventory, planner: Planner) -> Self {
        let dir = if Utf8Path::new("/dev/shm").is_dir() {
            tempfile::tempdir_in("/dev/shm")
        } else {
            tempfile::tempdir()
        };
        let dir = dir.unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        let mut inventory = inventory();
        let world = SimWorld::new(&mut inventory, &path, 7).unwrap();
        let state_dir = path.join("state");
        let goal = Goal {
            run_id: RunId(RUN.into()),
            run_dir: HostPath::from(state_dir.join("runs").join(RUN)),
            token: "rekindle-test".into(),
            exact: false,
            data_dir: None,
            accept_unknown_identity: false,
            accept_corrupt_alarm: false,
            skip_hash_check: false,
            go_back: false,
        };
        make_certificates(&mut inventory, &world, &path);
        let diagnosis = rekindle_diagnose::diagnose(&inventory);
        let plan = match planner(&inventory, &diagnosis, &goal) {
            PlanOutcome::Plan(plan) => *plan,
            other => panic!("no plan: {other:#?}"),
        };
        assert_eq!(rekindle_plan::lint(&plan, &inventory), Vec::<String>::new());
        let before = world.fingerprint().unwrap();
        Self { world, plan, state_dir, before, events: Arc::default(), _dir: dir }
    }

    pub(crate) fn sink(&self) -> Sink {
        let events = self.events.clone();
        Arc::new(move |event| events.lock().unwrap().push(event.clone()))
    }

    pub(crate) fn options(&self) -> Result<RunOptions, RunError> {
        Ok(RunOptions { turn: Turn::take(&self.state_dir, &self.plan.run_id)?, before: Before::default() })
    }

    /// Folder of the first host's files.
    pub(crate) fn host_root(&self) -> Utf8PathBuf {
        self.state_dir.parent().unwrap().join("host-0")
    }

    pub(crate) fn run_dir(&self) -> Utf8PathBuf {
        self.state_dir.join("runs").join(RUN)
    }

    pub(crate) async fn execute(&self, hooks: &Hooks) -> Result<RunReport, RunError> {
        rekindle_run::execute_with(&self.plan, self.world.world(), &self.options()?, &self.sink(), hooks)
            .await
    }

    pub(crate) async fn resume(&self, hooks: &Hooks) -> Result<RunReport, RunError> {
        let (dir, world) = (self.run_dir(), self.world.world());
        rekindle_run::resume_with(&dir, world, &self.state_dir, &self.sink(), hooks).await
    }

    pub(crate) async fn undo(&self, hooks: &Hooks) -> Result<RunReport, RunError> {
        let (dir, world) = (self.run_dir(), self.world.world());
        rekindle_run::undo_with(&dir, world, &self.state_dir, &self.sink(), hooks).await
    }

    /// Number of lines of a whole run's journal.
    pub(crate) fn records(&self) -> u64 {
        rekindle_run::journal::read(&self.run_dir()).unwrap().len() as u64
    }

    pub(crate) fn assert_recovered(&self, report: &RunReport, what: &str) {
        let left = &report.left_to_do;
        assert_eq!(report.outcome, Outcome::Verified, "{what}: {:#?}, left: {left:#?}", failures(report));
        assert!(self.world.all_ready(), "{what}: not every API server is ready");
    }

    pub(crate) fn assert_as_before(&self, what: &str) {
        let now = self.world.fingerprint().unwrap();
        let names: std::collections::BTreeSet<&String> = self.before.keys().chain(now.keys()).collect();
        let changed: Vec<String> = names
            .into_iter()
            .filter(|name| self.before.get(*name) != now.get(*name))
            .map(|name| format!("{name}: {:?} -> {:?}", self.before.get(name), now.get(name)))
            .collect();
        assert!(changed.is_empty(), "{what}: changed: {changed:#?}");
    }
}

pub(crate) fn failures(report: &RunReport) -> Vec<String> {
    let told = |event: &Event| match &event.what {
        What::StepFailed { step, error } => Some(format!("step {step}: {}", error.join(": "))),
        What::UndoFailed { step, error } => Some(format!("undo of step {step}: {}", error.join(": "))),
        _ => None,
    };
    report.timeline.iter().filter_map(told).collect()
}

/// The number of the first final step, or one past the last.
pub(crate) fn no_return(plan: &Plan) -> u32 {
    plan.point_of_no_return().unwrap_or(u32::MAX)
}
