//! The cluster as its runbook names it.

use rekindle_model::etcd::EtcdConfig;
use rekindle_model::host::{Component, HostFacts, Layout};
use rekindle_model::inventory::{Inventory, NodeFacts};

/// What the operator says, and no host tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The cluster's name.
    pub cluster: Option<String>,
    /// Where its backups are.
    pub vault: Option<VaultNote>,
    /// Whom to call.
    pub contacts: Vec<Contact>,
    /// What turns the host of a node off, and succeeds only when it is off: words, in which `{node}` is the node's name.
    pub fence_command: Option<Vec<String>>,
}

/// A vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultNote {
    /// Its address.
    pub url: String,
    /// The cluster's name in it.
    pub cluster: String,
    /// Whose backups count: `ed25519:...`.
    pub signers: Vec<String>,
}

/// Somebody to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who.
    pub name: String,
    /// For what.
    pub role: String,
    /// How.
    pub reach: String,
}

/// A cluster with one control-plane host at least.
#[derive(Debug)]
pub struct Site<'a> {
    /// What was seen.
    pub inventory: &'a Inventory,
    /// What was said.
    pub notes: &'a Notes,
    /// Control-plane hosts, in the order given.
    pub hosts: Vec<ControlPlane<'a>>,
}

/// A control-plane host.
#[derive(Debug)]
pub struct ControlPlane<'a> {
    /// All that was seen of it.
    pub facts: &'a HostFacts,
    /// Its own name; what it was called by where that is not known.
    pub name: String,
    /// Its etcd's settings, if they were read.
    pub etcd: Option<&'a EtcdConfig>,
    /// Whether systemd units run its control plane; one that could not be read is as the others are.
    pub is_units: bool,
}

/// The administrator's kubeconfig of a kubeadm host.
const KUBEADM_ADMIN: &str = "/etc/kubernetes/admin.conf";
/// What is written in place of a kubeconfig that is not known.
pub const KUBECONFIG: &str = "KUBECONFIG";

impl<'a> Site<'a> {
    /// Of an inventory.
    pub fn new(inventory: &'a Inventory, notes: &'a Notes) -> Self {
        let runs = |layout| inventory.hosts.iter().any(|facts| facts.layout == layout);
        let only_units = runs(Layout::Units) && !runs(Layout::StaticPods);
        let hosts = inventory.hosts.iter().map(|facts| ControlPlane {
            facts,
            name: facts.hostname.known().cloned().unwrap_or_else(|| facts.id.0.clone()),
            etcd: facts.etcd_config.known(),
            is_units: facts.layout == Layout::Units || (facts.layout == Layout::None && only_units),
        });
        Self { inventory, notes, hosts: hosts.collect() }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        let uid = self.inventory.cluster.kube_system_uid.known().map(String::as_str);
        self.notes.cluster.as_deref().or(uid).unwrap_or("(unnamed)")
    }

    /// `--host` flags for all hosts; none where Rekindle runs on the only one.
    pub fn host_flags(&self) -> String {
        let remote = self.inventory.hosts.iter().filter(|host| !host.id.is_local());
        remote.map(|host| format!(" --host {}", quoted(&host.id.0))).collect()
    }

    /// The flags that name the backups: of the vault, else of a folder.
    pub fn backup_flags(&self) -> String {
        match &self.notes.vault {
            Some(vault) => self.vault_flags(vault),
            None => " --snapshot /backup".into(),
        }
    }

    fn vault_flags(&self, vault: &VaultNote) -> String {
        let signers: String =
            vault.signers.iter().map(|signer| format!(" --trusted-signer {}", quoted(signer))).collect();
        let (url, cluster) = (quoted(&vault.url), quoted(&vault.cluster));
        format!(" --from {url} --cluster {cluster} --identity identity.txt{signers}")
    }

    /// Name and peer URL of every member, as `--initial-cluster` takes them. None: some are [`Site::uncovered`].
    pub fn initial_cluster(&self) -> Option<String> {
        let members = self.hosts.iter().filter_map(|host| host.etcd);
        let urls = members.flat_map(|etcd| etcd.peer_urls.iter().map(|url| format!("{}={url}", etcd.name)));
        self.uncovered().is_empty().then(|| urls.collect::<Vec<_>>().join(","))
    }

    /// What a restore of all members needs and this does not know: members that no host given has, and hosts whose etcd's
    /// settings could not be read. Commands made without them would make another cluster of some of the members.
    pub fn uncovered(&self) -> Vec<String> {
        let hosts = self.hosts.iter().filter(|host| host.facts.layout != Layout::None && host.etcd.is_none());
        let unread = hosts.map(|host| format!("the etcd of {}", host.name));
        let own: Vec<&String> =
            self.hosts.iter().filter_map(|host| host.etcd).flat_map(|etcd| &etcd.peer_urls).collect();
        let mut members: Vec<(&str, Vec<&String>)> = Vec::new();
        for host in &self.hosts {
            let live = host.facts.etcd_live.known().and_then(|live| live.members.known());
            for member in live.into_iter().flatten() {
                members.push((&member.name, member.peer_urls.iter().collect()));
            }
            let told = host.etcd.into_iter().flat_map(|etcd| &etcd.initial_cluster);
            members.extend(told.map(|(name, url)| (name.as_str(), vec![url])));
        }
        let strange = members.into_iter().filter(|(_, urls)| !urls.iter().any(|url| own.contains(url)));
        let strange = strange.map(|(name, urls)| {
            let urls: Vec<&str> = urls.into_iter().map(String::as_str).collect();
            format!("member {name} ({})", urls.join(", "))
        });
        let mut all: Vec<String> = unread.chain(strange).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Whether systemd units run the control plane of every host, and kubeadm has no part in it.
    pub fn is_units(&self) -> bool {
        !self.hosts.is_empty() && self.hosts.iter().all(|host| host.is_units)
    }

    /// Hosts whose control plane systemd units run.
    pub fn by_units(&self) -> impl Iterator<Item = &ControlPlane<'a>> {
        self.hosts.iter().filter(|host| host.is_units)
    }

    /// The administrator's kubeconfig on a control-plane host: kubeadm's where it made the hosts, else the one that was seen.
    pub fn kubeconfig(&self) -> Option<String> {
        if !self.is_units() {
            return Some(KUBEADM_ADMIN.into());
        }
        let seen = self.hosts.iter().filter_map(|host| host.facts.certificates.known()).find_map(|facts| {
            facts.file("admin.conf").or_else(|| facts.file("super-admin.conf")).map(|file| file.path())
        });
        seen.map(|path| quoted(&path.to_string()))
    }

    /// `kubectl` as a control-plane host has it.
    pub fn kubectl(&self) -> String {
        format!("kubectl --kubeconfig {}", self.kubeconfig().as_deref().unwrap_or(KUBECONFIG))
    }

    /// Nodes that are no control-plane host.
    pub fn workers(&self) -> Vec<&NodeFacts> {
        let nodes = self.inventory.cluster.nodes.known().into_iter().flatten();
        nodes.filter(|node| !self.hosts.iter().any(|host| host.name == node.name)).collect()
    }

    /// Versions of a component that were seen, from the images of its manifests.
    pub fn kubernetes_versions(&self) -> Vec<String> {
        let mut versions: Vec<String> =
            self.hosts.iter().filter_map(|host| host.image_version(Component::KubeApiserver)).collect();
        versions.sort();
        versions.dedup();
        versions
    }

    /// Versions of etcd that answered.
    pub fn etcd_versions(&self) -> Vec<String> {
        let status =
            |host: &ControlPlane<'_>| Some(host.facts.etcd_live.known()?.status.known()?.version.clone());
        let mut versions: Vec<String> = self.hosts.iter().filter_map(status).collect();
        versions.sort();
        versions.dedup();
        versions
    }
}

impl ControlPlane<'_> {
    /// Where to type its commands.
    pub fn place(&self) -> String {
        if self.facts.id.is_local() {
            self.name.clone()
        } else {
            format!("{} ({})", self.name, self.facts.id)
        }
    }

    /// The unit that runs a component, as a shell takes it; its usual name where none was seen.
    pub fn unit(&self, component: Component) -> String {
        let seen = self.facts.unit_of(component).unwrap_or(component.name());
        quoted(seen.strip_suffix(".service").unwrap_or(seen))
    }

    /// The units of the control plane, in the order they are started.
    pub fn units(&self) -> Vec<String> {
        Component::ALL.iter().map(|one| self.unit(*one)).collect()
    }

    fn image_version(&self, component: Component) -> Option<String> {
        let text = &self.facts.manifest(component)?.text;
        let image = text.lines().find_map(|line| line.trim().strip_prefix("image:"))?;
        let (_, tag) = image.trim().trim_matches(['"', '\'']).rsplit_once(':')?;
        Some(tag.to_owned())
    }
}

/// A word for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:=,@%+-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Commands are pasted into a root shell: a name with a blank or worse stays one word.
    #[test]
    fn words_stay_words() {
        assert_eq!(quoted("root@10.0.0.11"), "root@10.0.0.11");
        assert_eq!(quoted("a b; rm -rf /"), "'a b; rm -rf /'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
