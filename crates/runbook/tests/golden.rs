//! Whole runbooks of the fixtures' clusters, as they are printed: a change of any command shows here.
#![allow(clippy::unwrap_used, missing_docs)]

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
