//! What the verbs through the API share: how the cluster is reached, and the way from an outcome of planning to its end.

use super::plan::{Made, new_run};
use super::recover::{Ended, run_plan, tell};
use crate::args::{Consent, Kubeconfig};
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure, of_run};
use crate::output::Output;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args as ClapArgs;
use rekindle_model::kube::ClusterRef;
use rekindle_model::plan::PlanOutcome;
use rekindle_model::{HostId, RunId};
use rekindle_plan::kube::Base;
use rekindle_run::Turn;
use rekindle_world::ssh::SshOptions;
use rekindle_world::{Cluster, ClusterOptions};

/// Which cluster.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Api {
    #[command(flatten)]
    pub(super) cluster: Kubeconfig,
    /// Where runs are kept on this machine.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/rekindle")]
    pub(super) state_dir: Utf8PathBuf,
}

/// A verb at work: the cluster, and what its plan will carry.
pub(super) struct Session {
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) cluster: Cluster,
    pub(super) base: Base,
    turn: Option<Turn>,
    began_ms: i64,
}

impl Session {
    /// Takes the turn (unless nothing will be changed) and connects.
    pub(super) fn begin(api: &Api, changes: Option<&Consent>) -> Result<Self, Failure> {
        let began_ms = rekindle_run::now_ms();
        let run_id = new_run();
        let turn = match changes {
            Some(consent) if !consent.dry_run => Some(turn(&api.state_dir, &run_id)?),
            _ => None,
        };
        let runtime = connect::runtime()?;
        let (cluster, reference) = runtime.block_on(reach(api))?;
        let base = Base { run_id, now_ms: began_ms, cluster: reference };
        Ok(Self { runtime, cluster, base, turn, began_ms })
    }

    /// Shows what planning came to, asks, executes and reports.
    pub(super) fn finish(
        self,
        outcome: PlanOutcome,
        consent: &Consent,
        ssh: &SshOptions,
        output: &Output,
    ) -> Result<Exit, Failure> {
        tell(&self.end(outcome, consent, ssh, output)?, output)
    }

    /// The same, and what came of it.
    pub(super) fn end(
        self,
        outcome: PlanOutcome,
        consent: &Consent,
        ssh: &SshOptions,
        output: &Output,
    ) -> Result<Ended, Failure> {
        let (PlanOutcome::Plan(plan), Some(turn)) = (&outcome, self.turn) else {
            return Ok(Ended::Planned(outcome));
        };
        let hosts: Vec<HostId> = plan.hosts.clone();
        let world = self.runtime.block_on(connect::world_of(&hosts, ssh, "/".into()))?;
        let plan = plan.clone();
        let made = Made { outcome, began_ms: self.began_ms, diagnosed_ms: rekindle_run::now_ms() };
        let report = run_plan(&self.runtime, &world, &plan, &made, turn, consent, output)?;
        Ok(Ended::Run(Box::new(report)))
    }
}

fn turn(state_dir: &Utf8Path, run_id: &RunId) -> Result<Turn, Failure> {
    Turn::take(state_dir, run_id)
        .map_err(|error| of_run(error, "nothing was begun".into()).hint("runs are kept in --state-dir DIR"))
}

async fn reach(api: &Api) -> Result<(Cluster, ClusterRef), Failure> {
    let kubeconfig = match &api.cluster.kubeconfig {
        Some(path) => Some(camino::absolute_utf8(path).doing(|| format!("cannot use {path}"))?),
        None => None,
    };
    let options = ClusterOptions { kubeconfig: kubeconfig.clone(), context: api.cluster.context.clone() };
    let unreachable = || "the cluster can't be asked".to_owned();
    let hint = "with the API down, `rekindle check` on a control-plane host says why; --kubeconfig FILE names another";
    let cluster = Cluster::connect(&options).await.doing(unreachable).map_err(|error| error.hint(hint))?;
    let uid = cluster.uid().await.doing(unreachable).map_err(|error| error.hint(hint))?;
    let reference = ClusterRef {
        kubeconfig: kubeconfig.map(Into::into),
        context: api.cluster.context.clone(),
        server: cluster.server().to_owned(),
        kube_system_uid: uid,
    };
    Ok((cluster, reference))
}
