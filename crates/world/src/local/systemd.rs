//! systemd units and the journal, through `systemctl` and `journalctl` (their machine-readable forms).

use super::command::run;
use crate::fault::{Fault, Outcome};
use crate::host::UnitAction;
use rekindle_model::HostPath;
use rekindle_model::host::UnitFacts;
use std::time::Duration;

/// Longest wait for an answer that changes nothing.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a unit to change its state: the default stop time of systemd is 90 s.
const CHANGE_LIMIT: Duration = Duration::from_secs(150);
/// Most characters of one journal line that are kept.
const MAX_LINE_CHARS: usize = 2000;

const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,MainPID,Result,ExecMainStatus,NRestarts,\
                          FragmentPath,DropInPaths,ExecStart";

/// State of a unit. A unit that does not exist answers with `not-found` as its load state.
pub(crate) async fn unit(name: &str) -> Outcome<UnitFacts> {
    check_name(name)?;
    let said = run("systemctl", &["show", PROPERTIES, "--", name], ASK_LIMIT).await?;
    let text = said.succeeded(&format!("systemctl show {name}"))?;
    Ok(parse_show(&String::from_utf8_lossy(&text)))
}

fn check_name(name: &str) -> Outcome<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.@:\\".contains(c);
    if name.is_empty() || name.len() > 255 || !name.chars().all(fine) || name.starts_with('-') {
        return Err(Fault::refused(format!("`{name}` is not a unit name")));
    }
    Ok(())
}

fn parse_show(text: &str) -> UnitFacts {
    let mut unit = UnitFacts::default();
    for (key, value) in text.lines().filter_map(|l| l.split_once('=')) {
        match key {
            "LoadState" => unit.load_state = value.into(),
            "ActiveState" => unit.active_state = value.into(),
            "SubState" => unit.sub_state = value.into(),
            "MainPID" => unit.main_pid = value.parse().unwrap_or_default(),
            "Result" => unit.result = value.into(),
            "ExecMainStatus" => unit.exit_status = value.parse().unwrap_or_default(),
            "NRestarts" => unit.restarts = value.parse().unwrap_or_default(),
            "FragmentPath" => unit.fragment_path = HostPath::from(value),
            "DropInPaths" => unit.drop_in_paths = value.split_whitespace().map(HostPath::from).collect(),
            "ExecStart" if unit.exec_start.is_empty() => unit.exec_start = parse_exec(value),
            _ => {}
        }
    }
    unit
}

/// The command line of `{ path=... ; argv[]=/usr/bin/etcd --name x ; ignore_errors=no ; ... }`.
fn parse_exec(value: &str) -> Vec<String> {
    let argv = value.split_once("argv[]=").map_or("", |(_, rest)| rest);
    let argv = argv.split_once(" ; ignore_errors=").map_or(argv, |(argv, _)| argv);
    crate::words::split(argv)
}

/// Changes a unit's state and waits for it.
pub(crate) async fn action(name: &str, action: UnitAction) -> Outcome<()> {
    check_name(name)?;
    match action {
        UnitAction::Reload => return change(&["daemon-reload"]).await,
        UnitAction::Start | UnitAction::Restart => {
            // A unit that failed too often refuses to start until this; it fails when there is nothing to reset.
            let _ = run("systemctl", &["reset-failed", "--", name], ASK_LIMIT).await?;
        }
        UnitAction::Kill => {
            // Without --kill-whom all processes of the unit are meant. It fails when none runs: stop decides.
            let _ = run("systemctl", &["kill", "--signal=SIGKILL", "--", name], ASK_LIMIT).await?;
        }
        UnitAction::Stop => {}
    }
    let verb = match action {
        UnitAction::Start => "start",
        UnitAction::Restart => "restart",
        _ => "stop",
    };
    change(&[verb, "--", name]).await
}

async fn change(args: &[&str]) -> Outcome<()> {
    let what = format!("systemctl {}", args.join(" "));
    let said = run("systemctl", args, CHANGE_LIMIT).await?;
    // 5: the unit is not loaded (systemctl(1)); for `stop` of a unit that is not there too.
    if said.status == Some(5) {
        return Err(Fault::not_found(format!("{what}: {}", said.stderr)));
    }
    said.succeeded(&what).map(drop)
}

/// Last journal lines of a unit, oldest first, each with its time in front.
pub(crate) async fn journal(unit: &str, lines: u32) -> Outcome<Vec<String>> {
    check_name(unit)?;
    let count = lines.min(1000).to_string();
    let args = ["--no-pager", "--quiet", "--output=json", "--unit", unit, "--lines", &count];
    let text = run("journalctl", &args, ASK_LIMIT).await?.succeeded(&format!("journalctl --unit {unit}"))?;
    Ok(text.split(|b| *b == b'\n').filter_map(journal_line).collect())
}

/// `2026-11-22T20:15:01.123Z message` from one JSON object of `journalctl -o json`.
fn journal_line(json: &[u8]) -> Option<String> {
    let entry: serde_json::Value = serde_json::from_slice(json).ok()?;
    let message = match entry.get("MESSAGE")? {
        serde_json::Value::String(text) => text.clone(),
        // Bytes that are not UTF-8 come as a list of numbers.
        serde_json::Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes.iter().filter_map(|b| u8::try_from(b.as_u64()?).ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => return None,
    };
    let micros = entry.get("__REALTIME_TIMESTAMP")?.as_str()?.parse().ok()?;
    let time = jiff::Timestamp::from_microsecond(micros).ok()?;
    Some(format!("{time:.3} {}", message.chars().take(MAX_LINE_CHARS).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // What a real systemd 252 printed for an etcd unit that had failed.
    #[test]
    fn show_is_read() {
        let unit = parse_show(
            "Type=notify\nResult=exit-code\nNRestarts=3\nMainPID=0\nExecMainStatus=1\nExecStart={ path=/usr/bin/etcd ; \
             argv[]=/usr/bin/etcd --name cp1 --data-dir=/var/lib/etcd $ETCD_OPTS ; ignore_errors=no ; \
             start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }\nLoadState=loaded\n\
             ActiveState=failed\nSubState=failed\nFragmentPath=/etc/systemd/system/etcd.service\n\
             DropInPaths=/etc/systemd/system/etcd.service.d/10-a.conf /run/systemd/system/etcd.service.d/20-b.conf\n",
        );
        assert_eq!(
            unit.exec_start,
            ["/usr/bin/etcd", "--name", "cp1", "--data-dir=/var/lib/etcd", "$ETCD_OPTS"]
        );
        assert_eq!((unit.result.as_str(), unit.restarts, unit.exit_status), ("exit-code", 3, 1));
        assert_eq!(unit.drop_in_paths.len(), 2);
        assert!(unit.exists() && !unit.is_active());
    }

    // A journal entry keeps its time; bytes that are not UTF-8 are numbers in JSON and must not lose the line.
    #[test]
    fn journal_entries_keep_time_and_text() {
        let line = br#"{"__REALTIME_TIMESTAMP":"1795378501123456","MESSAGE":"etcdserver: no space"}"#;
        assert_eq!(journal_line(line).unwrap(), "2026-11-22T20:15:01.123Z etcdserver: no space");
        let bytes = br#"{"__REALTIME_TIMESTAMP":"1795378501123456","MESSAGE":[104,105,255]}"#;
        assert!(journal_line(bytes).unwrap().ends_with("hi\u{fffd}"));
        assert_eq!(journal_line(b"not json"), None);
    }

    // Names come from plan files: an option in a name's place must not reach systemctl.
    #[test]
    fn an_option_is_not_a_unit_name() {
        assert!(check_name("--all").is_err());
        assert!(check_name("a b").is_err());
        assert!(check_name("etcd@cp-1.service").is_ok());
    }
}
