//! The story: a real Prometheus with the rules that are shipped watches a real agent. All that rules and dashboard speak of
//! is there; while all is well nothing fires; the vault goes away, and the alert says so; it comes back, and the alert ends;
//! the agent dies, and that is told, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::site::{Site, get};
use common::{Member, spawn, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

/// Prometheus's own tool, or the server.
fn prometheus(program: &str) -> Command {
    let missing = format!("{program} is missing: `cargo xtask setup` (Debian's package prometheus)");
    assert!(testbed::needs::has(program), "{missing}");
    Command::new(program)
}

fn promtool(args: &[&str]) -> String {
    let output = prometheus("promtool").args(args).current_dir(shipped("prometheus")).output().unwrap();
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    told
}

// An alert that never fires, or always, is worse than none: each is held to its words over time.
#[test]
fn the_rules_say_what_they_mean() {
    let told = promtool(&["check", "rules", "rekindle-rules.yaml"]);
    assert!(told.contains("SUCCESS"), "{told}");
    promtool(&["test", "rules", "rekindle-rules.test.yaml"]);
    let rules = std::fs::read_to_string(shipped("prometheus/rekindle-rules.yaml")).unwrap();
    let tests = std::fs::read_to_string(shipped("prometheus/rekindle-rules.test.yaml")).unwrap();
    let alerts: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 12, "{alerts:?}");
    for part in ["severity: ", "summary: ", "description: ", "action: "] {
        let has = rules.matches(part).count();
        assert_eq!(has, rules.matches("- alert: ").count(), "{part}");
    }
    for alert in alerts {
        let family = &alert[..alert.len().min("RekindleF".len())];
        assert!(tests.contains(alert) || tests.contains(family), "{alert} is not tested");
    }
}

/// Every metric of the agent that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("rekindle_agent_")).map(str::to_owned).collect()
}

struct Server {
    port: u16,
}

impl Server {
    fn answer(&self, path: &str) -> Value {
        let Some(answer) = get(self.port, path) else { return Value::Null };
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    fn metrics(&self) -> BTreeSet<String> {
        let names =
            self.answer("/api/v1/label/__name__/values")["data"].as_array().cloned().unwrap_or_default();
        names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    fn firing(&self) -> BTreeSet<String> {
        let alerts = self.answer("/api/v1/alerts")["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn a_real_prometheus_sees_all_and_tells() {
    let etcd = tempfile::tempdir().unwrap();
    let member = Member::boot(&etcd.path().join("data"), &testbed::ports::free_url());
    let site = Site::new(&member.url);
    let agent = site.agent();
    site.wait_healthy();

    // the rules as they are shipped, but for their patience
    let rules = std::fs::read_to_string(shipped("prometheus/rekindle-rules.yaml")).unwrap();
    let hasty =
        rules.lines().map(|line| if line.trim().starts_with("for: ") { "        for: 0s" } else { line });
    std::fs::write(site.path("rules.yaml"), hasty.collect::<Vec<_>>().join("\n")).unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yaml]\n\
         scrape_configs: [{{job_name: rekindle, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]\n",
        site.port
    );
    std::fs::write(site.path("prometheus.yml"), config).unwrap();
    let server = Server { port: testbed::ports::free() };
    let _running = spawn(
        prometheus("prometheus")
            .args(["--config.file", &site.path("prometheus.yml"), "--storage.tsdb.path", &site.path("tsdb")])
            .args(["--log.level=error", &format!("--web.listen-address=127.0.0.1:{}", server.port)]),
    );
    wait_for("nothing is scraped", || server.metrics().contains("rekindle_agent_rpo_seconds"));
    wait_for("something is wrong though all is well", || server.firing().is_empty());

    let come_back = site.take_vault_away();
    member.try_ctl(&["put", "/registry/configmaps/ns/a", "a"]).unwrap();
    wait_for("nobody is told that the vault is away", || server.firing().contains("RekindleStoreFailing"));
    // now the last failure is there, too
    let dashboard = std::fs::read_to_string(shipped("grafana/rekindle.json")).unwrap();
    assert!(serde_json::from_str::<Value>(&dashboard).is_ok());
    let speak_of = &named(&rules) | &named(&dashboard);
    assert!(speak_of.len() > 20, "{speak_of:?}");
    let missing = || speak_of.difference(&server.metrics()).cloned().collect::<Vec<String>>();
    wait_for("the last failure is not scraped", || {
        !missing().contains(&"rekindle_agent_last_error_info".into())
    });
    assert_eq!(missing(), Vec::<String>::new());

    come_back();
    wait_for("the alert does not end", || !server.firing().contains("RekindleStoreFailing"));
    drop(agent);
    wait_for("nobody is told that the agent is gone", || server.firing().contains("RekindleAgentAbsent"));
}
