//! What is renewed on a host, by whose key, and who has to be restarted for it.

use super::Renew;
use super::identity::own_node;
use crate::paths::aside_in;
use crate::survey::Context;
use rekindle_model::certificate::{
    Certificate, CertificateFacts, CertificateFile, CertificatePlace, KeyState, Renewal,
};
use rekindle_model::host::{Component, HostFacts, Layout, UnitFacts};
use rekindle_model::{HostId, HostPath, Seen};

/// New certificates begin a little earlier, for clocks that are behind.
const BACKDATE_S: i64 = 300;

/// A shorter life than this is not made.
const SHORTEST_S: i64 = 3_600;

/// The pair that kubelet signs itself.
pub(super) const KUBELET_SERVING: &str = "kubelet-serving";

/// What is done on one host.
pub(super) struct Work<'a> {
    pub(super) host: &'a HostFacts,
    pub(super) facts: &'a CertificateFacts,
    /// Each with the host that signs it.
    pub(super) renewals: Vec<(HostId, Renewal)>,
    pub(super) set_aside: Vec<(HostPath, HostPath)>,
    pub(super) components: Vec<Component>,
    pub(super) kubelet: bool,
}

impl Work<'_> {
    /// Notes who reads a certificate only when it starts.
    fn uses(&mut self, name: &str) {
        let component = match name {
            "etcd-server" | "etcd-peer" => Component::Etcd,
            "apiserver" | "apiserver-kubelet-client" | "apiserver-etcd-client" | "front-proxy-client" => {
                Component::KubeApiserver
            }
            "controller-manager.conf" => Component::KubeControllerManager,
            "scheduler.conf" => Component::KubeScheduler,
            "kubelet-client" | "kubelet-server" | "kubelet.conf" => {
                self.kubelet = true;
                return;
            }
            _ => return,
        };
        if !self.components.contains(&component) {
            self.components.push(component);
        }
    }

    pub(super) fn renewals(&self) -> Vec<Renewal> {
        self.renewals.iter().map(|(_, renewal)| renewal.clone()).collect()
    }
}

pub(super) fn reachable<'a>(context: &Context<'a>) -> impl Iterator<Item = &'a HostFacts> {
    let lost = context.inventory.lost_hosts.as_slice();
    context.inventory.hosts.iter().filter(move |h| h.unreachable.is_none() && !lost.contains(&h.id))
}

/// Hosts that were given and of whose certificates nothing is known, each with the reason: a run that passed them over
/// would end as if they were renewed. None when all could be read.
pub(super) fn left_out(context: &Context<'_>) -> Option<String> {
    let given = context.inventory.hosts.iter().filter(|h| !context.is_lost(&h.id));
    let told: Vec<String> = given
        .filter_map(|host| {
            let why = host.unreachable.as_deref().or_else(|| host.certificates.why_unknown())?;
            Some(format!("{}: {why}", host.id))
        })
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// What is to be done on a host; none when nothing.
pub(super) fn work<'a>(
    context: &Context<'a>,
    host: &'a HostFacts,
    wanted: &Renew,
    external: &mut Vec<String>,
) -> Result<Option<Work<'a>>, String> {
    let Some(facts) = host.certificates.known() else { return Ok(None) };
    let mut work = Work {
        host,
        facts,
        renewals: Vec::new(),
        set_aside: Vec::new(),
        components: Vec::new(),
        kubelet: false,
    };
    let now_s = context.inventory.host_now_s(host);
    for file in &facts.files {
        let named = wanted.names.contains(&file.name);
        if !(named || wanted.all) {
            continue;
        }
        let Some(authority) = &file.authority else {
            let ending = file.certificate.known().is_none_or(|c| c.is_ending_at(now_s));
            if file.name == KUBELET_SERVING && (named || ending) {
                work.set_aside.extend(moved_aside(context, file));
                work.kubelet = true;
            }
            continue;
        };
        let old = match &file.certificate {
            Seen::Known(old) => old,
            Seen::Unknown(why) => {
                return Err(format!(
                    "{} on {} can't be read, so nothing tells whom it is for: {why}",
                    file.name, host.id
                ));
            }
        };
        match signer(context, host, authority, file, old) {
            Ok(Signer { by, ca, ca_file, node }) => {
                let renewal = renewal(context, wanted, now_s, facts, file, old, ca, ca_file)?;
                work.renewals.push((by, Renewal { node, ..renewal }));
                work.uses(&file.name);
            }
            Err(why) => external.push(format!("{} on {}: {why}", file.name, host.id)),
        }
    }
    work.components.retain(|component| runs(host, *component));
    // A disk that is looked at under another root has no kubelet to restart.
    work.kubelet &= host.unit("kubelet").is_some_and(UnitFacts::exists);
    let empty = work.renewals.is_empty() && work.set_aside.is_empty();
    Ok((!empty).then_some(work))
}

pub(super) fn runs(host: &HostFacts, component: Component) -> bool {
    match host.layout {
        Layout::Units => host.unit_of(component).is_some(),
        _ => host.manifest(component).is_some(),
    }
}

fn moved_aside(context: &Context<'_>, file: &CertificateFile) -> Vec<(HostPath, HostPath)> {
    let CertificatePlace::Pair { cert, key } = &file.place else { return Vec::new() };
    let aside = |path: &HostPath| {
        let folder = aside_in(path.parent().unwrap_or(path), &context.goal.run_id);
        (path.clone(), folder.join("old").join(path.file_name().unwrap_or("file")))
    };
    let there = [Some(cert), Some(key).filter(|_| file.key != KeyState::Missing)];
    there.into_iter().flatten().map(aside).collect()
}

/// Who signs.
struct Signer<'a> {
    by: HostId,
    ca: &'a Certificate,
    ca_file: &'a CertificateFile,
    /// The node whose identity alone it signs, when it is another host.
    node: Option<String>,
}

/// Who signs: this host, else (for a node's own identity only) another one with the same authority and its key.
fn signer<'a>(
    context: &Context<'a>,
    host: &'a HostFacts,
    authority: &str,
    file: &CertificateFile,
    old: &Certificate,
) -> Result<Signer<'a>, String> {
    let own = host.certificates.known().and_then(|facts| facts.file(authority));
    let own_ca =
        own.and_then(|ca| ca.certificate.known()).ok_or(format!("its authority {authority} is not there"))?;
    let usable = |ca: &CertificateFile, now_s| {
        ca.key == KeyState::Matches && ca.certificate.known().is_some_and(|c| c.is_valid_at(now_s))
    };
    if !own_ca.is_valid_at(context.inventory.host_now_s(host)) {
        return Err(format!("its authority {authority} is not valid any more"));
    }
    if let Some(ca) = own.filter(|ca| usable(ca, context.inventory.host_now_s(host))) {
        return Ok(Signer { by: host.id.clone(), ca: own_ca, ca_file: ca, node: None });
    }
    // No host may have somebody else's identity made for it.
    let is_node = ["kubelet-client", "kubelet-server"].contains(&file.name.as_str());
    let mut others = reachable(context).filter_map(|other| {
        let ca = other.certificates.known()?.file(authority)?;
        let same = ca.certificate.known().is_some_and(|c| c.sha256 == own_ca.sha256);
        (same && usable(ca, context.inventory.host_now_s(other))).then(|| (other.id.clone(), ca))
    });
    match others.next() {
        Some((by, ca_file)) if is_node => {
            let node = Some(own_node(context, host, file, old)?);
            Ok(Signer { by, ca: own_ca, ca_file, node })
        }
        Some((by, ..)) => {
            Err(format!("the key of {authority} is on {by} only; copy it here, or renew it there"))
        }
        None => Err(format!("the key of {authority} is on none of the hosts given (an external authority)")),
    }
}

#[allow(clippy::too_many_arguments)] // what a renewal is made of
fn renewal(
    context: &Context<'_>,
    wanted: &Renew,
    now_s: i64,
    facts: &CertificateFacts,
    file: &CertificateFile,
    old: &Certificate,
    ca: &Certificate,
    ca_file: &CertificateFile,
) -> Result<Renewal, String> {
    let CertificatePlace::Pair { cert: authority_cert, key: authority_key } = &ca_file.place else {
        return Err(format!("{} is no authority with files of its own", ca_file.name));
    };
    let folder = match &file.place {
        CertificatePlace::Pair { .. } => facts.pki_dir.clone(),
        CertificatePlace::Kubeconfig { path } | CertificatePlace::Link { current: path } => {
            HostPath::from(path.parent().unwrap_or(path))
        }
    };
    let behind = match &file.place {
        CertificatePlace::Link { current } => Some(behind(current, &file.name, now_s)),
        _ => None,
    };
    let serves = old.usages.iter().any(|usage| usage == "serverAuth");
    Ok(Renewal {
        name: file.name.clone(),
        place: file.place.clone(),
        old: old.clone(),
        folder: aside_in(&folder, &context.goal.run_id),
        behind,
        not_before_s: now_s.saturating_sub(BACKDATE_S).max(ca.not_before_s),
        not_after_s: now_s.saturating_add(old.lifetime_s().max(SHORTEST_S)).min(ca.not_after_s),
        authority_cert: authority_cert.clone(),
        authority_key: authority_key.clone(),
        authority_sha256: ca.sha256.clone(),
        added_names: if serves { wanted.added_names.clone() } else { Vec::new() },
        node: None,
        key_missing: file.key == KeyState::Missing,
    })
}

/// The file behind kubelet's link, named as kubelet names it (client-go `certificate_store.go`).
fn behind(current: &HostPath, name: &str, now_s: i64) -> HostPath {
    let time = jiff::Timestamp::from_second(now_s).map(|t| t.strftime("%Y-%m-%d-%H-%M-%S").to_string());
    let name = format!("{name}-{}.pem", time.unwrap_or_else(|_| now_s.to_string()));
    HostPath::from(current.with_file_name(name))
}
