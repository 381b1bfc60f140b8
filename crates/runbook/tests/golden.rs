//! Whole runbooks of the fixtures' clusters, as they are printed: a change of any command shows here.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use rekindle_model::certificate::{
    Certificate, CertificateFacts, CertificateFile, CertificatePlace, KeyState,
};
use rekindle_model::etcd::EtcdDefinition;
use rekindle_model::fixtures::Fixture;
use rekindle_model::host::{HostFacts, Layout};
use rekindle_model::inventory::Inventory;
use rekindle_model::{HostPath, Seen};
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

/// A certificate of the host, made by an authority whose key is there.
fn certificate(name: &str, place: CertificatePlace, authority: Option<&str>) -> CertificateFile {
    let certificate = Certificate {
        sha256: String::new(),
        subject: format!("CN={name}"),
        issuer: "CN=ca".into(),
        not_before_s: 0,
        not_after_s: 1,
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        usages: Vec::new(),
        is_authority: authority.is_none(),
        key_kind: "EC-P256".into(),
        public_key_sha256: String::new(),
        node: None,
    };
    CertificateFile {
        name: name.into(),
        place,
        authority: authority.map(str::to_owned),
        certificate: Seen::Known(certificate),
        key: KeyState::Matches,
        signed_by_authority: authority.map(|_| true),
    }
}

/// Three hosts whose units have names of their own, and whose PKI lies elsewhere.
fn units() -> Inventory {
    let mut inventory = Fixture::kubeadm(3).build();
    let own = Fixture::systemd().build();
    let pair = |base: &str| CertificatePlace::Pair {
        cert: HostPath::from(format!("/srv/pki/{base}.crt")),
        key: HostPath::from(format!("/srv/pki/{base}.key")),
    };
    for host in &mut inventory.hosts {
        host.layout = Layout::Units;
        host.manifests = Seen::Known(Vec::new());
        host.units = own.hosts[0].units.clone();
        host.unit_files = own.hosts[0].unit_files.clone();
        let etcd = host.units.remove("etcd.service").unwrap();
        host.units.insert("etcd-member.service".into(), etcd);
        let Seen::Known(etcd) = &mut host.etcd_config else { panic!("no etcd") };
        let files = vec![HostPath::from("/etc/systemd/system/etcd.service")];
        etcd.defined_in = EtcdDefinition::Unit { name: "etcd-member.service".into(), files };
        let admin = CertificatePlace::Kubeconfig { path: HostPath::from("/etc/kubernetes/admin.conf") };
        let files = vec![
            certificate("ca", pair("ca"), None),
            certificate("etcd-ca", pair("etcd/ca"), None),
            certificate("apiserver", pair("apiserver"), Some("ca")),
            certificate("etcd-server", pair("etcd/server"), Some("etcd-ca")),
            certificate("admin.conf", admin, Some("ca")),
        ];
        host.certificates = Seen::Known(CertificateFacts { files, ..CertificateFacts::default() });
    }
    inventory
}

// Units instead of static pods, of which no certificate and no kubeconfig was seen.
#[test]
fn systemd_units() {
    insta::assert_snapshot!(runbook(&Fixture::systemd().build(), &notes()).markdown());
}

// Units on three hosts: a member is replaced, and certificates are made anew, by commands that stand there whole.
#[test]
fn three_hosts_of_units() {
    insta::assert_snapshot!(runbook(&units(), &notes()).markdown());
}

// Nothing on a host of units is kubeadm's or the container runtime's: a command that is not there is a page that is not true.
#[test]
fn a_page_of_units_names_its_units() {
    for inventory in [units(), Fixture::systemd().build()] {
        let book = runbook(&inventory, &notes()).markdown();
        for foreign in ["kubeadm", "crictl", "static pod", "manifest"] {
            assert!(!book.contains(foreign), "{foreign}: {book}");
        }
        assert!(book.contains("rekindle certs renew --all"), "{book}");
    }
    let book = runbook(&units(), &notes()).markdown();
    assert!(book.contains("systemctl status etcd-member kube-apiserver"), "{book}");
    assert!(book.contains("-u etcd-member -u kube-apiserver"), "{book}");
    let anew = "anew /srv/pki/apiserver.crt /srv/pki/apiserver.key /srv/pki/ca.crt /srv/pki/ca.key\n";
    assert!(book.contains(anew), "{book}");
    assert!(book.contains("anew_in /etc/kubernetes/admin.conf /srv/pki/ca.crt /srv/pki/ca.key\n"), "{book}");
    let none = runbook(&Fixture::systemd().build(), &notes()).markdown();
    assert!(none.contains("kubectl --kubeconfig KUBECONFIG get nodes"), "{none}");
    // a host that can't be read is as the others are
    let mut inventory = units();
    inventory.hosts[2] = HostFacts::unreachable(inventory.hosts[2].id.clone(), "off".into());
    assert!(!runbook(&inventory, &notes()).markdown().contains("kubeadm"));
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
