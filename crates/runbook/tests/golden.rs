//! Whole runbooks of the fixtures' clusters, as they are printed: a change of any command shows here.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use rekindle_model::fixtures::Fixture;
use rekindle_runbook::runbook;
use rekindle_runbook::site::{Contact, Notes, VaultNote};

fn notes() -> Notes {
    Notes {
        cluster: Some("prod-eu1".into()),
        vault: Some(VaultNote {
            url: "s3://backups/prod".into(),
            cluster: "prod".into(),
            signers: vec!["ed25519:AAAA".into()],
        }),
        contacts: vec![Contact {
            name: "Ada".into(),
            role: "holds the identity".into(),
            reach: "+49 30 000000".into(),
        }],
        fence_command: Some(["ssh", "hv", "virsh destroy {node}"].map(str::to_owned).into()),
    }
}

// Three hosts, a vault, somebody to call.
#[test]
fn three_kubeadm_hosts() {
    insta::assert_snapshot!(runbook(&Fixture::kubeadm(3).build(), &notes()).markdown());
}

// One host that Rekindle runs on, and nothing said by anybody.
#[test]
fn one_kubeadm_host() {
    insta::assert_snapshot!(runbook(&Fixture::kubeadm(1).build(), &Notes::default()).markdown());
}

// Units instead of static pods.
#[test]
fn systemd_units() {
    insta::assert_snapshot!(runbook(&Fixture::systemd().build(), &notes()).markdown());
}

// The page needs nothing from anywhere else, and each question leads to a chapter that is there.
#[test]
fn the_page_stands_alone() {
    let html = runbook(&Fixture::kubeadm(3).build(), &notes()).html();
    for outside in ["src=", "<link", "@import", "<script"] {
        assert!(!html.contains(outside), "{outside}");
    }
    let links: Vec<&str> =
        html.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(links.len(), 8);
    for link in links {
        assert!(html.contains(&format!("<h2 id=\"{link}\">")), "{link}");
    }
    assert!(html.contains("@media print") && html.contains("<svg"));
}

// A runbook of one of three hosts prints no restore: that would make a cluster of its own beside the other two.
#[test]
fn a_part_of_the_hosts_is_no_cluster() {
    let mut inventory = Fixture::kubeadm(3).build();
    inventory.hosts.truncate(1);
    let book = runbook(&inventory, &Notes::default()).markdown();
    for wrong in ["snapshot restore \"$SNAPSHOT\"", "This cluster has one member"] {
        assert!(!book.contains(wrong), "{wrong}");
    }
    assert!(book.contains("# not known when this runbook was made: member cp-2"), "{book}");
}

// What takes a node out of service is printed for no node by name, though a worker is known.
#[test]
fn no_node_is_taken_out_by_example() {
    let mut inventory = Fixture::kubeadm(1).build();
    let rekindle_model::Seen::Known(nodes) = &mut inventory.cluster.nodes else { panic!("no nodes") };
    let mut worker = nodes[0].clone();
    worker.name = "worker-1".into();
    nodes.push(worker);
    let book = runbook(&inventory, &notes()).markdown();
    let chapter = book.split("## A node is lost").nth(1).unwrap().split("\n## ").next().unwrap();
    assert!(book.contains("worker-1") && !chapter.contains("worker-1"), "{chapter}");
}
