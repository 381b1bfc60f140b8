//! etcd: one member lost, the data lost, everything gone.

use super::{Chapter, UNDO, verify_all};
use crate::by_hand;
use crate::site::{ControlPlane, Site};
use rekindle_model::host::Component;

/// In place of commands that can't be made.
fn unknown(site: &Site<'_>) -> String {
    let missing = site.uncovered().join("; ");
    format!(
        "# not known when this runbook was made: {missing}\n# make it anew with all control-plane hosts\n"
    )
}

pub(super) fn data_lost(site: &Site<'_>) -> Chapter {
    let (hosts, backup) = (site.host_flags(), site.backup_flags());
    let mut by_hand = vec![(
        "Take the newest snapshot that verifies onto every control-plane host, at the same path, and check it there:".into(),
        format!("{}etcdutl snapshot status \"$SNAPSHOT\" -w table\n", snapshot(site)),
    )];
    for host in &site.hosts {
        let save = save(host);
        by_hand.push((
            format!("On {}: save what still answers, then stop everything. Do this on every host before you go on.", host.place()),
            format!("{save}{}", by_hand::stop(host)),
        ));
    }
    for host in &site.hosts {
        let restore = by_hand::restore(site, host).unwrap_or_else(|| unknown(site));
        by_hand.push((
            format!("On {}: what is left goes aside, the snapshot takes its place.", host.place()),
            restore,
        ));
    }
    for host in &site.hosts {
        by_hand.push((format!("On {}: start it.", host.place()), by_hand::start(host)));
    }
    by_hand.push((
        "Controllers and kubelets that watched before must begin anew:".into(),
        "# on every node, one after the other\nsystemctl restart kubelet\n".into(),
    ));
    Chapter {
        title: "The data of etcd is lost",
        looks: vec![
            "`etcdserver: request timed out`, `no leader`, or the API server does not answer on any host"
                .into(),
            "`rekindle check` names `RK-E` findings as the root cause".into(),
            "the data dir is empty, or etcd says that it is corrupt".into(),
        ],
        rekindle: format!("rekindle recover{hosts}{backup} --dry-run\nrekindle recover{hosts}{backup}\n"),
        by_hand,
        verify: verify_all(site),
        back: back(site),
    }
}

fn back(site: &Site<'_>) -> Vec<(String, String)> {
    let mut back = vec![("With Rekindle, until API servers have accepted writes:".into(), UNDO.into())];
    for host in &site.hosts {
        let put_back = by_hand::put_back(host).unwrap_or_else(|| unknown(site));
        back.push((
            format!("By hand, on {}:", host.place()),
            format!("{}{put_back}{}", by_hand::stop(host), by_hand::start(host)),
        ));
    }
    back
}

/// A running etcd holds what no snapshot has. It is asked for its status first, which ends after some seconds: the snapshot
/// of one that does not answer is waited for without end.
fn save(host: &ControlPlane<'_>) -> String {
    match by_hand::etcdctl(host) {
        Some(ctl) => format!(
            "mkdir -p {0}\n{ctl} endpoint status &&\n{ctl} snapshot save {0}/last.db || true\n",
            by_hand::ASIDE
        ),
        None => String::new(),
    }
}

fn snapshot(site: &Site<'_>) -> String {
    match &site.notes.vault {
        Some(vault) => format!(
            "# PART: the newest full/*.db.zst.age of {} under {}, fetched with the tool of its store\n\
             age -d -i identity.txt \"$PART\" | zstd -d -o /backup/snapshot.db\nSNAPSHOT=/backup/snapshot.db\n",
            vault.cluster, vault.url
        ),
        None => "SNAPSHOT=/backup/snapshot.db\n".into(),
    }
}

pub(super) fn one_member_lost(site: &Site<'_>) -> Chapter {
    let mut by_hand = Vec::new();
    for (index, host) in site.hosts.iter().enumerate() {
        let mut others = site.hosts.iter().enumerate().filter(|(other, _)| *other != index);
        let Some((_, by)) = others.next_back() else { continue };
        let steps = by_hand::replace(site, host, by);
        let steps = steps.unwrap_or_else(|| vec![("nothing can be printed.".into(), unknown(site))]);
        by_hand.extend(steps.into_iter().enumerate().map(|(step, (place, commands))| {
            (format!("The member of {} is lost, {}: {place}", host.name, step + 1), commands)
        }));
    }
    if by_hand.is_empty() && !site.uncovered().is_empty() {
        by_hand.push((String::new(), unknown(site)));
    } else if by_hand.is_empty() {
        by_hand.push((
            "This cluster has one member: then its data is lost, see that chapter.".into(),
            String::new(),
        ));
    }
    Chapter {
        title: "One etcd member is lost",
        looks: vec![
            format!(
                "the API works, one etcd {} or says that its data is corrupt",
                if site.is_units() { "is started again and again" } else { "container crashes" }
            ),
            "`etcdctl endpoint health --cluster` names one member".into(),
        ],
        rekindle: format!("rekindle recover{}\n", site.host_flags()),
        by_hand,
        verify: match site.hosts.first().and_then(by_hand::etcdctl) {
            Some(ctl) => format!("{ctl} endpoint hashkv --cluster -w table\n{ctl} member list -w table\n"),
            None => verify_all(site),
        },
        back: vec![(
            "Nothing was restored: the others held the data all the time. The lost member's data lies beside the new as `member.lost`."
                .into(),
            String::new(),
        )],
    }
}

pub(super) fn all_gone(site: &Site<'_>) -> Chapter {
    let backup = site.backup_flags();
    let names: Vec<&str> = site.hosts.iter().map(|host| host.name.as_str()).collect();
    let (new, bundle) = if site.is_units() {
        let programs = Component::ALL.map(Component::name).join(", ");
        (format!("with {programs} of the same versions"), "PKI, units and kubeconfigs")
    } else {
        let programs = "with container runtime, kubelet and kubeadm of the same versions";
        (programs.into(), "PKI, manifests and the kubelet's configuration")
    };
    let mut by_hand = vec![
        (
            format!("Make hosts with the names and addresses of {} (above), with the same versions installed.", names.join(", ")),
            String::new(),
        ),
        (
            "Fetch the newest bundle of each host from the vault, and unpack it there. Its names are paths without the \
             leading slash; what the host has already is named and kept:"
                .into(),
            "age -d -i identity.txt \"$BUNDLE\" | zstd -d | tar -x -C / --skip-old-files --warning=existing-file\n\
             systemctl daemon-reload\n"
                .into(),
        ),
    ];
    by_hand.extend(then(site));
    Chapter {
        title: "Everything is gone",
        looks: vec!["no control-plane host comes back, nor its disks".into()],
        rekindle: format!(
            "# on new hosts of the same names and addresses, {new};\n\
             # unpack a host's bundle first: it holds {bundle}\n\
             rekindle recover{}{backup}\n",
            site.host_flags()
        ),
        by_hand,
        verify: verify_all(site),
        back: vec![("There is nothing to go back to.".into(), String::new())],
    }
}

/// What follows when each new host has its bundle.
fn then(site: &Site<'_>) -> Vec<(String, String)> {
    let on = "Go on as if the data of etcd were lost: that chapter's commands by hand, on every host. Then";
    if site.is_units() {
        let mut blocks: Vec<(String, String)> = Vec::new();
        for host in &site.hosts {
            let enable = format!("systemctl enable {}\n", host.units().join(" "));
            let on = if blocks.is_empty() { format!("{on}, on") } else { "And on".into() };
            blocks.push((format!("{on} {}, so that they start with it:", host.place()), enable));
        }
        let text = "Worker nodes that are gone, too, are made as they were the first time: kubelet and its kubeconfig from their own backup.";
        blocks.push((text.into(), String::new()));
        return blocks;
    }
    vec![
        (
            format!("{on}, where static pods run the control plane:"),
            "systemctl enable --now containerd kubelet\n".into(),
        ),
        (
            "Worker nodes that are gone, too, join anew:".into(),
            "kubeadm token create --print-join-command\n".into(),
        ),
    ]
}
