//! Text edits leave every other byte as it is: what a YAML parser and a shell-like reader of unit files see before and
//! after differs in the wanted fields only; what is not understood is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use proptest::prelude::*;
use rekindle_model::HostPath;
use rekindle_model::host::TextFile;
use rekindle_plan::manifest::{EditError, EtcdEdit, edit_manifest, manifest_flag};
use rekindle_plan::unit::{edit_unit_files, unit_flag};
use serde_json::Value;

/// As `kubeadm init` of 1.37 writes it.
const KUBEADM: &str = include_str!("data/etcd.yaml");

fn edit() -> EtcdEdit {
    let pair = |n: u8| (format!("cp-{n}"), format!("https://10.0.0.1{n}:2380"));
    EtcdEdit { initial_cluster: vec![pair(1), pair(2), pair(3)], data_dir: None }
}

fn edit_with_data_dir() -> EtcdEdit {
    EtcdEdit { data_dir: Some(("/var/lib/etcd".into(), "/srv/etcd".into())), ..edit() }
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn changed_lines(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
    let lines = |t: &str| t.lines().map(str::to_owned).collect::<Vec<_>>();
    let (old, new) = (lines(before), lines(after));
    let gone = old.iter().filter(|l| !new.contains(l)).cloned().collect();
    let come = new.iter().filter(|l| !old.contains(l)).cloned().collect();
    (gone, come)
}

// The first member's manifest, as kubeadm leaves it, names only itself and no state: one line changes, one is added.
#[test]
fn kubeadm_manifest_gets_all_members_and_existing() {
    let edited = edit_manifest(KUBEADM, &edit()).unwrap();
    let (gone, come) = changed_lines(KUBEADM, &edited);
    assert_eq!(gone, ["    - --initial-cluster=cp-1=https://10.0.0.11:2380"]);
    assert_eq!(
        come,
        [
            "    - --initial-cluster=cp-1=https://10.0.0.11:2380,cp-2=https://10.0.0.12:2380,cp-3=https://10.0.0.13:2380",
            "    - --initial-cluster-state=existing"
        ]
    );
    assert_eq!(edit_manifest(&edited, &edit()).unwrap(), edited, "done twice = done once");
}

// A new data dir: flag, mount and host path move together, as the next `kubeadm upgrade` would write them.
#[test]
fn kubeadm_manifest_gets_a_new_data_dir() {
    let edited = edit_manifest(KUBEADM, &edit_with_data_dir()).unwrap();
    assert!(!edited.contains("/var/lib/etcd"), "{edited}");
    assert_eq!(edited.matches("/srv/etcd").count(), 3, "{edited}");
    assert!(edited.contains("mountPath: /etc/kubernetes/pki/etcd"));
}

#[test]
fn quotes_comments_and_line_ends_stay() {
    let text = KUBEADM
        .replace(
            "    - --initial-cluster=cp-1=https://10.0.0.11:2380",
            "    - \"--initial-cluster=cp-1=https://10.0.0.11:2380\"  # first",
        )
        .replace('\n', "\r\n");
    let edited = edit_manifest(&text, &edit()).unwrap();
    assert!(edited.contains("    - \"--initial-cluster=cp-1=https://10.0.0.11:2380,cp-2="), "{edited}");
    assert!(edited.contains(":2380\"  # first\r\n    - --initial-cluster-state=existing\r\n"), "{edited}");
    assert_eq!(edited.matches('\n').count(), edited.matches("\r\n").count());
}

#[test]
fn a_flag_and_its_value_in_two_items_are_understood() {
    let text = KUBEADM.replace(
        "    - --initial-cluster=cp-1=https://10.0.0.11:2380",
        "    - --initial-cluster\n    - cp-1=https://10.0.0.11:2380",
    );
    let edited = edit_manifest(&text, &edit()).unwrap();
    let value = manifest_flag(&edited, "initial-cluster").unwrap().unwrap();
    assert_eq!(value, edit().initial_cluster_value());
    assert!(edited.contains("    - --initial-cluster\n    - cp-1=https://10.0.0.11:2380,cp-2"), "{edited}");
}

// Each of these may be a working manifest, but not one that an edit by lines can be sure of.
#[test]
fn forms_that_are_not_understood_are_refused_with_the_reason() {
    let flow = KUBEADM
        .lines()
        .filter(|l| !l.starts_with("    - -") && *l != "    - etcd")
        .collect::<Vec<_>>()
        .join("\n")
        .replace("  - command:", "  - command: [etcd, --data-dir=/var/lib/etcd, --initial-cluster=a=b]");
    assert_eq!(edit_manifest(&flow, &edit()), Err(EditError::NoFlags));

    let shell = KUBEADM.replace("    - etcd\n", "    - sh\n    - -c\n    - |\n      exec etcd \\\n");
    assert!(matches!(edit_manifest(&shell, &edit()), Err(EditError::Line { .. })), "{shell}");

    let twice =
        KUBEADM.replace("    - --name=cp-1", "    - --name=cp-1\n    - --initial-cluster=x=https://1:2380");
    assert_eq!(edit_manifest(&twice, &edit()), Err(EditError::Repeated("initial-cluster".into(), 2)));

    let folded = KUBEADM.replace("    - --name=cp-1", "    - --name=cp-1\n      and-more");
    assert!(matches!(edit_manifest(&folded, &edit()), Err(EditError::Line { .. })));

    let elsewhere = KUBEADM.replace("      path: /var/lib/etcd", "      path: /data/etcd");
    assert!(matches!(
        edit_manifest(&elsewhere, &edit_with_data_dir()),
        Err(EditError::DataDir { place: "hostPath", .. })
    ));

    let hostile =
        EtcdEdit { initial_cluster: vec![("a\n    - --x".into(), "https://1:2380".into())], data_dir: None };
    assert!(matches!(edit_manifest(KUBEADM, &hostile), Err(EditError::Value(_))));

    for empty in
        ["", "\n", "kind: Pod\n", "    - \n", "command:", "- - - command:\n- -", "command:\n\t- etcd"]
    {
        assert!(edit_manifest(empty, &edit()).is_err(), "{empty:?}");
    }
}

fn file(text: &str) -> TextFile {
    TextFile { sha256: String::new(), text: text.into(), mode: 0o644 }
}

fn edited(files: &[(&str, &str)]) -> Result<Vec<(String, String)>, EditError> {
    let paths: Vec<HostPath> = files.iter().map(|(p, _)| HostPath::from(*p)).collect();
    let texts: Vec<TextFile> = files.iter().map(|(_, t)| file(t)).collect();
    let given: Vec<(&HostPath, &TextFile)> = paths.iter().zip(&texts).collect();
    let changed = edit_unit_files(&given, &edit())?;
    Ok(changed.into_iter().map(|(p, t)| (p.to_string(), t)).collect())
}

const ALL: &str = "cp-1=https://10.0.0.11:2380,cp-2=https://10.0.0.12:2380,cp-3=https://10.0.0.13:2380";

// A unit as handbooks show it: one flag a line, continued with backslashes, a comment in between.
#[test]
fn a_unit_with_continued_lines_keeps_its_form() {
    let unit = "[Unit]\nDescription=etcd\n\n[Service]\nType=notify\nExecStart=/usr/local/bin/etcd \\\n  --name cp-1 \\\n  \
                # peers\n  --initial-cluster cp-1=https://10.0.0.11:2380 \\\n  --initial-cluster-state new \\\n  \
                --data-dir=/var/lib/etcd\nRestart=on-failure\n";
    let changed = edited(&[("/etc/systemd/system/etcd.service", unit)]).unwrap();
    let want = unit.replace("cp-1=https://10.0.0.11:2380", ALL).replace("state new", "state existing");
    assert_eq!(changed, [("/etc/systemd/system/etcd.service".to_owned(), want)]);
}

#[test]
fn a_missing_state_is_added_behind_the_cluster_in_the_same_form() {
    let unit = "[Service]\nExecStart=/usr/bin/etcd \\\n    --initial-cluster=cp-1=https://10.0.0.11:2380 \\\n    --name=cp-1\n";
    let changed = edited(&[("/u/etcd.service", unit)]).unwrap();
    assert_eq!(
        changed[0].1,
        format!(
            "[Service]\nExecStart=/usr/bin/etcd \\\n    --initial-cluster={ALL} \\\n    --initial-cluster-state=existing \\\n    --name=cp-1\n"
        )
    );
}

// Settings in an environment file, as Debian's package has them; the unit itself stays.
#[test]
fn an_environment_file_is_edited_where_the_settings_are() {
    let unit = "[Service]\nEnvironmentFile=-/etc/default/etcd\nExecStart=/usr/bin/etcd\n";
    let env = "# etcd\nETCD_NAME=cp-1\nETCD_INITIAL_CLUSTER=\"cp-1=https://10.0.0.11:2380\"\nETCD_DATA_DIR=/var/lib/etcd\n";
    let changed = edited(&[("/lib/etcd.service", unit), ("/etc/default/etcd", env)]).unwrap();
    let want = format!(
        "# etcd\nETCD_NAME=cp-1\nETCD_INITIAL_CLUSTER={ALL}\nETCD_INITIAL_CLUSTER_STATE=existing\nETCD_DATA_DIR=/var/lib/etcd\n"
    );
    assert_eq!(changed, [("/etc/default/etcd".to_owned(), want)]);
}

#[test]
fn environment_lines_of_the_unit_are_edited_too() {
    let unit = "[Service]\nEnvironment=ETCD_NAME=cp-1 \"ETCD_INITIAL_CLUSTER=cp-1=https://10.0.0.11:2380\"\nExecStart=/usr/bin/etcd\n";
    let changed = edited(&[("/lib/etcd.service", unit)]).unwrap();
    let want = format!(
        "[Service]\nEnvironment=ETCD_NAME=cp-1 ETCD_INITIAL_CLUSTER={ALL} ETCD_INITIAL_CLUSTER_STATE=existing\nExecStart=/usr/bin/etcd\n"
    );
    assert_eq!(changed[0].1, want);
}

// A drop-in that starts the command anew is what systemd runs; the unit file's own command is left alone.
#[test]
fn the_command_of_the_last_drop_in_counts() {
    let unit = "[Service]\nExecStart=/usr/bin/etcd --initial-cluster=old=https://1:2380\n";
    let drop_in =
        "[Service]\nExecStart=\nExecStart=/usr/bin/etcd --initial-cluster=cp-1=https://10.0.0.11:2380\n";
    let changed = edited(&[("/lib/etcd.service", unit), ("/etc/etcd.service.d/10.conf", drop_in)]).unwrap();
    assert_eq!(changed.len(), 1);
    assert!(
        changed[0].1.contains(&format!("--initial-cluster={ALL} --initial-cluster-state=existing\n")),
        "{changed:?}"
    );
}

// A flag wins over the variable of the same name: the variable is left alone.
#[test]
fn flags_win_over_variables() {
    let unit = "[Service]\nEnvironment=ETCD_INITIAL_CLUSTER_STATE=new\nExecStart=/usr/bin/etcd --initial-cluster=a=https://1:2380 --initial-cluster-state=new\n";
    let changed = edited(&[("/lib/etcd.service", unit)]).unwrap();
    assert!(changed[0].1.contains("Environment=ETCD_INITIAL_CLUSTER_STATE=new\n"), "{changed:?}");
    assert!(changed[0].1.ends_with("--initial-cluster-state=existing\n"), "{changed:?}");
}

#[test]
fn units_that_hide_their_flags_are_refused_with_the_reason() {
    let refused = |files: &[(&str, &str)]| edited(files).unwrap_err().to_string();
    let options = "[Service]\nEnvironmentFile=/etc/default/etcd\nExecStart=/usr/bin/etcd $ETCD_OPTS\n";
    let env = "ETCD_OPTS=\"--initial-cluster=a=https://1:2380 --name=a\"\n";
    assert!(refused(&[("/u", options), ("/etc/default/etcd", env)]).contains("the variable $ETCD_OPTS"));
    assert!(refused(&[("/u", options)]).contains("the variable $ETCD_OPTS"));
    assert!(
        refused(&[(
            "/u",
            "[Service]\nExecStart=/bin/sh -c 'exec etcd --initial-cluster=a=https://1:2380'\n"
        )])
        .contains("no command list")
    );
    assert!(refused(&[("/u", "[Service]\nExecStart=/a\nExecStart=/b\n")]).contains("2 lists"));
    assert!(
        refused(&[("/u", "[Service]\nExecStart=/usr/bin/etcd --initial-cluster=\"a\\x20b\"\n")])
            .contains("quoting")
    );
    assert!(refused(&[("/u", "")]).contains("no command list"));
    assert!(
        refused(&[("/u", "[Service]\nExecStart=/usr/bin/etcd --initial-cluster\n")]).contains("no value")
    );
    let twice = "[Service]\nExecStart=/usr/bin/etcd --initial-cluster=a=https://1:2380 -initial-cluster=b=https://1:2380\n";
    assert!(refused(&[("/u", twice)]).contains("given 2 times"));
}

/// What systemd and etcd would make of a unit, read apart from the code under test: continued lines joined, quotes
/// dropped (values here hold neither spaces nor escapes), flags by name.
fn read_unit(text: &str) -> Vec<(String, String)> {
    let kept: Vec<&str> = text.lines().filter(|l| !l.trim_start().starts_with('#')).collect();
    let joined = kept.join("\n").replace("\\\n", " ");
    let command = joined.lines().find_map(|l| l.strip_prefix("ExecStart=")).unwrap().replace(['"', '\''], "");
    let words: Vec<&str> = command.split_whitespace().collect();
    let mut flags = vec![("program".to_owned(), words[0].to_owned())];
    let mut at = 1;
    while at < words.len() {
        let word = words[at].trim_start_matches('-');
        match word.split_once('=') {
            Some((name, value)) => flags.push((name.into(), value.into())),
            None => {
                flags.push((word.into(), words[at + 1].into()));
                at += 1;
            }
        }
        at += 1;
    }
    let rest = joined.lines().filter(|l| !l.starts_with("ExecStart="));
    flags.extend(rest.map(|l| ("line".to_owned(), l.to_owned())));
    flags.sort();
    flags
}

/// Flags besides those edited, so that both readers have something to keep.
fn other_flags() -> impl Strategy<Value = Vec<(String, String)>> {
    let flag = ("[a-z]{2,8}(-[a-z]{1,6}){0,2}", "[A-Za-z0-9/:.,=_-]{1,20}[a-z0-9]");
    proptest::collection::btree_map(flag.0, flag.1, 0..8).prop_map(|m| {
        let ours = ["initial-cluster", "initial-cluster-state", "data-dir", "initial-advertise-peer-urls"];
        m.into_iter().filter(|(n, v)| !ours.contains(&n.as_str()) && !v.starts_with('-')).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn manifests_parse_the_same_but_for_the_wanted_fields(
        flags in other_flags(),
        at in any::<(prop::sample::Index, prop::sample::Index)>(),
        state in proptest::option::of("new|existing"),
        quote in "[\"']?",
        (split, comments, crlf, args, elsewhere) in any::<(bool, bool, bool, bool, bool)>(),
        indent in 0usize..4,
    ) {
        let mut items: Vec<String> = flags.iter().map(|(n, v)| format!("--{n}={v}")).collect();
        items.insert(at.0.index(items.len() + 1), "--data-dir=/var/lib/etcd".into());
        let mut block = vec!["--initial-cluster=cp-1=https://10.0.0.11:2380".to_owned()];
        if split {
            block = vec!["--initial-cluster".into(), "cp-1=https://10.0.0.11:2380".into()];
        }
        block.extend(state.map(|s| format!("--initial-cluster-state={s}")));
        let place = at.1.index(items.len() + 1);
        items.splice(place..place, block);
        let pad = " ".repeat(indent);
        let mut list = String::new();
        for item in &items {
            let note = if comments { "  # kept" } else { "" };
            list.push_str(&format!("    {pad}- {quote}{item}{quote}{note}\n"));
            if comments {
                list.push_str("# a line apart\n");
            }
        }
        let head = if args { "  - command:\n    - etcd\n    args:\n".to_owned() } else { format!("  - command:\n    {pad}- etcd\n") };
        let mut text = format!(
            "kind: Pod\nspec:\n  containers:\n{head}{list}    name: etcd\n    volumeMounts:\n    - mountPath: /var/lib/etcd\n      name: etcd-data\n  \
             volumes:\n  - hostPath:\n      path: /var/lib/etcd\n    name: etcd-data\n"
        );
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        let edit = if elsewhere { edit_with_data_dir() } else { edit() };
        let after = edit_manifest(&text, &edit).unwrap();
        let (mut old, mut new) = (yaml(&text), yaml(&after));
        let key = if args { "args" } else { "command" };
        let take = |v: &mut Value| -> Vec<String> {
            let list = v["spec"]["containers"][0][key].take();
            list.as_array().unwrap().iter().map(|i| i.as_str().unwrap().to_owned()).collect()
        };
        let (old_items, new_items) = (take(&mut old), take(&mut new));
        let plain = |items: &[String]| -> Vec<String> {
            let ours = |i: &&String| {
                let moved = elsewhere && i.starts_with("--data-dir");
                !(i.starts_with("--initial-cluster") || i.starts_with("cp-1=") || moved)
            };
            items.iter().filter(ours).cloned().collect()
        };
        prop_assert_eq!(plain(&old_items), plain(&new_items));
        prop_assert_eq!(manifest_flag(&after, "initial-cluster").unwrap(), Some(edit.initial_cluster_value()));
        prop_assert!(new_items.contains(&"--initial-cluster-state=existing".to_owned()));
        if elsewhere {
            prop_assert!(new_items.contains(&"--data-dir=/srv/etcd".to_owned()));
            let spec = &mut new["spec"];
            prop_assert_eq!(spec["volumes"][0]["hostPath"]["path"].take(), Value::from("/srv/etcd"));
            prop_assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"].take(), Value::from("/srv/etcd"));
            old["spec"]["volumes"][0]["hostPath"]["path"].take();
            old["spec"]["containers"][0]["volumeMounts"][0]["mountPath"].take();
        }
        prop_assert_eq!(old, new);
        prop_assert_eq!(text.matches('#').count(), after.matches('#').count());
    }

    #[test]
    fn units_read_the_same_but_for_the_wanted_flags(
        flags in other_flags(),
        at in any::<prop::sample::Index>(),
        state in proptest::option::of("new|existing"),
        quote in "[\"']?",
        (spaced, continued, comment) in any::<(bool, bool, bool)>(),
    ) {
        let gap = if spaced { " " } else { "=" };
        let mut words: Vec<String> = flags.iter().map(|(n, v)| format!("--{n}{gap}{quote}{v}{quote}")).collect();
        let mut ours = vec![format!("--initial-cluster{gap}{quote}cp-1=https://10.0.0.11:2380{quote}")];
        ours.extend(state.map(|s| format!("--initial-cluster-state{gap}{s}")));
        let place = at.index(words.len() + 1);
        words.splice(place..place, ours);
        let between = match (continued, comment) {
            (false, _) => " ".to_owned(),
            (true, false) => " \\\n    ".to_owned(),
            (true, true) => " \\\n    # a line apart\n    ".to_owned(),
        };
        let text = format!("[Unit]\nDescription=etcd\n[Service]\nExecStart=/usr/bin/etcd{between}{}\nRestart=always\n", words.join(&between));
        let path = HostPath::from("/etc/systemd/system/etcd.service");
        let before = file(&text);
        let changed = edit_unit_files(&[(&path, &before)], &edit()).unwrap();
        let after = changed.first().map_or(text.clone(), |(_, t)| t.clone());
        let ours = |f: &&(String, String)| !f.0.starts_with("initial-cluster");
        let (old, new) = (read_unit(&text), read_unit(&after));
        prop_assert_eq!(old.iter().filter(ours).collect::<Vec<_>>(), new.iter().filter(ours).collect::<Vec<_>>());
        prop_assert!(new.contains(&("initial-cluster".into(), ALL.into())));
        prop_assert!(new.contains(&("initial-cluster-state".into(), "existing".into())));
        let again = file(&after);
        let value = unit_flag(&[(&path, &again)], "initial-cluster").unwrap();
        prop_assert_eq!(value.as_deref(), Some(ALL));
        prop_assert_eq!(edit_unit_files(&[(&path, &again)], &edit()).unwrap(), vec![]);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "(?s)([ \\-:#\"'\\\\=\\[\\]\r\n\t]|command|args|path|mountPath|ExecStart|Environment|--initial-cluster|--data-dir|é|/var/lib/etcd){0,60}") {
        let path = HostPath::from("/u");
        let given = file(&text);
        if let Ok(after) = edit_manifest(&text, &edit_with_data_dir()) {
            prop_assert_eq!(manifest_flag(&after, "initial-cluster").unwrap(), Some(ALL.to_owned()));
        }
        if let Ok(changed) = edit_unit_files(&[(&path, &given)], &edit()) {
            prop_assert!(changed.iter().all(|(_, t)| t.contains("existing")));
        }
    }
}
