//! Which etcd member is a node's: a member that is left behind counts for quorum, and never votes again.

use crate::survey::url_host;
use rekindle_model::MemberId;
use rekindle_model::etcd::EtcdMember;
use rekindle_model::kube::nodes::Node;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Whether a member is a node's: by its name, or by the host of a peer URL.
pub fn is_of(member: &EtcdMember, node: &Node) -> bool {
    let hosts = || member.peer_urls.iter().map(|url| url_host(url));
    let own = |host: &str| {
        host.eq_ignore_ascii_case(node.name()) || node.addresses.iter().any(|one| is_same_host(host, one))
    };
    member.name == node.name() || hosts().any(own)
}

/// Addresses are compared as such: IPv6 has many ways to write one.
fn is_same_host(one: &str, other: &str) -> bool {
    match (one.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// Members that are of no node that stays, and do not answer: any of them may be the one of a node that is removed.
pub fn unclear<'m>(
    members: &'m [EtcdMember],
    staying: &[&Node],
    answering: &BTreeSet<MemberId>,
) -> Vec<&'m EtcdMember> {
    let is_clear = |member: &&EtcdMember| {
        answering.contains(&member.id) || staying.iter().any(|node| is_of(member, node))
    };
    members.iter().filter(|member| !is_clear(member)).collect()
}
