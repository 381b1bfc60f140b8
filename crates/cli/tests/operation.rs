//! The story: the agent of a real etcd is told otherwise while it runs. A file that is not good is refused and the old one
//! goes on; schedules and credentials are taken over without a break in the stream; what else changes makes it begin anew,
//! and no revision is lost by it. All of that stands in the log, one object a line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::site::{Site, signal};
use common::{Member, wait_for};
use serde_json::Value;

/// Each line of the log; every one must be an object with time, level and message.
fn lines(site: &Site) -> Vec<Value> {
    let log = site.log();
    let lines = log.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let time = line["time"].as_str().unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line}");
        assert!(line["message"].is_string() && ["info", "error"].contains(&line["level"].as_str().unwrap()));
        line
    });
    lines.collect()
}

fn is_told(site: &Site, level: &str, words: &str) -> bool {
    lines(site).iter().any(|line| line["level"] == level && line["message"].as_str().unwrap().contains(words))
}

fn put(member: &Member, key: &str) {
    member.try_ctl(&["put", &format!("/registry/configmaps/ns/{key}"), key]).unwrap();
}

fn revision(member: &Member) -> f64 {
    let status = member.try_ctl(&["endpoint", "status", "-w", "json"]).unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    status[0]["Status"]["header"]["revision"].as_f64().unwrap()
}

fn fulls(site: &Site) -> usize {
    site.timelines()[0]["fulls"].as_array().unwrap().len()
}

#[test]
fn a_changed_configuration_is_taken_over() {
    let etcd = tempfile::tempdir().unwrap();
    let member = Member::boot(&etcd.path().join("data"), &testbed::ports::free_url());
    let site = Site::new(&member.url);
    let agent = site.agent_with(&["--log-format", "json"]);
    site.wait_healthy();
    let watches = site.metric("watches_total").unwrap();
    let good = std::fs::read_to_string(site.path("agent.yaml")).unwrap();

    site.configure(|text| text + "schedule: {full: '61 * * * *'}\n");
    signal("HUP", &agent);
    wait_for("a bad file is not told", || site.metric("config_last_reload_successful") == Some(0.0));
    assert!(is_told(&site, "error", "is refused, the old one goes on"), "{}", site.log());
    put(&member, "a");
    wait_for("the old one does not go on", || site.metric("stored_revision") >= Some(revision(&member)));

    let every_minute = "schedule: {full: '* * * * *', verify: '* * * * *', jitterSeconds: 0}\n";
    site.configure(|_| good.clone() + every_minute);
    signal("HUP", &agent);
    wait_for("a good file is not taken over", || site.metric("config_last_reload_successful") == Some(1.0));
    let before = fulls(&site);
    wait_for("no full comes with the minute", || fulls(&site) > before);
    wait_for("the vault is not verified", || site.metric("last_verify_faults") == Some(0.0));
    put(&member, "b");
    wait_for("the stream does not go on", || site.metric("stored_revision") >= Some(revision(&member)));
    assert_eq!(site.metric("watches_total"), Some(watches), "the stream was interrupted");

    runbook(&site, &agent, &(good.clone() + every_minute));
    assert_eq!(site.metric("watches_total"), Some(watches), "the stream was interrupted");

    site.configure(|_| good.replace("segmentAgeMs: 1000", "segmentAgeMs: 300"));
    signal("HUP", &agent);
    wait_for("it does not begin anew", || is_told(&site, "info", "the agent begins anew"));
    site.wait_healthy();
    put(&member, "c");
    wait_for("the stream does not go on", || site.metric("stored_revision") >= Some(revision(&member)));
    site.end(agent);
    let timelines = site.timelines();
    assert_eq!((timelines.len(), &timelines[0]["gaps"]), (1, &serde_json::json!([])));
    let following = lines(&site).into_iter().find(|line| line["endpoint"] == member.url.as_str());
    assert!(following.is_some_and(|line| line["level"] == "info"), "{}", site.log());
}

/// A runbook is to be kept from now on: it is made at once, follows what is configured, stays as it is while a host can't be
/// read, and goes into the vault with the bundle.
fn runbook(site: &Site, agent: &common::Running, config: &str) {
    let kept = |file: &str| std::fs::read_to_string(format!("{}/runbook/{file}", site.path("state")));
    let configure = |more: &str| {
        site.configure(|_| format!("{config}{more}"));
        signal("HUP", agent);
    };
    assert!(site.metric("runbook_timestamp_seconds").is_some_and(f64::is_nan), "none is kept");
    configure("runbook: {}\n");
    wait_for("no runbook is made", || kept("runbook.md").is_ok_and(|text| text.contains(&site.vault)));
    assert!(kept("runbook.html").unwrap().contains("<svg") && kept("inventory.json").is_ok());
    let made = || site.metric("runbook_timestamp_seconds").unwrap();
    let first = made();
    let ada = "contacts: [{name: Ada, role: holds the identity, reach: '+49 30 0'}]\n";
    configure(&format!("runbook: {{}}\n{ada}"));
    wait_for("whom to call is not in it", || kept("runbook.md").unwrap().contains("Ada"));
    let second = made();
    assert!(second > first);
    configure("runbook: {hosts: [root@127.0.0.1]}\n");
    wait_for("a host that is silent is not told", || {
        is_told(site, "error", "root@127.0.0.1 could not be read")
    });
    assert!(kept("runbook.md").unwrap().contains("Ada") && made() == second, "the kept one stays");

    let (key, scratch, dir) =
        (site.path("sign.key"), site.path("scratch"), format!("{}/runbook", site.path("state")));
    let bundle =
        ["backup", "bundle", "--vault", &site.vault, "--signing-key", &key, "--recipient", &site.recipient];
    let bundled = common::site::rekindle(&[&bundle[..], &["--scratch", &scratch, "--path", &dir]].concat());
    assert!(bundled.status.success(), "{}", String::from_utf8_lossy(&bundled.stderr));
    configure("");
    wait_for("it is kept for ever", || site.metric("runbook_timestamp_seconds").is_some_and(f64::is_nan));
}

// The bucket's secret is changed, as it is every ninety days: the agent gets the new one without a break in the stream.
#[test]
fn credentials_are_renewed() {
    let etcd = tempfile::tempdir().unwrap();
    let member = Member::boot(&etcd.path().join("data"), &testbed::ports::free_url());
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("backups")).unwrap();
    let port = testbed::ports::free();
    let first = common::gateway(port, root.path(), "first-secret");
    let endpoint = format!("http://127.0.0.1:{port}");
    let env = [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "first-secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT", &endpoint),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let env = env.map(|(name, value)| (name, value.to_owned())).to_vec();
    let mut site = Site::over(tempfile::tempdir().unwrap(), "s3://backups/k8s".into(), env, &member.url);
    // from now on the environment has a secret that is wrong
    site.env.iter_mut().filter(|(name, _)| name.contains("SECRET")).for_each(|(_, value)| value.clear());
    let file = site.path("vault.env");
    let write = |secret: &str| std::fs::write(&file, format!("AWS_SECRET_ACCESS_KEY={secret}\n")).unwrap();
    write("first-secret");
    site.configure(|text| format!("{text}vaultCredentials: {file}\n"));
    let agent = site.agent();
    site.wait_healthy();
    let watches = site.metric("watches_total").unwrap();

    drop(first);
    let _second = common::gateway(port, root.path(), "second-secret");
    put(&member, "a");
    wait_for("the old secret is not refused", || site.metric("store_failing") == Some(1.0));
    write("second-secret");
    signal("HUP", &agent);
    wait_for("the new secret is not used", || site.metric("stored_revision") >= Some(revision(&member)));
    assert_eq!(site.metric("watches_total"), Some(watches), "the stream was interrupted");
    assert!(!site.log().contains("-secret"), "{}", site.log());
    site.end(agent);
}
