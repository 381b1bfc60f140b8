//! The runbook's commands by hand are run as they are printed, against a real etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use camino::{Utf8Path, Utf8PathBuf};
use common::Member;
use common::site::rekindle;
use rekindle_model::HostPath;
use rekindle_model::fixtures::Fixture;
use rekindle_model::inventory::Inventory;
use rekindle_runbook::by_hand;
use rekindle_runbook::site::{Notes, Site};
use std::process::Command;
use testbed::components::etcd_line;
use testbed::ports::free_url;

/// A control plane of one host whose etcd has this data dir.
fn inventory(data: &Utf8Path, peer: &str) -> Inventory {
    let mut inventory = Fixture::systemd().build();
    let host = &mut inventory.hosts[0];
    let mut etcd = host.etcd_config.known().unwrap().clone();
    etcd.name = "default".into();
    etcd.data_dir = HostPath::from(data.to_owned());
    etcd.peer_urls = vec![peer.to_owned()];
    host.etcd_config = rekindle_model::Seen::Known(etcd);
    inventory
}

/// Into a root shell, as it stands.
fn paste(script: &str, snapshot: &Utf8Path) {
    let tools: Utf8PathBuf = etcd_line("3.6").unwrap().etcdutl.parent().unwrap().to_owned();
    let path = format!("{tools}:{}", std::env::var("PATH").unwrap());
    let shell = Command::new("sh")
        .args(["-euc", script])
        .env("PATH", path)
        .env("SNAPSHOT", snapshot)
        .output()
        .unwrap();
    assert!(shell.status.success(), "{script}\n{}", String::from_utf8_lossy(&shell.stderr));
}

// An etcd loses its data. The commands that the runbook prints for it bring the snapshot back, above every revision that was
// seen; those to go back bring back what was lost. The data dir's name has a blank and a quote: nobody promised otherwise.
#[test]
fn the_commands_by_hand_restore_and_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(folder.path()).unwrap();
    let (data, snapshot, peer) = (dir.join("it's etcd"), dir.join("snapshot.db"), free_url());
    let member = Member::boot(data.as_std_path(), &peer);
    member.try_ctl(&["put", "a", "saved"]).unwrap();
    member.try_ctl(&["snapshot", "save", snapshot.as_str()]).unwrap();
    member.try_ctl(&["put", "a", "later"]).unwrap();
    drop(member);

    let (inventory, notes) = (inventory(&data, &peer), Notes::default());
    let site = Site::new(&inventory, &notes);
    let script = by_hand::restore(&site, &site.hosts[0]).unwrap();
    let printed = rekindle_runbook::runbook(&inventory, &notes).markdown();
    assert!(printed.contains(script.trim_end()), "what is run here is what is printed");
    paste(&script, &snapshot);
    let member = Member::boot(data.as_std_path(), &peer);
    let got = member.try_ctl(&["get", "a", "-w", "json"]).unwrap();
    let got: serde_json::Value = serde_json::from_str(&got).unwrap();
    assert_eq!(got["kvs"][0]["value"], "c2F2ZWQ=", "the value `saved`");
    assert!(got["header"]["revision"].as_u64().unwrap() > 1_000_000_000);
    drop(member);

    paste(&by_hand::put_back(&site.hosts[0]).unwrap(), &snapshot);
    let member = Member::boot(data.as_std_path(), &peer);
    assert_eq!(member.try_ctl(&["get", "a", "--print-value-only"]).unwrap(), "later\n");
}

// The runbook is made of what was saved, again and again the same; with the vault and the people of the configuration.
#[test]
fn a_runbook_is_made_of_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let dir = Utf8Path::from_path(folder.path()).unwrap();
    let (saved, out, config) = (dir.join("saved.json"), dir.join("out"), dir.join("agent.yaml"));
    std::fs::write(&saved, serde_json::to_vec(&Fixture::kubeadm(3).build()).unwrap()).unwrap();
    let text = "vault: s3://backups/prod\ncluster: prod\nsigningKey: /none\nrecipients: [age1x]\n\
                contacts: [{name: Ada, role: holds the identity, reach: '+49 30 0'}]\n";
    std::fs::write(&config, text).unwrap();
    let first =
        ["runbook", "--inventory", saved.as_str(), "--config", config.as_str(), "--out", out.as_str()];
    let made = rekindle(&first);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let again = out.join("inventory.json");
    let printed = rekindle(&["runbook", "--inventory", again.as_str(), "--config", config.as_str()]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(printed, std::fs::read_to_string(out.join("runbook.md")).unwrap());
    assert!(
        printed.contains("| Ada | holds the identity | +49 30 0 |") && printed.contains("s3://backups/prod")
    );
    let page = std::fs::read_to_string(out.join("runbook.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("root@10.0.0.12"));
    let none = rekindle(&["runbook", "--inventory", config.as_str()]);
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("is no inventory"));
}
