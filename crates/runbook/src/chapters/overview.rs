//! What the cluster is, whom to call, and from a symptom to a chapter.

use super::certificates::certificates_of;
use crate::chart::{Chart, Question};
use crate::doc::{Block, Document};
use crate::site::{ControlPlane, KUBECONFIG, Site};
use rekindle_model::Seen;
use rekindle_model::host::Component;

pub(super) fn begin(site: &Site<'_>) -> Document {
    let mut document = Document::new(format!("Runbook of {}", site.name()));
    document.text(format!(
        "What to do when this cluster breaks. Made by `rekindle runbook` of what was seen on {}: make it anew when hosts, \
         versions or addresses change. Keep a printed copy, and one outside the cluster.",
        date(site.inventory.taken_ms)
    ));
    contacts(&mut document, site);
    decide(&mut document, site);
    cluster(&mut document, site);
    document
}

fn contacts(document: &mut Document, site: &Site<'_>) {
    document.chapter("Whom to call");
    if site.notes.contacts.is_empty() {
        document.text("Nobody is named: put `contacts` into the configuration file.");
    }
    let rows = site.notes.contacts.iter();
    let rows = rows.map(|contact| vec![contact.name.clone(), contact.role.clone(), contact.reach.clone()]);
    document.table(&["who", "for what", "how"], rows.collect());
}

/// What tells that a certificate has expired, and that something is stopped, in this cluster: the question and how to look.
fn first_looks(site: &Site<'_>) -> [(&'static str, String); 2] {
    let expired = "Does a control-plane certificate say that it has expired?";
    let Some(host) = site.by_units().next().filter(|_| site.is_units()) else {
        return [
            (expired, "kubeadm certs check-expiration".into()),
            (
                "Is etcd, or the kubelet, just not running, its data being there?",
                "systemctl status kubelet; crictl ps -a".into(),
            ),
        ];
    };
    let (etcd, api) = (host.unit(Component::Etcd), host.unit(Component::KubeApiserver));
    let files = certificates_of(host);
    let leaf = |word: &str| files.iter().find(|file| file.contains(word) && !file.contains("ca."));
    let look = match leaf("apiserver").or_else(|| leaf("server")) {
        Some(file) => {
            format!("openssl x509 -noout -enddate -in {file}; journalctl -u {etcd} -u {api} | grep x509")
        }
        None => format!("journalctl -u {etcd} -u {api} | grep x509"),
    };
    let stopped = "Is a unit of the control plane just not running, the data of etcd being there?";
    [(expired, look), (stopped, format!("systemctl status {}", host.units().join(" ")))]
}

fn decide(document: &mut Document, site: &Site<'_>) {
    let [(expired, expired_look), (stopped, stopped_look)] = first_looks(site);
    let question = |ask: &str, look: &str, chapter: &str| Question {
        ask: ask.into(),
        look: look.into(),
        chapter: chapter.into(),
    };
    let chart = Chart {
        start: "Something is wrong. `rekindle check` names the root cause; without it:".replace('`', ""),
        questions: vec![
            question("Are all control-plane hosts gone for good?", "", "Everything is gone"),
            question(expired, &expired_look, "Certificates have expired"),
            question(stopped, &stopped_look, "Something is stopped"),
            question(
                "Is the data of one member lost while the others hold a quorum?",
                "etcdctl endpoint health --cluster",
                "One etcd member is lost",
            ),
            question(
                "Is the data of etcd lost, or quorum gone?",
                "etcdctl endpoint health",
                "The data of etcd is lost",
            ),
            question("Is a node NotReady or gone?", "kubectl get nodes", "A node is lost"),
            question(
                "Does something not go away, or is it refused?",
                "kubectl get ns,crd,apiservices",
                "Something is stuck",
            ),
            question("Was something deleted or changed by mistake?", "", "An object is lost"),
        ],
        end: "Save what is there (rekindle snapshot save), then call those above.".into(),
    };
    document.chapter("From the symptom to the chapter");
    document.push(Block::Figure { svg: chart.svg(), mermaid: chart.mermaid() });
}

fn cluster(document: &mut Document, site: &Site<'_>) {
    document.chapter("The cluster");
    let facts = &site.inventory.cluster;
    let list = |all: Vec<String>| if all.is_empty() { "unknown".to_owned() } else { all.join(", ") };
    let mut rows = vec![
        vec!["API".into(), seen(&facts.control_plane_endpoint)],
        vec!["UID of `kube-system`".into(), seen(&facts.kube_system_uid)],
        vec!["Kubernetes".into(), list(site.kubernetes_versions())],
        vec!["etcd".into(), list(site.etcd_versions())],
    ];
    if let Some(vault) = &site.notes.vault {
        rows.push(vec!["vault".into(), format!("{} as {}", vault.url, vault.cluster)]);
        let signers =
            if vault.signers.is_empty() { "none is named".into() } else { vault.signers.join(", ") };
        rows.push(vec!["signers that count".into(), signers]);
    } else {
        rows.push(vec![
            "vault".into(),
            "none is named: the commands below take the newest snapshot in `/backup`".into(),
        ]);
    }
    if site.is_units() {
        let place = site.kubeconfig().map(|path| format!("`{path}`"));
        let none = || format!("none was seen: put the path of an administrator's in place of `{KUBECONFIG}`");
        rows.push(vec!["kubeconfig".into(), place.unwrap_or_else(none)]);
    }
    document.table(&["", ""], rows);
    document.section("Control-plane hosts");
    document.table(
        &["host", "reached as", "addresses", "run by", "etcd member", "its data", "peer address"],
        site.hosts.iter().map(host).collect(),
    );
    let workers = site.workers();
    if !workers.is_empty() {
        document.section("Other nodes");
        let rows = workers.iter().map(|node| vec![node.name.clone(), node.addresses.join(", ")]);
        document.table(&["node", "addresses"], rows.collect());
    }
    document.section("Before it happens");
    let unpack =
        if site.notes.vault.is_some() { ", and `age` and `zstd` for what lies in the vault" } else { "" };
    document.push(Block::List(vec![
        format!(
            "`etcdutl` and `etcdctl` of etcd {} on each control-plane host{unpack}: chapters need them by hand.",
            list(site.etcd_versions())
        ),
        "The identity that decrypts the backups outside the cluster, and who has it among the contacts."
            .into(),
        "A drill that passed lately: `rekindle drill history`.".into(),
    ]));
}

fn host(host: &ControlPlane<'_>) -> Vec<String> {
    let addresses = match &host.facts.addresses {
        Seen::Known(addresses) => addresses.join(", "),
        Seen::Unknown(why) => format!("unknown: {why}"),
    };
    let run_by = if host.is_units {
        "systemd units".to_owned()
    } else {
        format!("static pods in `{}`", host.facts.manifest_dir)
    };
    let unknown = || "unknown".to_owned();
    vec![
        host.name.clone(),
        host.facts.id.to_string(),
        addresses,
        run_by,
        host.etcd.map_or_else(unknown, |etcd| etcd.name.clone()),
        host.etcd.map_or_else(unknown, |etcd| format!("`{}`", etcd.data_dir)),
        host.etcd.map_or_else(unknown, |etcd| etcd.peer_urls.join(", ")),
    ]
}

fn seen(fact: &Seen<String>) -> String {
    match fact {
        Seen::Known(text) => text.clone(),
        Seen::Unknown(why) => format!("unknown: {why}"),
    }
}

/// A day and a minute in UTC, of milliseconds since the Unix epoch.
fn date(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => "a day that is not known".into(),
    }
}
