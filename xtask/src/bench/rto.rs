//! RTO: the official runbook by script, patient and impatient, beside `rekindle recover`, to the same ends: `/readyz` of
//! every API server, and all nodes Ready with leases renewed after that. On fresh copies of one cluster: as kubeadm made it
//! (what everybody waits for then is kubelet and the API server), and with the store of a busy cluster. The patient runbook
//! runs once; for the others, whose times kubelet's back-off spreads, the median of several runs counts.

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use scenarios::{Cluster, REKINDLE, STOP_ALL};
use std::fmt::Write as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testbed::set::{self, Kind};
use testbed::{base, cmd, components};

/// Who recovers.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    /// Moves the manifests away and waits until everything has stopped.
    Patient,
    /// Moves them away and kills.
    Impatient,
    Rekindle,
}

#[derive(Clone, Copy)]
struct Times {
    ready: Duration,
    nodes: Duration,
    peak_mib: u64,
}

/// Longest wait for data and nodes.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs the rows of clusters of `kinds`: small stores, and with `revisions` more where that is not 0.
#[allow(clippy::print_stdout)] // the table is this task's answer
pub(super) fn run(rekindle: &Utf8Path, kinds: &[Kind], revisions: u32, runs: usize) -> Result<()> {
    components::build(&[])?;
    base::build()?;
    println!("| recovery | patient runbook | impatient runbook | rekindle | ratios | must reach |");
    println!("|---|---|---|---|---|---|");
    let sizes = if revisions == 0 { vec![0] } else { vec![0, revisions] };
    for (kind, filled) in kinds.iter().flat_map(|kind| sizes.iter().map(move |filled| (*kind, *filled))) {
        let work = match kind {
            Kind::Kubeadm1 => "kubeadm single node, etcd lost",
            _ => "three kubeadm members, quorum lost",
        };
        let mut row = format!("| {work}, {filled} revisions more |");
        let mut medians = Vec::new();
        for who in [Who::Patient, Who::Impatient, Who::Rekindle] {
            let runs = if who == Who::Patient { 1 } else { runs.max(1) };
            let mut times = Vec::new();
            for _ in 0..runs {
                times.push(measure(kind, who, rekindle, filled)?);
            }
            let peak_mib = times.iter().map(|times| times.peak_mib).max().unwrap_or(0);
            let ready = told(&mut row, " readyz", times.iter().map(|times| times.ready));
            let nodes = told(&mut row, ", nodes", times.iter().map(|times| times.nodes));
            if who == Who::Rekindle {
                let _ = write!(row, ", {peak_mib} MiB");
            }
            row.push_str(" |");
            medians.push((ready, nodes));
        }
        if let [patient, impatient, ours] = medians.as_slice() {
            let _ = write!(
                row,
                " readyz {:.2} / {:.2}, nodes {:.2} / {:.2} | 0.3 patient, 0.7 impatient |",
                ours.0 / patient.0,
                ours.0 / impatient.0,
                ours.1 / patient.1,
                ours.1 / impatient.1
            );
        }
        println!("{row}");
    }
    Ok(())
}

/// Writes the median, and the least and the most where they differ; gives the median, s.
fn told(row: &mut String, what: &str, times: impl Iterator<Item = Duration>) -> f64 {
    let mut seconds: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN);
    let _ = write!(row, "{what} {median:.1} s");
    if let [least, .., most] = seconds.as_slice() {
        let _ = write!(row, " ({least:.1} to {most:.1})");
    }
    median
}

fn measure(kind: Kind, who: Who, rekindle: &Utf8Path, revisions: u32) -> Result<Times> {
    let cluster = Cluster::load_with(kind, rekindle)?;
    if revisions > 0 {
        fill(&cluster, revisions)?;
    }
    cluster.mark("precious")?;
    let backup = cluster.snapshot_here("cp1")?;
    let hosts: Vec<String> = cluster.set.control_planes().map(|host| host.name.clone()).collect();
    break_etcd(&cluster, &hosts)?;
    // what filling left unwritten would be paid by whoever syncs first
    cmd::sh("sync", [] as [&str; 0])?;
    let urls: Vec<String> =
        cluster.set.control_planes().map(|host| format!("https://{}:6443/readyz", host.ip)).collect();
    let (start, since, end) = (Instant::now(), set::now()?, AtomicBool::new(false));
    let (worked, ready) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| last_not_ready(&urls, start, &end));
        let waiter = scope.spawn(|| nodes_are_back(&cluster, &since).map(|()| start.elapsed()));
        let worked = work(&cluster, &hosts, &backup, who, rekindle);
        let nodes = waiter.join();
        end.store(true, Ordering::Relaxed);
        (worked.map(|peak_mib| (peak_mib, nodes)), sampler.join())
    });
    let (peak_mib, nodes) = worked?;
    let nodes = nodes.map_err(|_| anyhow::anyhow!("the waiter failed"))??;
    let ready = ready.map_err(|_| anyhow::anyhow!("the sampler failed"))?;
    Ok(Times { ready, nodes, peak_mib })
}

/// Adds events with their history: a busy cluster's store is mostly that, and API servers do not read them at their start.
fn fill(cluster: &Cluster, revisions: u32) -> Result<()> {
    let host = cluster.set.host("cp1")?;
    host.push(&super::fixture::loader()?, "/usr/local/bin/loader")?;
    let pki = "/etc/kubernetes/pki/etcd";
    host.script(&format!(
        "ETCDCTL_CACERT={pki}/ca.crt ETCDCTL_CERT={pki}/server.crt ETCDCTL_KEY={pki}/server.key \
         /usr/local/bin/loader https://127.0.0.1:2379 {} events",
        super::fixture::numbers(revisions).join(" ")
    ))?;
    Ok(())
}

fn work(
    cluster: &Cluster,
    hosts: &[String],
    backup: &Utf8Path,
    who: Who,
    rekindle: &Utf8Path,
) -> Result<u64> {
    match who {
        Who::Rekindle => recover(cluster, hosts, backup, rekindle),
        _ => runbook(cluster, hosts, who == Who::Patient).map(|()| 0),
    }
}

/// Waits until the data is back, all API servers are ready and all nodes too, with leases renewed after `since`.
fn nodes_are_back(cluster: &Cluster, since: &str) -> Result<()> {
    cmd::wait_for("the data back", PATIENCE, || {
        ensure!(cluster.has_mark("precious")?, "the data is not back");
        Ok(Some(()))
    })?;
    cluster.set.wait_ready_since(since, PATIENCE)
}

/// One node: its data dir is deleted. Three: one disk wiped, one garbled. kubelet runs, as it does in real life.
fn break_etcd(cluster: &Cluster, hosts: &[String]) -> Result<()> {
    for host in hosts {
        cluster.fault(host, STOP_ALL)?;
    }
    let (wiped, garbled) = if hosts.len() == 1 { ("cp1", None) } else { ("cp2", Some("cp3")) };
    cluster.fault(wiped, "rm -rf /var/lib/etcd/member")?;
    if let Some(host) = garbled {
        cluster.fault(
            host,
            "dd if=/dev/urandom of=/var/lib/etcd/member/snap/db bs=4096 count=60 seek=2 conv=notrunc status=none",
        )?;
    }
    for host in hosts {
        cluster.fault(host, "systemctl start kubelet")?;
    }
    std::thread::sleep(Duration::from_secs(15));
    Ok(())
}

/// A single host is recovered on itself, as the runbook is run there; several from outside, over SSH.
fn recover(cluster: &Cluster, hosts: &[String], backup: &Utf8Path, rekindle: &Utf8Path) -> Result<u64> {
    if let [only] = hosts {
        let line = [REKINDLE, "recover", "--yes", "--snapshot", "/backup"];
        let mut command = cluster.set.host(only)?.exec_command(&line)?;
        return Ok(super::measure::once(&mut command)?.peak_mib);
    }
    let mut command = cmd::command(rekindle.as_str(), ["recover", "--yes", "--snapshot", backup.as_str()]);
    for host in hosts {
        command.args(["--host", &format!("root@{host}")]);
    }
    command.args(["--ssh-config", cluster.set.ssh_config().as_str()]);
    command.args(["--state-dir", cluster.state_dir().as_str()]);
    Ok(super::measure::once(&mut command)?.peak_mib)
}

/// The documented way: all manifests away, wait, etcdutl restore with a bump on every member, data in place, manifests
/// back, kubelet restarted. Hosts are worked in parallel, which favours the runbook.
fn runbook(cluster: &Cluster, hosts: &[String], patient: bool) -> Result<()> {
    let snapshot = cluster.set.host("cp1")?.read("/backup/snap.db")?;
    for host in hosts {
        cluster.set.host(host)?.write("/backup/snap.db", &snapshot)?;
    }
    let ip = |name: &String| cluster.set.host(name).map(|host| host.ip.to_string());
    let members: Vec<String> =
        hosts.iter().map(|name| Ok(format!("{name}=https://{}:2380", ip(name)?))).collect::<Result<_>>()?;
    let some = "pgrep -x etcd || pgrep -x kube-apiserver";
    let kill = "pkill -9 -x etcd; pkill -9 -x kube-apiserver; pkill -9 -x kube-controller; pkill -9 -x kube-scheduler;";
    let gone = format!("while {some}; do sleep 0.2; done >/dev/null");
    // kubelet may never stop a static pod whose manifest left soon after kubelet's own start: patience ends after 90 s
    let patience =
        format!("for i in $(seq 450); do {{ {some}; }} >/dev/null || break; sleep 0.2; done; {kill} {gone}");
    let stop = if patient { patience } else { format!("sleep 1; {kill} {gone}") };
    parallel(cluster, hosts, |name| {
        Ok(format!(
            "set +e; mkdir -p /etc/kubernetes/stopped; mv /etc/kubernetes/manifests/*.yaml /etc/kubernetes/stopped/; {stop}; \
             mv /var/lib/etcd/member /var/lib/etcd/member.old 2>/dev/null; rm -rf /var/lib/etcd-restored; set -e; \
             etcdutl snapshot restore /backup/snap.db --data-dir /var/lib/etcd-restored --name {name} \
             --initial-cluster {} --initial-cluster-token recovered --initial-advertise-peer-urls https://{}:2380 \
             --bump-revision 1000000000 --mark-compacted; mkdir -p /var/lib/etcd; \
             mv /var/lib/etcd-restored/member /var/lib/etcd/member",
            members.join(","),
            ip(name)?
        ))
    })?;
    parallel(cluster, hosts, |_| {
        Ok("mv /etc/kubernetes/stopped/*.yaml /etc/kubernetes/manifests/; systemctl restart kubelet"
            .to_owned())
    })
}

fn parallel(cluster: &Cluster, hosts: &[String], script: impl Fn(&String) -> Result<String>) -> Result<()> {
    let mut children = Vec::new();
    for name in hosts {
        let script = script(name)?;
        let mut command = cluster.set.host(name)?.exec_command(&["/bin/bash", "-c", &script])?;
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        children.push((name, command.spawn().context("cannot start bash")?));
    }
    for (name, child) in children {
        let ended = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "the runbook on {name}: {}: {said}", ended.status);
    }
    Ok(())
}

/// Asks `/readyz` of every API server again and again until told to end; when one of them last did not say ok.
fn last_not_ready(urls: &[String], start: Instant, end: &AtomicBool) -> Duration {
    let mut last = Duration::ZERO;
    while !end.load(Ordering::Relaxed) {
        if !urls.iter().all(|url| cmd::sh("curl", ["-skf", "--max-time", "2", url]).is_ok()) {
            last = start.elapsed();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    last
}
