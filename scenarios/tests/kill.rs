//! The program dies in the middle of a recovery, once per kind of step: `resume` finishes, `undo` puts everything back.
//! With `cargo xtask test --full` at every step of S1 and of S2, before, in and after it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use scenarios::{Called, Cluster, REKINDLE, STOP_ALL, THREE, binary, verified};
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use testbed::set::Kind;

/// Kinds of steps before the point of no return, as the plan names them.
const REVERSIBLE: [&str; 6] =
    ["stageMember", "stopUnit", "stopContainers", "rename", "replaceFile", "startUnit"];
const POINTS: [&str; 3] = ["before", "mid", "after"];

/// A broken cluster, and the program that mends it: on the host itself, or on this machine for three hosts.
struct Case {
    cluster: Cluster,
    hosts: &'static [&'static str],
    snapshot: String,
}

impl Case {
    /// S1: the db of a single control plane was cut short while everything was stopped.
    fn s1() -> Self {
        let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
        cluster.mark("early").unwrap();
        cluster.snapshot("cp1", "/backup/snap.db").unwrap();
        let case = Self { cluster, hosts: &["cp1"], snapshot: "/backup".into() };
        case.break_it();
        case
    }

    /// S2: two of three lost their disks.
    fn s2() -> Self {
        let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
        cluster.mark("early").unwrap();
        let snapshot = cluster.snapshot_here("cp1").unwrap().into_string();
        let case = Self { cluster, hosts: &THREE, snapshot };
        case.break_it();
        case
    }

    fn break_it(&self) {
        for host in self.hosts {
            self.cluster.fault(host, STOP_ALL).unwrap();
        }
        match self.hosts {
            [one] => self.cluster.fault(one, "truncate -s 40960 /var/lib/etcd/member/snap/db").unwrap(),
            hosts => {
                hosts[1..].iter().for_each(|h| self.cluster.fault(h, "rm -rf /var/lib/etcd/member").unwrap())
            }
        }
    }

    fn call(&self, args: &[&str], kill_at: Option<&str>) -> Output {
        let kill = format!("REKINDLE_KILL_AT={}", kill_at.unwrap_or_default());
        let mut line = if kill_at.is_some() { vec!["env", &kill] } else { Vec::new() };
        let (binary, state) = (binary().unwrap(), self.cluster.state_dir());
        if let [one] = self.hosts {
            line.push(REKINDLE);
            line.extend(args);
            return self.cluster.set.host(one).unwrap().exec(&line).unwrap();
        }
        line.push(binary.as_str());
        line.extend(args);
        line.extend(["--state-dir", state.as_str()]);
        let config = self.cluster.set.ssh_config();
        if args[0] == "recover" || args.get(1).is_some_and(|verb| ["resume", "undo"].contains(verb)) {
            line.extend(["--ssh-config", config.as_str()]);
        }
        testbed::cmd::output(&mut testbed::cmd::command(line[0], &line[1..])).unwrap()
    }

    fn recover(&self) -> Vec<String> {
        let mut line = vec!["recover".to_owned(), "--snapshot".into(), self.snapshot.clone(), "--yes".into()];
        if self.hosts.len() > 1 {
            line.extend(self.hosts.iter().flat_map(|host| ["--host".to_owned(), format!("root@{host}")]));
        }
        line
    }

    /// Number of steps of the plan, and of the first one that can't be taken back.
    fn steps(&self) -> (u64, u64) {
        let mut line = self.recover();
        line.retain(|word| word != "--yes");
        line.extend(["--dry-run".into(), "-o".into(), "json".into()]);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let plan = Called::new(&self.call(&line, None)).expect(0).unwrap().json().unwrap();
        let steps = plan["steps"].as_array().unwrap();
        let last = steps.iter().find(|step| step["reversibility"] == "final").unwrap();
        (steps.len() as u64, last["number"].as_u64().unwrap())
    }

    /// Numbers of the steps that the journal of a run says are done.
    fn done(&self, id: &str) -> Vec<u64> {
        let report = Called::new(&self.call(&["runs", "show", id, "-o", "json"], None)).json().unwrap();
        let events = report["timeline"].as_array().unwrap();
        let done = events.iter().filter(|event| event["event"] == "stepDone");
        done.map(|event| event["step"].as_u64().unwrap()).collect()
    }

    /// Runs `recover` with the kill, and gives the id of the run that was cut off.
    fn killed(&self, at: &str) -> String {
        let line = self.recover();
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let output = self.call(&line, Some(at));
        assert_killed(&output, at);
        let runs = Called::new(&self.call(&["runs", "-o", "json"], None)).expect(0).unwrap().json().unwrap();
        runs.as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()).max().unwrap()
    }

    fn resume(&self, id: &str) {
        let called = Called::new(&self.call(&["runs", "resume", id, "--yes", "-o", "json"], None));
        verified(&called.expect(0).unwrap()).unwrap();
    }

    fn killed_again(&self, id: &str, at: &str) {
        assert_killed(&self.call(&["runs", "resume", id, "--yes"], Some(at)), at);
    }

    fn undo(&self, id: &str) -> Called {
        Called::new(&self.call(&["runs", "undo", id, "--yes"], None))
    }

    /// Every file that a recovery may touch, with its content, and whether kubelet runs (a kubelet that is stopped while it
    /// starts is `failed` for systemd, before it was `inactive`: neither runs).
    fn state(&self) -> Vec<String> {
        let look = "find /etc/kubernetes/manifests /var/lib/etcd -type f | sort | xargs -r sha256sum; \
                    systemctl is-active --quiet kubelet && echo kubelet runs || true";
        self.hosts.iter().map(|host| self.cluster.set.host(host).unwrap().script(look).unwrap()).collect()
    }

    fn recovered(&self, mark: &str) {
        self.cluster.assert_works(mark).unwrap();
        assert!(self.cluster.has_mark("early").unwrap());
    }

    /// Killed at every step, before, in and after it. First pass, up to the point of no return: undone each time, and as it
    /// was. Second pass: one recovery that is killed at every point in turn and taken up again; past the point of no
    /// return `undo` refuses each time; in the end it recovers.
    fn at_every_step(&self) {
        let broken = self.state();
        let (steps, no_return) = self.steps();
        for step in 1..no_return {
            for point in POINTS {
                let id = self.killed(&format!("{step}:{point}"));
                self.undo(&id).expect(0).unwrap();
                assert_eq!(broken, self.state(), "not as it was after {step}:{point} was cut off and undone");
            }
        }
        let id = self.killed("1:before");
        let mut kills = 0;
        for step in 1..=steps {
            for point in POINTS {
                // hosts work side by side: what another one finished before the kill is not begun again
                if self.done(&id).contains(&step) {
                    continue;
                }
                self.killed_again(&id, &format!("{step}:{point}"));
                kills += 1;
                if step >= no_return {
                    self.undo(&id).expect(5).unwrap();
                }
            }
        }
        assert!(kills >= steps, "only {kills} kills in {steps} steps");
        self.resume(&id);
        self.recovered("after");
    }
}

fn assert_killed(output: &Output, at: &str) {
    let died = output.status.signal() == Some(9) || output.status.code() == Some(137);
    assert!(died, "not killed at {at}: {}", String::from_utf8_lossy(&output.stderr));
}

// Killed in each kind of step and undone each time: the same broken cluster as before, byte for byte; the last time it is
// resumed instead, and recovers.
#[test]
fn killed_in_each_kind_of_step() {
    let case = Case::s1();
    let before = case.state();
    for kind in REVERSIBLE {
        let id = case.killed(&format!("{kind}:mid"));
        case.undo(&id).expect(0).unwrap();
        assert_eq!(before, case.state(), "not as it was after {kind} was cut off and undone");
    }
    let id = case.killed("replaceFile:after");
    case.resume(&id);
    case.recovered("after");
}

// Killed past the point of no return: `undo` refuses, since clients may have written; `resume` finishes.
#[test]
fn killed_past_the_point_of_no_return() {
    let case = Case::s1();
    let id = case.killed("waitApiReady:mid");
    case.undo(&id).expect(5).unwrap();
    case.resume(&id);
    case.recovered("after");
}

// Three hosts over SSH: killed while they are being stopped and undone, killed while the data is swapped and resumed.
#[test]
fn killed_with_three_hosts() {
    let case = Case::s2();
    let before = case.state();
    for kind in ["stageMember", "stopContainers", "rename"] {
        let id = case.killed(&format!("{kind}:mid"));
        case.undo(&id).expect(0).unwrap();
        assert_eq!(before, case.state(), "not as it was after {kind} was cut off and undone");
    }
    let id = case.killed("replaceFile:mid");
    case.resume(&id);
    case.recovered("after");
}

#[test]
#[ignore = "long: `cargo xtask test --full` runs it; the tests above are its short form"]
fn killed_at_every_step_of_s1() {
    Case::s1().at_every_step();
}

#[test]
#[ignore = "long: `cargo xtask test --full` runs it; the tests above are its short form"]
fn killed_at_every_step_of_s2() {
    Case::s2().at_every_step();
}
