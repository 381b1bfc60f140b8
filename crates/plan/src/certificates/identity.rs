//! Whose identity is signed for a host that lacks the authority's key: that of its own node, and no other. What the host
//! says of itself proves nothing; the signer proves once more that the authority had signed the same before.

use crate::survey::Context;
use rekindle_model::HostId;
use rekindle_model::certificate::{Certificate, CertificateFile};
use rekindle_model::host::HostFacts;
use rekindle_model::inventory::Inventory;

/// The node a certificate may be signed for on another host, or why it may not.
pub(super) fn own_node(
    context: &Context<'_>,
    host: &HostFacts,
    file: &CertificateFile,
    old: &Certificate,
) -> Result<String, String> {
    let inventory = context.inventory;
    let Some(name) = &old.node else {
        return Err(format!("{} is the identity of no node", old.subject));
    };
    if file.signed_by_authority != Some(true) {
        return Err("the present authority is not seen to have signed the old one".into());
    }
    if let Some(nodes) = inventory.cluster.nodes.known() {
        let why = match inventory.node_on(host) {
            Some(node) if &node.name == name => None,
            Some(node) => {
                Some(format!("it is the identity of node {name}, and the host is node {}", node.name))
            }
            None if nodes.iter().any(|node| &node.name == name) => Some(format!(
                "nothing shows that the host is node {name}: name it with --host by an address of that node"
            )),
            None => Some(format!("the cluster has no node {name}")),
        };
        if let Some(why) = why {
            return Err(why);
        }
    }
    match another(inventory, host, name) {
        Some(other) => Err(format!("it is the identity of node {name}, and {other} may be that node")),
        None => Ok(name.clone()),
    }
}

/// Another host given that may be the node: by what it is called, or by what it says.
fn another<'a>(inventory: &'a Inventory, host: &HostFacts, node: &str) -> Option<&'a HostId> {
    let is_it = |other: &&HostFacts| {
        other.id.bare() == node
            || other.hostname.known().is_some_and(|own| own.eq_ignore_ascii_case(node))
            || inventory.node_on(other).is_some_and(|on| on.name == node)
    };
    inventory.hosts.iter().filter(|other| other.id != host.id).find(is_it).map(|other| &other.id)
}
