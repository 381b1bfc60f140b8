//! Who this machine is: name, addresses, clock.

use super::command;
use super::paths::Root;
use crate::fault::Outcome;
use crate::host::Identity;
use rekindle_model::Seen;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::OnceCell;

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Name, addresses and clock. With a root that is not the running machine only the name is the root's.
pub(crate) async fn identity(root: &Root, clock: &OnceCell<Seen<bool>>) -> Outcome<Identity> {
    if !root.is_running_machine() {
        let name = std::fs::read_to_string(root.path().join("etc/hostname")).unwrap_or_default();
        let synchronized = Seen::Unknown("not the running machine".into());
        return Ok(Identity {
            hostname: name.trim().into(),
            addresses: Vec::new(),
            now_ms: now_ms(),
            synchronized,
        });
    }
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // Asked once: the clock is read again and again, and the tool may take its time.
    let synchronized = clock.get_or_init(synchronized).await.clone();
    Ok(Identity { hostname, addresses: addresses(), now_ms: now_ms(), synchronized })
}

async fn synchronized() -> Seen<bool> {
    let args = ["show", "--property=NTPSynchronized", "--value"];
    let said = command::run("timedatectl", &args, Duration::from_secs(2)).await;
    match said.and_then(|s| s.succeeded("timedatectl show")) {
        Ok(text) => match text.trim_ascii() {
            b"yes" => Seen::Known(true),
            b"no" => Seen::Known(false),
            other => Seen::Unknown(format!("timedatectl said `{}`", String::from_utf8_lossy(other))),
        },
        Err(fault) => Seen::Unknown(fault.what),
    }
}

/// Addresses of this machine's interfaces, loopback and link-local left out, from `/proc/net`.
fn addresses() -> Vec<String> {
    let v4 = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    local_v4(&v4)
        .into_iter()
        .map(|a| a.to_string())
        .chain(local_v6(&v6).into_iter().map(|a| a.to_string()))
        .collect()
}

/// `fib_trie` shows a local address as a leaf `|-- 10.0.0.1` followed by `/32 host LOCAL`.
fn local_v4(text: &str) -> BTreeSet<Ipv4Addr> {
    let mut last = None;
    let mut found = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            last = leaf.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last.filter(|a| !a.is_loopback() && !a.is_link_local()));
        }
    }
    found
}

/// `if_inet6`: 32 hex digits, then interface data.
fn local_v6(text: &str) -> BTreeSet<Ipv6Addr> {
    let address =
        |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok().map(Ipv6Addr::from);
    let outside = |a: &Ipv6Addr| !a.is_loopback() && !a.is_unicast_link_local();
    text.lines().filter_map(address).filter(outside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Member URLs are matched with these addresses: a missing one makes a host's own member look like another's.
    #[test]
    fn addresses_are_read_from_the_kernels_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\nLocal:\n     +-- 10.77.0.0/24 2 0 1\n        \
                    |-- 10.77.0.11\n           /32 host LOCAL\n        |-- 10.77.0.255\n           /32 link BROADCAST\n     \
                    |-- 127.0.0.1\n           /32 host LOCAL\n";
        assert_eq!(local_v4(trie).into_iter().collect::<Vec<_>>(), [Ipv4Addr::new(10, 77, 0, 11)]);
        let six = "00000000000000000000000000000001 01 80 10 80 lo\nfd000000000000000000000000000011 02 40 00 80 eth0\n\
                   fe80000000000000021122fffe334455 02 40 20 80 eth0\n";
        assert_eq!(local_v6(six).into_iter().map(|a| a.to_string()).collect::<Vec<_>>(), ["fd00::11"]);
    }
}
