//! The text of systemd units: command line and environment, put together from the unit file, its drop-ins and its
//! environment files as systemd does (systemd.unit(5), systemd.exec(5)).

use crate::words;
use rekindle_model::HostPath;
use std::collections::BTreeMap;

/// What a unit runs, as far as its texts tell.
#[derive(Debug, Default)]
pub(super) struct UnitText {
    /// `ExecStart`, first command, words split, variables not yet put in.
    exec: Vec<String>,
    /// `Environment=`.
    environment: BTreeMap<String, String>,
    /// `EnvironmentFile=`, in order.
    pub(super) environment_files: Vec<HostPath>,
}

impl UnitText {
    /// Takes in a unit file or drop-in; call in the order systemd reads them.
    pub(super) fn take(&mut self, text: &str) {
        let mut section = String::new();
        for line in joined(text) {
            let line = line.trim();
            if line.starts_with('[') {
                section = line.to_owned();
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            if section != "[Service]" || line.starts_with(['#', ';']) {
                continue;
            }
            self.setting(key.trim(), value.trim());
        }
    }

    fn setting(&mut self, key: &str, value: &str) {
        match key {
            "ExecStart" if value.is_empty() => self.exec.clear(),
            "ExecStart" if self.exec.is_empty() => {
                self.exec = words::split(value.trim_start_matches(['-', '@', ':', '+', '!', '|']));
            }
            "Environment" if value.is_empty() => self.environment.clear(),
            "Environment" => {
                let pairs = words::split(value);
                let pairs = pairs.iter().filter_map(|w| w.split_once('='));
                self.environment.extend(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())));
            }
            "EnvironmentFile" if value.is_empty() => self.environment_files.clear(),
            "EnvironmentFile" => self.environment_files.push(HostPath::from(value.trim_start_matches('-'))),
            _ => {}
        }
    }

    /// Takes in an environment file; it overrides what was set before.
    pub(super) fn take_environment(&mut self, text: &str) {
        for line in joined(text) {
            let line = line.trim();
            let Some((key, value)) = line.split_once('=') else { continue };
            if !line.starts_with(['#', ';']) {
                let value = words::split(value.trim()).join(" ");
                self.environment.insert(key.trim().trim_start_matches("export ").to_owned(), value);
            }
        }
    }

    /// Command line with variables and the host's name put in, and the environment.
    pub(super) fn resolve(self, hostname: &str) -> (Vec<String>, BTreeMap<String, String>) {
        let Self { exec, environment, .. } = self;
        let mut command = Vec::new();
        for word in exec {
            let whole = word.strip_prefix('$').filter(|name| is_name(name));
            match whole {
                // Alone, a variable becomes as many words as it holds.
                Some(name) => command.extend(words::split(environment.get(name).map_or("", String::as_str))),
                None => command.push(specifiers(&braced(&word, &environment), hostname)),
            }
        }
        (command, environment)
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `${NAME}` inside a word.
fn braced(word: &str, environment: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else { break };
        out.push_str(before);
        out.push_str(environment.get(name).map_or("", String::as_str));
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// `%H` is the host's name, `%%` a percent sign; other specifiers are left as they are.
fn specifiers(word: &str, hostname: &str) -> String {
    word.replace("%H", hostname).replace("%%", "%")
}

/// Lines, those ending in a backslash joined with the next.
fn joined(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let (content, goes_on) = line.strip_suffix('\\').map_or((line, false), |l| (l, true));
        match lines.last_mut().filter(|_| open) {
            Some(last) => {
                last.push(' ');
                last.push_str(content);
            }
            None => lines.push(content.to_owned()),
        }
        open = goes_on;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    // Distributions and installers write etcd units in many ways; all of these mean the same etcd.
    #[test]
    fn a_unit_is_put_together_as_systemd_does() {
        let mut unit = UnitText::default();
        unit.take("[Unit]\nExecStart=no\n[Service]\nEnvironment=A=1 \"B=two words\"\nEnvironmentFile=-/etc/default/etcd\nExecStart=/bin/false\n");
        unit.take(
            "[Service]\nExecStart=\nExecStart=-/usr/bin/etcd --name %H \\\n  --data-dir=${DIR} $OPTS $NONE\n",
        );
        assert_eq!(unit.environment_files, [HostPath::from("/etc/default/etcd")]);
        unit.take_environment("# x\nDIR=\"/var/lib/etcd\"\nOPTS='--a=1 --b'\nETCD_NAME=n\n");
        let (command, environment) = unit.resolve("cp1");
        assert_eq!(command, ["/usr/bin/etcd", "--name", "cp1", "--data-dir=/var/lib/etcd", "--a=1", "--b"]);
        assert_eq!(environment.get("B").map(String::as_str), Some("two words"));
        assert_eq!(environment.get("ETCD_NAME").map(String::as_str), Some("n"));
    }
}
