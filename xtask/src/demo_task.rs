//! `cargo xtask demo`: the main job from end to end on a real kubeadm cluster.

use crate::{dist_task, setup_task};
use anyhow::{Context, Result};
use scenarios::{Cluster, REKINDLE};
use std::time::Instant;
use testbed::set::Kind;
use testbed::{base, components};

#[allow(clippy::print_stdout)] // what a demo is for
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    setup_task::to_build()?;
    components::build_for_hosts()?;
    base::build()?;
    let binary = dist_task::build()?;
    println!("\n# a real kubeadm cluster on this machine");
    let cluster = Cluster::load_with(Kind::Kubeadm1, &binary)?;
    cluster.set.fill(500)?;
    cluster.mark("precious")?;
    println!("{}", cluster.set.kubectl_ok(&["get", "nodes,pods", "-A", "-o", "wide"])?);
    println!("# rekindle snapshot save /backup/snap.db");
    cluster.snapshot("cp1", "/backup/snap.db")?;
    println!("# rm -rf /var/lib/etcd/member, with everything stopped");
    cluster.fault("cp1", &format!("{}; rm -rf /var/lib/etcd/member", scenarios::STOP_ALL))?;
    println!("# rekindle check");
    println!("{}", cluster.on("cp1", &["check"])?.expect(3)?.stdout);
    println!("# rekindle recover --snapshot /backup --yes");
    let host = cluster.set.host("cp1")?;
    let status = host
        .exec_command(&[REKINDLE, "recover", "--snapshot", "/backup", "--yes"])?
        .status()
        .context("cannot start rekindle")?;
    anyhow::ensure!(status.success(), "recover ended with {status}");
    cluster.assert_works("after")?;
    anyhow::ensure!(cluster.has_mark("precious")?, "the data is not back");
    println!("\n# kubectl sees the cluster, and the data is back");
    println!("{}", cluster.set.kubectl_ok(&["get", "nodes,configmaps", "-n", "default"])?);
    println!("demo done in {} s", start.elapsed().as_secs());
    Ok(())
}
