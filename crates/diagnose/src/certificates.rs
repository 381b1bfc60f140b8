//! Certificates: within their time, signed by the present authorities, with their keys, the same as served and (service
//! accounts, authorities) the same on all hosts. One finding a host and kind, however many certificates it is about.

use crate::report::{Report, seen_at};
use rekindle_model::certificate::{Certificate, CertificateFacts, CertificateFile, KeyState};
use rekindle_model::finding::{Evidence, Layer};
use rekindle_model::host::{Component, HostFacts};
use rekindle_model::inventory::Inventory;
use rekindle_model::{HostId, Seen};
use std::collections::BTreeMap;

const LAYER: Layer = Layer::Certificates;
const DAY_S: i64 = 86_400;
/// An authority is told this long before its end: to exchange it takes planning.
const AUTHORITY_SOON_S: i64 = 365 * DAY_S;

/// What stops working when a certificate is not valid, for people.
pub fn breaks(name: &str) -> &'static str {
    match name {
        "ca" => "everything: no component trusts another",
        "etcd-ca" => "etcd: neither members nor API servers trust each other",
        "front-proxy-ca" | "front-proxy-client" => "aggregated APIs (metrics and the like)",
        "apiserver" => "all clients refuse the API server on this host",
        "apiserver-kubelet-client" => "logs, exec and port-forward through this API server",
        "apiserver-etcd-client" => "this API server can't read or write: it exits",
        "etcd-server" => "API servers and etcdctl refuse this etcd member",
        "etcd-peer" => "the other members refuse this one: quorum may go",
        "etcd-healthcheck-client" => "health checks of etcd by hand",
        "admin.conf" | "super-admin.conf" => "kubectl with this kubeconfig",
        "controller-manager.conf" => "no controller works: nothing is reconciled",
        "scheduler.conf" => "no new pod gets a node",
        "kubelet-client" | "kubelet.conf" => "the node goes NotReady, its kubelet does not start again",
        "kubelet-server" | "kubelet-serving" => "clients that verify kubelets (metrics-server)",
        _ => "whoever uses it",
    }
}

pub(crate) fn check(inventory: &Inventory, report: &mut Report) {
    let read: Vec<(&HostFacts, &CertificateFacts)> =
        inventory.hosts.iter().filter_map(|host| Some((host, host.certificates.known()?))).collect();
    for host in inventory.hosts.iter().filter(|h| h.unreachable.is_none()) {
        if let Some(why) = host.certificates.why_unknown() {
            report.unknown(LAYER, Some(&host.id), "certificates are valid", why);
        }
    }
    for (host, facts) in read.iter().filter(|(_, facts)| !facts.files.is_empty()) {
        let now_s = inventory.host_now_s(host);
        let whole = readable(host, facts, report);
        validity(host, facts, now_s, whole, report);
        signatures(host, facts, whole, report);
        keys(host, facts, whole, report);
        served(host, facts, report);
        addresses(host, facts, report);
    }
    service_accounts(&read, report);
    authorities(&read, report);
}

fn known(facts: &CertificateFacts) -> impl Iterator<Item = (&CertificateFile, &Certificate)> {
    facts.files.iter().filter_map(|file| Some((file, file.certificate.known()?)))
}

fn date(at_s: i64) -> String {
    jiff::Timestamp::from_second(at_s).map_or_else(|_| at_s.to_string(), |time| time.to_string())
}

fn ends(host: &HostId, file: &CertificateFile, certificate: &Certificate, now_s: i64) -> Evidence {
    let days = certificate.not_after_s.saturating_sub(now_s).div_euclid(DAY_S);
    let told = match days {
        _ if now_s < certificate.not_before_s => {
            format!("not valid before {}", date(certificate.not_before_s))
        }
        ..0 => format!("expired {} ({} days ago)", date(certificate.not_after_s), -days),
        _ => format!("expires {} (in {days} days)", date(certificate.not_after_s)),
    };
    seen_at(host, file.path(), format!("{}: {told}; breaks: {}", file.name, breaks(&file.name)))
}

/// One finding over several certificates.
fn found(
    code: &'static str,
    host: &HostFacts,
    title: &str,
    (one_does, many_do): (&str, &str),
    about: &[(String, Evidence)],
    report: &mut Report,
) {
    let mut evidence = about.iter().map(|(_, evidence)| evidence.clone());
    let Some(first) = evidence.next() else { return };
    let names: Vec<&str> = about.iter().map(|(name, _)| name.as_str()).collect();
    let summary = match names.as_slice() {
        [one] => format!("{one} on {} {one_does}", host.id),
        all => format!("{} {many_do} on {}: {}", all.len(), host.id, all.join(", ")),
    };
    report.found(code, Some(&host.id), title, summary, first, evidence.collect());
}

/// Whether each certificate and each leaf's key is there and can be read; what can't be is not judged further.
fn readable(host: &HostFacts, facts: &CertificateFacts, report: &mut Report) -> bool {
    let title = "certificates and their keys can be read";
    let why = |file: &CertificateFile| match (&file.certificate, &file.key) {
        (Seen::Unknown(why), _) => Some(why.clone()),
        (Seen::Known(_), KeyState::Unreadable(why)) => Some(format!("its key: {why}")),
        (Seen::Known(_), KeyState::Missing) if file.authority.is_some() => {
            Some("its key does not exist".to_owned())
        }
        _ => None,
    };
    let unread: Vec<(String, Evidence)> = facts
        .files
        .iter()
        .filter_map(|file| {
            let told = format!("{}; breaks: {}", why(file)?, breaks(&file.name));
            Some((file.name.clone(), seen_at(&host.id, file.path(), told)))
        })
        .collect();
    if unread.is_empty() {
        report.ok(LAYER, Some(&host.id), title, "");
    }
    found(
        "RK-P12",
        host,
        title,
        ("can't be read, or its key", "certificates can't be read, or their keys"),
        &unread,
        report,
    );
    unread.is_empty()
}

fn validity(host: &HostFacts, facts: &CertificateFacts, now_s: i64, whole: bool, report: &mut Report) {
    let mut sorted: Vec<_> = known(facts).collect();
    sorted.sort_by_key(|(_, certificate)| certificate.not_after_s);
    let pick = |wanted: &dyn Fn(&CertificateFile, &Certificate) -> bool| -> Vec<(String, Evidence)> {
        let picked = sorted.iter().filter(|(file, certificate)| wanted(file, certificate));
        picked.map(|(f, c)| (f.name.clone(), ends(&host.id, f, c, now_s))).collect()
    };
    let invalid = |c: &Certificate| !c.is_valid_at(now_s);
    let leaf = |f: &CertificateFile| f.authority.is_some();
    let own = |f: &CertificateFile| !leaf(f) && !f.is_authority();
    let lists = [
        (
            "RK-P09",
            "authorities are within their time",
            ("has expired", "authorities have expired"),
            pick(&|f, c| f.is_authority() && invalid(c)),
        ),
        (
            "RK-P10",
            "authorities are within their time",
            ("expires within a year", "authorities expire within a year"),
            pick(&|f, c| {
                f.is_authority() && !invalid(c) && c.not_after_s.saturating_sub(now_s) < AUTHORITY_SOON_S
            }),
        ),
        (
            "RK-P01",
            "certificates are within their time",
            ("has expired", "certificates have expired"),
            pick(&|f, c| leaf(f) && invalid(c)),
        ),
        (
            "RK-P02",
            "certificates are within their time",
            ("expires soon", "certificates expire soon"),
            pick(&|f, c| leaf(f) && !invalid(c) && c.is_ending_at(now_s)),
        ),
        (
            "RK-P11",
            "kubelet's own certificate is within its time",
            ("has expired", "certificates have expired"),
            pick(&|f, c| own(f) && invalid(c)),
        ),
    ];
    let all_well = whole && lists.iter().all(|(.., about)| about.is_empty());
    for (code, title, what, about) in lists {
        found(code, host, title, what, &about, report);
    }
    if let Some((file, certificate)) = sorted.iter().find(|(file, _)| leaf(file)).filter(|_| all_well) {
        let detail = format!("{}, the first to end, expires {}", file.name, date(certificate.not_after_s));
        report.ok(LAYER, Some(&host.id), "certificates are within their time", detail);
    }
}

fn signatures(host: &HostFacts, facts: &CertificateFacts, whole: bool, report: &mut Report) {
    let title = "certificates are signed by the present authorities";
    let of_others: Vec<(String, Evidence)> = known(facts)
        .filter(|(file, _)| file.signed_by_authority == Some(false))
        .map(|(file, c)| {
            let signer = file.authority.as_deref().unwrap_or_default();
            let told = format!("issued by {}, not by the {signer} of this host", c.issuer);
            (file.name.clone(), seen_at(&host.id, file.path(), told))
        })
        .collect();
    if whole && of_others.is_empty() {
        report.ok(LAYER, Some(&host.id), title, "");
    }
    found(
        "RK-P03",
        host,
        title,
        ("is not signed by the present authority", "certificates are not signed by the present authorities"),
        &of_others,
        report,
    );
}

fn keys(host: &HostFacts, facts: &CertificateFacts, whole: bool, report: &mut Report) {
    let title = "keys belong to their certificates";
    let others: Vec<(String, Evidence)> = known(facts)
        .filter(|(file, _)| file.key == KeyState::Differs)
        .map(|(file, c)| {
            let told =
                format!("certificate for key {}, the key there is another", short(&c.public_key_sha256));
            (file.name.clone(), seen_at(&host.id, file.path(), told))
        })
        .collect();
    if whole && others.is_empty() {
        report.ok(LAYER, Some(&host.id), title, "");
    }
    found(
        "RK-P04",
        host,
        title,
        ("has the key of another certificate", "certificates have keys of others"),
        &others,
        report,
    );
}

fn short(digest: &str) -> &str {
    digest.get(..16).unwrap_or(digest)
}

fn served(host: &HostFacts, facts: &CertificateFacts, report: &mut Report) {
    let title = "ports serve the certificates in the files";
    let mut old = Vec::new();
    let mut looked = false;
    for one in facts.served.iter().filter(|one| !one.names.is_empty()) {
        let Seen::Known(shown) = &one.certificate else { continue };
        let mut files = known(facts).filter(|(file, _)| one.names.contains(&file.name)).peekable();
        if files.peek().is_none() {
            continue;
        }
        looked = true;
        if files.all(|(_, c)| c.sha256 != shown.sha256) {
            let told = format!("{} serves one that expires {}", one.service, date(shown.not_after_s));
            old.push((one.service.clone(), seen_at(&host.id, &one.address, told)));
        }
    }
    if looked && old.is_empty() {
        report.ok(LAYER, Some(&host.id), title, "");
    }
    found(
        "RK-P05",
        host,
        title,
        ("serves another certificate than its file holds", "ports serve others than their files hold"),
        &old,
        report,
    );
}

/// The address each server certificate must be for: the one its own flags announce.
fn addresses(host: &HostFacts, facts: &CertificateFacts, report: &mut Report) {
    let title = "certificates are for the addresses they are served on";
    let api = host.manifest(Component::KubeApiserver).and_then(|manifest| {
        manifest.command.iter().find_map(|word| word.strip_prefix("--advertise-address="))
    });
    let etcd = host.etcd_config.known();
    let of_urls = |urls: Option<&Vec<String>>| urls.and_then(|urls| host_of(urls.first()?));
    let wanted = [
        ("apiserver", api.map(str::to_owned)),
        ("etcd-server", of_urls(etcd.map(|e| &e.client_urls))),
        ("etcd-peer", of_urls(etcd.map(|e| &e.peer_urls))),
    ];
    let mut lacking = Vec::new();
    for (name, address) in wanted {
        let (Some(address), Some(file)) = (address, facts.file(name)) else { continue };
        let Some(certificate) = file.certificate.known() else { continue };
        if !certificate.ip_addresses.contains(&address) && !certificate.dns_names.contains(&address) {
            let names: Vec<&str> =
                certificate.dns_names.iter().chain(&certificate.ip_addresses).map(String::as_str).collect();
            let told = format!("it is for {}, not for {address}", names.join(", "));
            lacking.push((name.to_owned(), seen_at(&host.id, file.path(), told)));
        }
    }
    found(
        "RK-P07",
        host,
        title,
        (
            "is not for the address it is served on",
            "certificates are not for the addresses they are served on",
        ),
        &lacking,
        report,
    );
}

fn host_of(url: &str) -> Option<String> {
    let (host, _) = url.split_once("://")?.1.trim_end_matches('/').rsplit_once(':')?;
    Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn service_accounts(read: &[(&HostFacts, &CertificateFacts)], report: &mut Report) {
    let title = "service-account keys are the same on all hosts";
    let mut by_digest: BTreeMap<&str, Vec<Evidence>> = BTreeMap::new();
    for (host, facts) in read {
        let Some(pair) = &facts.service_account else { continue };
        for (what, digest) in [("sa.pub", &pair.public_sha256), ("sa.key", &pair.of_private_sha256)] {
            if let Seen::Known(digest) = digest {
                let path = pair.path.with_file_name(what);
                let told = format!("public key {}", short(digest));
                by_digest.entry(digest).or_default().push(seen_at(&host.id, path, told));
            }
        }
    }
    if by_digest.len() == 1 {
        report.ok(LAYER, None, title, "");
    }
    differing("RK-P06", title, "service-account keys differ", by_digest, report);
}

fn authorities(read: &[(&HostFacts, &CertificateFacts)], report: &mut Report) {
    let title = "authorities are the same on all hosts";
    let mut same = false;
    for name in ["ca", "etcd-ca", "front-proxy-ca"] {
        let mut by_digest: BTreeMap<&str, Vec<Evidence>> = BTreeMap::new();
        for (host, facts) in read {
            let Some((file, c)) = facts.file(name).and_then(|f| Some((f, f.certificate.known()?))) else {
                continue;
            };
            let told = format!("{}, SHA-256 {}", c.subject, short(&c.sha256));
            by_digest.entry(c.sha256.as_str()).or_default().push(seen_at(&host.id, file.path(), told));
        }
        same |= by_digest.len() == 1 && read.len() > 1;
        differing("RK-P08", title, &format!("the certificates of {name} differ"), by_digest, report);
    }
    if same && !report.has("RK-P08", None) {
        report.ok(LAYER, None, title, "");
    }
}

fn differing(
    code: &'static str,
    title: &str,
    what: &str,
    by_digest: BTreeMap<&str, Vec<Evidence>>,
    report: &mut Report,
) {
    if by_digest.len() < 2 {
        return;
    }
    let mut evidence = by_digest.into_values().flatten();
    let Some(first) = evidence.next() else { return };
    report.found(code, None, title, format!("{what} between hosts or files"), first, evidence.collect());
}
