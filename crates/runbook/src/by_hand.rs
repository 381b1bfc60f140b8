//! The stock commands of a recovery without Rekindle, as they are pasted into a root shell. A test runs [`restore`] as it
//! stands here, against a real etcd.

use crate::site::{ControlPlane, Site, quoted};
use crate::unit_settings;
use rekindle_model::etcd::EtcdDefinition;
use rekindle_model::host::Component;
use std::fmt::Write;

/// Where manifests wait meanwhile: outside the folder that the kubelet reads.
pub const ASIDE: &str = "/etc/kubernetes/aside";
/// What all watches have seen lies below it.
const BUMP_REVISION: u64 = 1_000_000_000;

/// Stops the control plane of a host, and waits until it is stopped.
///
/// Of static pods the kubelet is stopped first, and then their processes: a kubelet that has not reached its API server since
/// it started, as after a boot without etcd, does not stop the pods whose manifests are gone (kubelet.go, `deletePod`:
/// "skipping delete because sources aren't ready yet").
pub fn stop(host: &ControlPlane<'_>) -> String {
    // by their processes: a crictl that fails would pass for "nothing runs". The kernel keeps 15 characters of a name.
    let names = Component::ALL.iter().map(|component| component.name());
    let names: Vec<&str> = names.map(|name| name.get(..15).unwrap_or(name)).collect();
    if host.is_units {
        let units: Vec<String> = host.units().into_iter().rev().collect();
        let wait = format!("while pgrep -l -x '{}'; do sleep 1; done\n", names.join("|"));
        return format!("systemctl stop {}\n# what is printed runs still\n{wait}", units.join(" "));
    }
    let (from, files) = (quoted(&host.facts.manifest_dir.to_string()), manifests(host).join(" "));
    format!(
        "systemctl stop kubelet\nmkdir -p {ASIDE}\n(cd {from} && mv -n {files} {ASIDE}/)\n\
         # what is printed runs still; what does after two minutes: pkill -9 -x NAME\n\
         for name in {}; do\n  pkill -x $name || true\n  while pgrep -l -x $name; do sleep 1; done\ndone\n",
        names.into_iter().rev().collect::<Vec<_>>().join(" ")
    )
}

/// Starts it again.
pub fn start(host: &ControlPlane<'_>) -> String {
    if host.is_units {
        return format!("systemctl start {}\n", host.units().join(" "));
    }
    let to = quoted(&host.facts.manifest_dir.to_string());
    format!("mv -n {ASIDE}/*.yaml {to}/\nsystemctl start kubelet\n")
}

fn manifests(host: &ControlPlane<'_>) -> Vec<String> {
    let known = Component::ALL.iter().filter_map(|component| {
        let path = &host.facts.manifest(*component)?.path;
        Some(quoted(path.file_name()?))
    });
    let known: Vec<String> = known.collect();
    if known.is_empty() {
        // they may be what is lost: kubeadm's names
        return Component::ALL.iter().map(|component| format!("{component}.yaml")).collect();
    }
    known
}

/// Moves what is left of a stopped member aside, and restores the snapshot `$SNAPSHOT` in its place. None: its settings
/// could not be read.
pub fn restore(site: &Site<'_>, host: &ControlPlane<'_>) -> Option<String> {
    let (etcd, cluster) = (host.etcd?, site.initial_cluster()?);
    let data = quoted(&etcd.data_dir.to_string());
    let token =
        if etcd.initial_cluster_token.is_empty() { "etcd-cluster" } else { &etcd.initial_cluster_token };
    // a step that fails ends the chain, and no name is taken over: pasted twice it does no harm
    let mut steps = vec![format!("mkdir -p -m 700 {data}"), set_aside(&data)];
    let mut flags = format!(
        " \\\n  --name {} \\\n  --initial-cluster {} \\\n  --initial-cluster-token {} \\\n  \
         --initial-advertise-peer-urls {} \\\n  --bump-revision {BUMP_REVISION} --mark-compacted \\\n  \
         --data-dir {data}/restored",
        quoted(&etcd.name),
        quoted(&cluster),
        quoted(token),
        quoted(&etcd.peer_urls.join(",")),
    );
    if let Some(wal) = &etcd.wal_dir {
        let wal = quoted(&wal.to_string());
        steps.push(wal_aside(&wal));
        let _ = write!(flags, " --wal-dir {wal}");
    }
    steps.push(format!("etcdutl snapshot restore \"$SNAPSHOT\"{flags}"));
    // etcd may run as somebody else than root
    steps.push(format!("chown -R --reference={data} {data}/restored/member"));
    if let Some(wal) = etcd.wal_dir.as_ref().map(|wal| quoted(&wal.to_string())) {
        steps.push(format!("{{ [ ! -e {wal}.lost ] || chown -R --reference={wal}.lost {wal}; }}"));
    }
    steps.push(format!("mv -T {data}/restored/member {data}/member"));
    steps.push(format!("rmdir {data}/restored"));
    Some(steps.join(" &&\n") + "\n")
}

fn set_aside(data: &str) -> String {
    format!("{{ [ ! -e {data}/member ] || mv -T {data}/member {data}/member.lost; }}")
}

fn wal_aside(wal: &str) -> String {
    format!("{{ [ ! -e {wal} ] || mv -T {wal} {wal}.lost; }}")
}

/// Puts back what [`restore`] moved aside; the restored data is kept beside it.
pub fn put_back(host: &ControlPlane<'_>) -> Option<String> {
    let etcd = host.etcd?;
    let data = quoted(&etcd.data_dir.to_string());
    let mut steps = vec![
        format!("mv -T {data}/member {data}/member.restored"),
        format!("mv -T {data}/member.lost {data}/member"),
    ];
    if let Some(wal) = &etcd.wal_dir {
        let wal = quoted(&wal.to_string());
        steps.push(format!("mv -T {wal} {wal}.restored"));
        steps.push(format!("mv -T {wal}.lost {wal}"));
    }
    Some(steps.join(" &&\n") + "\n")
}

/// `etcdctl` as this host's certificates allow it.
pub fn etcdctl(host: &ControlPlane<'_>) -> Option<String> {
    let endpoint = &host.etcd?.endpoint;
    let mut text = format!("etcdctl --endpoints={}", quoted(&endpoint.url));
    for (flag, file) in [("cacert", &endpoint.cacert), ("cert", &endpoint.cert), ("key", &endpoint.key)] {
        if let Some(file) = file {
            let _ = write!(text, " --{flag}={}", quoted(&file.to_string()));
        }
    }
    Some(text)
}

/// Replaces the member of a host while the others hold a quorum: commands with the host to type them on. `by` is one of
/// the others. None: settings could not be read.
pub fn replace(
    site: &Site<'_>,
    host: &ControlPlane<'_>,
    by: &ControlPlane<'_>,
) -> Option<Vec<(String, String)>> {
    let (etcd, cluster) = (host.etcd?, site.initial_cluster()?);
    let ctl = format!("ctl() {{ {} \"$@\"; }}\n", etcdctl(by)?);
    let (data, peers) = (quoted(&etcd.data_dir.to_string()), quoted(&etcd.peer_urls.join(",")));
    // a member that never started has no name yet, so it is known by where its peers find it
    let find = |variable: &str| {
        format!("{variable}=$(ctl member list | awk -F', ' -v peers={peers} '$4 == peers {{ print $1 }}')\n")
    };
    let remove = format!(
        "{ctl}{}[ -z \"$LOST\" ] || ctl member remove \"$LOST\" &&\nctl member add {} --learner --peer-urls={peers}\n",
        find("LOST"),
        quoted(&etcd.name)
    );
    let promote = format!(
        "{ctl}{}for try in $(seq 150); do ctl member promote \"$NEW\" && break; sleep 2; done\nctl member list -w table\n",
        find("NEW")
    );
    let mut start_anew = match &etcd.defined_in {
        EtcdDefinition::Manifest(path) => {
            let file = format!("{ASIDE}/{}", quoted(path.file_name().unwrap_or("etcd.yaml")));
            let flags = format!(
                r"s#^\( *- \)--initial-cluster=.*#\1--initial-cluster={}\n\1--initial-cluster-state=existing#",
                in_sed(&cluster)
            );
            format!(
                "sed -i -e '/--initial-cluster-state=/d' -e {} {file}\n\
                 # both flags must be there\ngrep -e --initial-cluster= {file} && grep -e --initial-cluster-state=existing {file}\n",
                quoted(&flags)
            )
        }
        EtcdDefinition::Unit { files, .. } => {
            let edit = unit_settings::existing(host.facts, files, &cluster).unwrap_or_else(|| {
                format!(
                    "# in {}: these two flags of etcd, then go on\n\
                     #   --initial-cluster={cluster}\n#   --initial-cluster-state=existing\n",
                    files.first().map(ToString::to_string).unwrap_or_default()
                )
            });
            edit + "systemctl daemon-reload &&\n"
        }
    };
    start_anew.push_str(&start(host));
    let mut aside = vec![set_aside(&data)];
    aside.extend(etcd.wal_dir.as_ref().map(|wal| wal_aside(&quoted(&wal.to_string()))));
    let (here, there) = (host.place(), by.place());
    Some(vec![
        (
            format!("on {here}: it is stopped, and what is left of its data goes aside."),
            format!("{}{}\n", stop(host), aside.join(" &&\n")),
        ),
        (format!("on {there}, once: the old member goes, a learner is announced."), remove),
        (format!("on {here}: it starts as that learner."), start_anew),
        (format!("on {there}: the learner votes as soon as it has caught up."), promote),
    ])
}

/// A text as the replacement of sed's `s#...#...#` has it.
pub(crate) fn in_sed(text: &str) -> String {
    let escape = |c: char| if "\\&#".contains(c) { format!("\\{c}") } else { c.to_string() };
    text.chars().map(escape).collect()
}
