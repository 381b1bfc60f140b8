//! The settings that an etcd unit joins a cluster by, changed with sed where its files say them plainly.

use crate::by_hand::in_sed;
use crate::site::quoted;
use rekindle_model::HostPath;
use rekindle_model::host::HostFacts;

/// How a setting is given: what stands before its value, as in the text.
const FLAG: [&str; 2] = ["initial-cluster", "initial-cluster-state"];
const VARIABLE: [&str; 2] = ["ETCD_INITIAL_CLUSTER", "ETCD_INITIAL_CLUSTER_STATE"];

/// A setting in a file.
struct Place<'a> {
    path: &'a HostPath,
    /// `--flag=`, `--flag ` or `NAME=`.
    lead: String,
    /// The line that it stands on.
    line: &'a str,
    /// The letter behind the value; none at the end of the line.
    next: Option<char>,
}

/// Has the etcd of a unit join an existing cluster of these members; commands that end with `&&`. None: where it gets its
/// settings from is not plain, or was not read.
pub(crate) fn existing(host: &HostFacts, files: &[HostPath], cluster: &str) -> Option<String> {
    let mut texts = Vec::new();
    for path in files {
        texts.push((path, host.unit_files.get(path)?.known()?.text.as_str()));
    }
    let [members, state] = [0, 1].map(|index| find(&texts, index));
    let members = members?.into_iter().next()?;
    // `first` takes off what an earlier paste put there
    let set = |place: &Place<'_>, value: &str, behind: &str, first: &str| {
        let lead = place.lead.trim_end();
        // a flag and its value are two words, or one
        let gap = if lead.ends_with('=') { "" } else { "  *" };
        let sed = format!(r#"s#\({lead}{gap}["']*\)[^ "'\\]*#\1{}{behind}#"#, in_sed(value));
        format!("sed -i{first} -e {} {}", quoted(&sed), quoted(&place.path.to_string()))
    };
    let state = state?;
    let mut steps = Vec::new();
    match state.first() {
        Some(place) => {
            steps.push(set(&members, cluster, "", ""));
            steps.push(set(place, "existing", "", ""));
        }
        None if members.lead.starts_with("--") => {
            // quotes may be around both words
            members.next.is_none_or(|c| c.is_whitespace()).then_some(())?;
            let behind = " --initial-cluster-state=existing";
            steps.push(set(&members, cluster, behind, &format!(" -e 's#{behind}##'")));
        }
        None => {
            (!members.line.trim_end().ends_with('\\')).then_some(())?;
            let unit = members.line.trim_start().starts_with("Environment");
            let line = format!("{}{}=existing", if unit { "Environment=" } else { "" }, VARIABLE[1]);
            steps.push(set(&members, cluster, "", &format!(" -e '/{}=/d'", VARIABLE[1])));
            let append = format!("/{}/a {line}", members.lead);
            steps.push(format!("sed -i -e {} {}", quoted(&append), quoted(&members.path.to_string())));
        }
    }
    let files: Vec<String> = files.iter().map(|path| quoted(&path.to_string())).collect();
    let files = files.join(" ");
    steps.push(format!(
        "# both must be there\ngrep -F -e {} {files} &&\ngrep -i -e 'initial.cluster.state[= ]*existing' {files}",
        quoted(cluster)
    ));
    Some(steps.join(" &&\n") + " &&\n")
}

/// Where a setting stands; empty: nowhere. None: more than once, or not plainly.
fn find<'a>(texts: &[(&'a HostPath, &'a str)], index: usize) -> Option<Vec<Place<'a>>> {
    let (flag, variable) = (FLAG.get(index)?, VARIABLE.get(index)?);
    let mut found = Vec::new();
    for (path, text) in texts {
        for line in text.lines() {
            for lead in [format!("--{flag}="), format!("--{flag} "), format!("{variable}=")] {
                for (at, _) in line.match_indices(&lead) {
                    let rest = line.get(at + lead.len()..)?.trim_start_matches([' ', '"', '\'']);
                    let end = rest.find([' ', '\t', '"', '\'', '\\']).unwrap_or(rest.len());
                    let value = rest.get(..end)?;
                    let comment = line.trim_start().starts_with(['#', ';']);
                    if comment || value.is_empty() || value.contains('$') {
                        return None;
                    }
                    let next = rest.get(end..)?.chars().next();
                    found.push(Place { path, lead: lead.clone(), line, next });
                }
            }
        }
    }
    (found.len() <= 1).then_some(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use rekindle_model::fixtures::Fixture;
    use rekindle_model::host::TextFile;
    use rekindle_model::{Seen, inventory::Inventory};
    use std::process::Command;

    const ALL: &str = "a=https://1:2380,b=https://2:2380";

    fn host(path: &HostPath, text: &str) -> Inventory {
        let file = TextFile { sha256: String::new(), text: text.into(), mode: 0o644 };
        Fixture::systemd()
            .host(0, |host| host.unit_files = [(path.clone(), Seen::Known(file))].into())
            .build()
    }

    // An etcd unit is written in many ways. Where its settings are said plainly, what is printed makes it join; elsewhere a
    // person has to look. A wrong edit would have the member found a cluster of its own.
    #[test]
    fn what_is_printed_has_etcd_join() {
        let dir = std::env::temp_dir().join(format!("rekindle-unit-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = HostPath::from(dir.join("etcd.service").to_str().unwrap());
        let flag = format!("--initial-cluster={ALL} --initial-cluster-state=existing");
        let plain = [
            (
                "[Service]\nExecStart=/bin/etcd \\\n  --initial-cluster-token=t --initial-cluster=a=https://1:2380 \\\n  --name=a\n",
                format!(
                    "[Service]\nExecStart=/bin/etcd \\\n  --initial-cluster-token=t {flag} \\\n  --name=a\n"
                ),
            ),
            (
                "[Service]\nExecStart=etcd --initial-cluster a=https://1:2380 --initial-cluster-state new\n",
                format!(
                    "[Service]\nExecStart=etcd --initial-cluster {ALL} --initial-cluster-state existing\n"
                ),
            ),
            (
                "[Service]\nExecStart=etcd --initial-cluster-state new --initial-cluster  a=https://1:2380\n",
                format!(
                    "[Service]\nExecStart=etcd --initial-cluster-state existing --initial-cluster  {ALL}\n"
                ),
            ),
            (
                "ETCD_NAME=a\nETCD_INITIAL_CLUSTER=\"a=https://1:2380\"\n",
                format!("ETCD_NAME=a\nETCD_INITIAL_CLUSTER=\"{ALL}\"\nETCD_INITIAL_CLUSTER_STATE=existing\n"),
            ),
            (
                "[Service]\nEnvironment=\"ETCD_INITIAL_CLUSTER=a=https://1:2380\"\nExecStart=etcd\n",
                format!(
                    "[Service]\nEnvironment=\"ETCD_INITIAL_CLUSTER={ALL}\"\nEnvironment=ETCD_INITIAL_CLUSTER_STATE=existing\nExecStart=etcd\n"
                ),
            ),
        ];
        for (before, after) in plain {
            let inventory = host(&path, before);
            std::fs::write(&*path, before).unwrap();
            let script = existing(inventory.hosts.first().unwrap(), std::slice::from_ref(&path), ALL)
                .unwrap()
                + "true";
            for _pasted in 0..2 {
                let shell = Command::new("sh").args(["-euc", &script]).output().unwrap();
                assert!(shell.status.success(), "{script}");
            }
            assert_eq!(std::fs::read_to_string(&*path).unwrap(), after, "{script}");
        }
        std::fs::remove_dir_all(dir).unwrap();
        for odd in [
            "[Service]\nExecStart=etcd $ARGS\n",
            "[Service]\nExecStart=etcd --initial-cluster=${ALL}\n",
            "[Service]\nExecStart=etcd --initial-cluster \\\n  a=https://1:2380\n",
            "[Service]\nExecStart=etcd \"--initial-cluster=a=https://1:2380\"\n",
            "[Service]\n#ExecStart=etcd --initial-cluster=a=https://1:2380\nExecStart=etcd\n",
            "[Service]\nEnvironment=ETCD_INITIAL_CLUSTER=a=https://1:2380\nExecStart=etcd --initial-cluster=a=https://1:2380\n",
        ] {
            let inventory = host(&path, odd);
            assert_eq!(
                existing(inventory.hosts.first().unwrap(), std::slice::from_ref(&path), ALL),
                None,
                "{odd}"
            );
        }
    }
}
