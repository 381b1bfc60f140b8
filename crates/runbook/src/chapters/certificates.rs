//! Certificates that have expired: by kubeadm where it made the hosts, by openssl where units run the control plane.

use super::{Chapter, UNDO, verify_all};
use crate::by_hand;
use crate::site::{ControlPlane, Site, quoted};
use rekindle_model::certificate::{CertificateFile, CertificatePlace, KeyState};
use rekindle_model::host::Component;

/// What `/etc/kubernetes` was before its certificates were renewed by hand.
const BEFORE: &str = "/etc/kubernetes.before-renewal";

/// Makes a certificate anew with its own key, under the same names, unless it has thirty days left: so pasted twice it does
/// no harm, and what is kept is always the one that was ending. Arguments: the certificate and its key, its authority's two.
/// `-copy_extensions` came with OpenSSL 3.0.
const ANEW: &str = r#"anew() {
  openssl x509 -checkend 2592000 -noout -in "$1" && return
  cp -a "$1" "$1.old" &&
  openssl x509 -x509toreq -in "$1.old" -signkey "$2" -copy_extensions copyall -out "$1.req" &&
  openssl x509 -req -in "$1.req" -CA "$3" -CAkey "$4" -copy_extensions copyall \
    -set_serial "0x$(openssl rand -hex 16)" -days 365 -out "$1.new" &&
  cat "$1.new" > "$1" && rm "$1.new" "$1.req"
}
"#;

/// The same for the one inside a kubeconfig. Arguments: that, and the authority's two.
const ANEW_IN: &str = r#"anew_in() { (
  umask 077; dir=$(mktemp -d); trap 'rm -r "$dir"' EXIT
  view() { kubectl --kubeconfig "$config" config view --raw --minify -o "jsonpath={.users[0].$1}"; }
  config=$1; view user.client-certificate-data | base64 -d > "$dir/crt"; view user.client-key-data | base64 -d > "$dir/key"
  anew "$dir/crt" "$dir/key" "$2" "$3"; [ -e "$dir/crt.old" ] || exit 0
  cp -a "$1" "$1.old" &&
  kubectl --kubeconfig "$1" config set-credentials "$(view name)" --embed-certs --client-certificate="$dir/crt" --client-key="$dir/key"
) }
"#;

pub(super) fn expired(site: &Site<'_>) -> Chapter {
    let mut by_hand: Vec<(String, String)> = Vec::new();
    for host in &site.hosts {
        by_hand.extend(if host.is_units { with_openssl(host) } else { with_kubeadm(host) });
    }
    if !site.is_units() {
        by_hand.push((
            "Where the kubelet's own client certificate has expired, too, on that node, with the files of a control-plane host:".into(),
            "kubeadm kubeconfig user --org system:nodes --client-name system:node:NODE > kubelet.conf &&\n\
             mv -n /etc/kubernetes/kubelet.conf /etc/kubernetes/kubelet.conf.old && mv -n kubelet.conf /etc/kubernetes/ &&\n\
             systemctl restart kubelet\n"
                .into(),
        ));
    }
    let hosts = site.host_flags();
    let check = if site.is_units() { "" } else { "kubeadm certs check-expiration\n" };
    let undo = ("With Rekindle:".to_owned(), UNDO.to_owned());
    let back = site
        .hosts
        .iter()
        .filter_map(|host| if host.is_units { openssl_back(host) } else { kubeadm_back(host) });
    Chapter {
        title: "Certificates have expired",
        looks: vec![
            "`x509: certificate has expired or is not yet valid`".into(),
            "the cluster was off for long, or nobody upgraded it for a year".into(),
        ],
        rekindle: format!(
            "rekindle certs check{hosts}\nrekindle certs renew --all{hosts} --dry-run\nrekindle certs renew --all{hosts}\n"
        ),
        by_hand,
        verify: format!("{check}{}", verify_all(site)),
        back: [undo].into_iter().chain(back).collect(),
    }
}

fn restart(host: &ControlPlane<'_>) -> String {
    format!("{}{}", by_hand::stop(host), by_hand::start(host))
}

fn with_kubeadm(host: &ControlPlane<'_>) -> Vec<(String, String)> {
    // the copy of a renewal of long ago is none of what is there now
    let renew = format!(
        "[ -z \"$(find {BEFORE} -maxdepth 0 -ctime +0 2>/dev/null)\" ] || mv -T {BEFORE} {BEFORE}.$(date +%s)\n\
         [ -e {BEFORE} ] || cp -a /etc/kubernetes {BEFORE}\n\
         kubeadm certs check-expiration\nkubeadm certs renew all\n"
    );
    vec![(format!("On {}, one host after the other:", host.place()), renew + &restart(host))]
}

fn kubeadm_back(host: &ControlPlane<'_>) -> Option<(String, String)> {
    // containers hold the folder that they were started with: they see the old one when they are started anew
    Some((
        format!("By hand, on {}; only what was renewed by hand has this copy:", host.place()),
        format!(
            "if [ -d {BEFORE} ] && mv -T /etc/kubernetes /etc/kubernetes.renewed && mv -T {BEFORE} /etc/kubernetes; then\n\
             {}else echo nothing to go back to; fi\n",
            restart(host)
        ),
    ))
}

/// A certificate that can be made anew on its host: its file, and its authority's two.
struct Renewable<'a> {
    file: &'a CertificateFile,
    authority: [String; 2],
}

/// Those of the units' host whose authority and keys are there, as they were seen; kubelet's are its own to make.
fn renewable<'a>(host: &ControlPlane<'a>) -> Vec<Renewable<'a>> {
    let Some(facts) = host.facts.certificates.known() else { return Vec::new() };
    let found = facts.files.iter().filter_map(|file| {
        let authority = facts.file(file.authority.as_deref()?)?;
        let CertificatePlace::Pair { cert, key } = &authority.place else { return None };
        let by_hand =
            !matches!(file.place, CertificatePlace::Link { .. }) && file.certificate.known().is_some();
        let signs = by_hand && authority.key == KeyState::Matches;
        let authority = [cert, key].map(|path| quoted(&path.to_string()));
        signs.then_some(Renewable { file, authority })
    });
    found.collect()
}

fn with_openssl(host: &ControlPlane<'_>) -> Vec<(String, String)> {
    let place = host.place();
    let looked = certificates_of(host);
    let look = if looked.is_empty() {
        format!(
            "journalctl -n 500 --no-pager -u {} -u {} | grep x509\n",
            host.unit(Component::Etcd),
            host.unit(Component::KubeApiserver)
        )
    } else {
        format!(
            "for file in {}; do openssl x509 -noout -subject -enddate -in \"$file\"; done\n",
            looked.join(" ")
        )
    };
    let mut blocks = vec![(format!("On {place}, see which have expired:"), look)];
    let all = renewable(host);
    if all.is_empty() {
        blocks.push((
            format!("On {place}, make those anew with the CA that made them, under the same names. No commands are printed, since its key was not seen. Then:"),
            restart(host),
        ));
        return blocks;
    }
    let has_kubeconfig = all.iter().any(|one| is_kubeconfig(one.file));
    let mut script = format!("{ANEW}{}", if has_kubeconfig { ANEW_IN } else { "" });
    for one in &all {
        let own = match &one.file.place {
            CertificatePlace::Pair { cert, key } => {
                format!("anew {} {}", quoted(&cert.to_string()), quoted(&key.to_string()))
            }
            _ => format!("anew_in {}", quoted(&one.file.path().to_string())),
        };
        script.push_str(&format!("{own} {}\n", one.authority.join(" ")));
    }
    for file in left_out(host, &all) {
        script.push_str(&format!(
            "# not {}: the kubelet's own, or the key of its authority was not seen; `rekindle certs renew` has more ways\n",
            file.path()
        ));
    }
    let text = format!("On {place}, with the CA that made them, each with its own key and names:");
    blocks.push((text, script));
    blocks.push((format!("On {place}, so that they are served:"), restart(host)));
    blocks
}

/// Leaves that no command here makes anew.
fn left_out<'a>(host: &ControlPlane<'a>, all: &[Renewable<'_>]) -> Vec<&'a CertificateFile> {
    let files = host.facts.certificates.known().into_iter().flat_map(|facts| &facts.files);
    let leaves = files.filter(|file| !file.is_authority());
    leaves.filter(|file| !all.iter().any(|one| one.file.name == file.name)).collect()
}

fn is_kubeconfig(file: &CertificateFile) -> bool {
    matches!(file.place, CertificatePlace::Kubeconfig { .. })
}

fn openssl_back(host: &ControlPlane<'_>) -> Option<(String, String)> {
    let files: Vec<String> = renewable(host).iter().map(|one| quoted(&one.file.path().to_string())).collect();
    (!files.is_empty()).then(|| {
        (
            format!("By hand, on {}; only what was renewed by hand has this copy:", host.place()),
            format!(
                "for file in {}; do [ ! -e \"$file.old\" ] || mv -T \"$file.old\" \"$file\"; done\n{}",
                files.join(" "),
                restart(host)
            ),
        )
    })
}

/// Certificates in files of their own: those that were seen, and those that the units' command lines name.
pub(super) fn certificates_of(host: &ControlPlane<'_>) -> Vec<String> {
    let units = Component::ALL.iter().filter_map(|one| host.facts.unit(host.facts.unit_of(*one)?));
    let words = units.flat_map(|unit| unit.exec_start.iter());
    let named = words
        .filter_map(|word| word.split_once('='))
        .filter(|(_, value)| value.ends_with(".crt") || value.ends_with(".pem"));
    let named = named.filter(|(flag, _)| !flag.ends_with("key-file")).map(|(_, value)| quoted(value));
    let seen = host.facts.certificates.known().into_iter().flat_map(|facts| &facts.files);
    let seen = seen.filter(|file| !is_kubeconfig(file)).map(|file| quoted(&file.path().to_string()));
    let mut files: Vec<String> = named.chain(seen).collect();
    files.sort();
    files.dedup();
    files
}
