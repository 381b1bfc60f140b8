//! Certificates of this machine: read where kubeadm and kubelet keep them, asked of its ports, made anew. The bytes are
//! `rekindle-pki`'s; here are files and sockets. Private keys are read and written here, and never told.

use super::{durable, files, paths::Root};
use crate::fault::{Fault, Outcome};
use crate::host::{Reply, Request};
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::certificate::{
    CertificateFacts, CertificateFile, CertificatePlace, KeyPairFacts, KeyState, Move, Renewal,
    ServedCertificate,
};
use rekindle_model::seen::chain;
use rekindle_model::{HostPath, Redacted, Seen};
use rekindle_pki::{kubeconfig, read, renew};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// Larger than any file with certificates.
const MAX_BYTES: u64 = 4 << 20;
const KUBERNETES: &str = "/etc/kubernetes";
const KUBELET_PKI: &str = "/var/lib/kubelet/pki";

/// kubeadm's authorities: name, file without its ending.
const AUTHORITIES: [(&str, &str); 3] =
    [("ca", "ca"), ("etcd-ca", "etcd/ca"), ("front-proxy-ca", "front-proxy-ca")];

/// kubeadm's certificates: name, file without its ending, authority (kubeadm `phases/certs/certlist.go`).
const PAIRS: [(&str, &str, &str); 7] = [
    ("apiserver", "apiserver", "ca"),
    ("apiserver-kubelet-client", "apiserver-kubelet-client", "ca"),
    ("apiserver-etcd-client", "apiserver-etcd-client", "etcd-ca"),
    ("etcd-server", "etcd/server", "etcd-ca"),
    ("etcd-peer", "etcd/peer", "etcd-ca"),
    ("etcd-healthcheck-client", "etcd/healthcheck-client", "etcd-ca"),
    ("front-proxy-client", "front-proxy-client", "front-proxy-ca"),
];

/// Kubeconfigs that hold a client certificate; that of the kubelet only where it does not name kubelet's own file.
const KUBECONFIGS: [&str; 5] =
    ["admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf", "kubelet.conf"];

pub(super) fn answer(root: &Root, request: Request) -> Outcome<Reply> {
    match request {
        Request::Certificates { pki_dir, mut served } => {
            let mut facts = facts(&Files(root), &pki_dir);
            if root.is_running_machine() {
                show(&mut served);
            } else {
                let why = "this is not the running machine's root";
                served.iter_mut().for_each(|one| one.certificate = Seen::Unknown(why.into()));
            }
            facts.served = served;
            Ok(Reply::Certificates(Box::new(facts)))
        }
        Request::RequestCertificates { renewals } => {
            each(&renewals, |renewal| requested(&Files(root), renewal)).map(Reply::Pems)
        }
        Request::SignCertificates { renewals, requests } => {
            each(&renewals, |renewal| signed(&Files(root), renewal, by_name(&requests, &renewal.name)?))
                .map(Reply::Pems)
        }
        Request::StageCertificates { renewals, signed } => {
            for renewal in &renewals {
                let certificate = by_name(&signed, &renewal.name)?;
                stage(&Files(root), renewal, certificate).map_err(|fault| named(renewal, fault))?;
            }
            Ok(Reply::Done)
        }
        other => Err(Fault::failed(format!("{other:?} was handed to the wrong part of the host"))),
    }
}

/// Asks all ports at once: one whose server hangs takes the whole of its time.
fn show(served: &mut [ServedCertificate]) {
    std::thread::scope(|scope| {
        for one in served {
            scope.spawn(|| one.certificate = crate::tls::served_certificate(&one.address));
        }
    });
}

fn named(renewal: &Renewal, fault: Fault) -> Fault {
    Fault { what: format!("{}: {}", renewal.name, fault.what), ..fault }
}

fn each(renewals: &[Renewal], work: impl Fn(&Renewal) -> Outcome<String>) -> Outcome<Vec<(String, String)>> {
    let one = |renewal: &Renewal| {
        let pem = work(renewal).map_err(|fault| named(renewal, fault))?;
        Ok((renewal.name.clone(), pem))
    };
    renewals.iter().map(one).collect()
}

fn by_name<'p>(pems: &'p [(String, String)], name: &str) -> Outcome<&'p str> {
    let found = pems.iter().find(|(of, _)| of == name).map(|(_, pem)| pem.as_str());
    found.ok_or_else(|| Fault::failed(format!("{name}: nothing was given for it")))
}

fn bad(path: &Utf8Path) -> impl Fn(rekindle_pki::Error) -> Fault {
    move |error| Fault::failed(format!("{path}: {}", chain(&error)))
}

/// Files of the host, below its root.
struct Files<'r>(&'r Root);

impl Files<'_> {
    /// Where a path lies; a link of the host may name a path of the host.
    fn place(&self, path: &HostPath) -> Outcome<Utf8PathBuf> {
        let place = self.0.resolve(path)?;
        match place.read_link_utf8() {
            Ok(target) if target.is_absolute() => self.0.resolve(&HostPath(target)),
            _ => Ok(place),
        }
    }

    fn read(&self, path: &HostPath) -> Outcome<Redacted<Vec<u8>>> {
        files::read(&self.place(path)?, MAX_BYTES, false).map(Redacted::new)
    }

    fn exists(&self, path: &HostPath) -> bool {
        self.place(path).is_ok_and(|place| place.exists())
    }

    fn write(&self, path: &HostPath, content: &[u8]) -> Outcome<()> {
        let place = self.0.resolve(path)?;
        durable::write(&place, &Utf8PathBuf::from(format!("{place}.part")), content, durable::PRIVATE_FILE)
    }

    /// The old file of a move: in its place, or in the second call of an interrupted one aside already. What a link leads to.
    fn old(&self, part: &Move) -> Option<Metadata> {
        let mut paths = part.old.iter().chain([&part.place]);
        paths.find_map(|path| self.place(path).ok()?.metadata().ok())
    }

    /// Writes a new file with owner, group and mode of the old one: who could read it reads it, and nobody else. Without an
    /// old one it is private, to the owner of the last file of the renewal (its certificate, what its link leads to).
    fn write_as_old(&self, renewal: &Renewal, part: &Move, content: &[u8]) -> Outcome<()> {
        let Some(new) = &part.new else { return Ok(()) };
        self.write(new, content)?;
        let old = self.old(part);
        let mode = old.as_ref().map_or(durable::PRIVATE_FILE, MetadataExt::mode);
        match old.or_else(|| renewal.moves().iter().rev().find_map(|part| self.old(part))) {
            Some(like) => durable::give(&self.0.resolve(new)?, (like.uid(), like.gid()), mode),
            None => Ok(()),
        }
    }
}

fn facts(files: &Files<'_>, pki_dir: &HostPath) -> CertificateFacts {
    let mut found = CertificateFacts { pki_dir: pki_dir.clone(), ..CertificateFacts::default() };
    let pair = |dir: &HostPath, base: &str| CertificatePlace::Pair {
        cert: dir.join(format!("{base}.crt")),
        key: dir.join(format!("{base}.key")),
    };
    for (name, base) in AUTHORITIES {
        found.files.extend(look(files, pki_dir, name, pair(pki_dir, base), None));
    }
    for (name, base, authority) in PAIRS {
        found.files.extend(look(files, pki_dir, name, pair(pki_dir, base), Some(authority)));
    }
    for name in KUBECONFIGS {
        let place = CertificatePlace::Kubeconfig { path: HostPath::from(KUBERNETES).join(name) };
        found.files.extend(look(files, pki_dir, name, place, Some("ca")));
    }
    let kubelet = HostPath::from(KUBELET_PKI);
    for name in ["kubelet-client", "kubelet-server"] {
        let place = CertificatePlace::Link { current: kubelet.join(format!("{name}-current.pem")) };
        found.files.extend(look(files, pki_dir, name, place, Some("ca")));
    }
    found.files.extend(look(files, pki_dir, "kubelet-serving", pair(&kubelet, "kubelet"), None));
    found.service_account = service_account(files, pki_dir);
    found
}

/// One certificate; none when there is no such file and nothing of it, or (kubelet's kubeconfig) when it holds none.
fn look(
    files: &Files<'_>,
    pki_dir: &HostPath,
    name: &str,
    place: CertificatePlace,
    authority: Option<&str>,
) -> Option<CertificateFile> {
    let mut file = CertificateFile {
        name: name.into(),
        place,
        authority: authority.map(str::to_owned),
        certificate: Seen::default(),
        key: KeyState::Missing,
        signed_by_authority: None,
    };
    if !files.exists(file.path()) {
        file.certificate = Seen::Unknown(format!("{} does not exist", file.path()));
        return left_behind(files, &file).then_some(file);
    }
    let (der, half) = match contents(files, &file.place) {
        Ok(Some(contents)) => contents,
        Ok(None) => return None,
        Err(fault) => {
            file.certificate = Seen::Unknown(fault.what);
            return Some(file);
        }
    };
    match read::certificate(&der) {
        Ok(certificate) => {
            file.key = match half {
                Ok(Some(half)) if half == certificate.public_key_sha256 => KeyState::Matches,
                Ok(Some(_)) => KeyState::Differs,
                Ok(None) => KeyState::Missing,
                Err(fault) => KeyState::Unreadable(fault.what),
            };
            file.certificate = Seen::Known(certificate);
        }
        Err(error) => {
            let told = bad(file.path())(error).what;
            file.certificate = Seen::Unknown(told);
        }
    }
    let signer = AUTHORITIES.iter().find(|(name, _)| Some(*name) == authority);
    file.signed_by_authority = signer.and_then(|(_, base)| {
        let signer = files.read(&pki_dir.join(format!("{base}.crt"))).ok()?;
        read::is_signed_by(&der, &read::first_certificate(signer.expose()).ok()?).ok()
    });
    Some(file)
}

/// Whether something shows that a certificate that is not there should be: its key, or a link to it. The kubelet makes its
/// own pair anew when either file is gone.
fn left_behind(files: &Files<'_>, file: &CertificateFile) -> bool {
    match &file.place {
        CertificatePlace::Pair { key, .. } => file.name != "kubelet-serving" && files.exists(key),
        CertificatePlace::Kubeconfig { .. } => false,
        CertificatePlace::Link { current } => {
            files.0.resolve(current).is_ok_and(|link| link.symlink_metadata().is_ok())
        }
    }
}

/// DER of the certificate, and the digest of its key's public half.
type Contents = (Vec<u8>, Outcome<Option<String>>);

fn contents(files: &Files<'_>, place: &CertificatePlace) -> Outcome<Option<Contents>> {
    match place {
        CertificatePlace::Pair { cert, key } => {
            let der = read::first_certificate(files.read(cert)?.expose()).map_err(bad(cert))?;
            let half = if files.exists(key) {
                files.read(key).and_then(|text| half(key, text.expose())).map(Some)
            } else {
                Ok(None)
            };
            Ok(Some((der, half)))
        }
        CertificatePlace::Link { current } => {
            let text = files.read(current)?;
            let der = read::first_certificate(text.expose()).map_err(bad(current))?;
            Ok(Some((der, half(current, text.expose()).map(Some))))
        }
        CertificatePlace::Kubeconfig { path } => {
            let text = files.read(path)?;
            match kubeconfig::identity(&String::from_utf8_lossy(text.expose())) {
                Ok(identity) => {
                    let der = read::first_certificate(&identity.certificate).map_err(bad(path))?;
                    Ok(Some((der, half(path, identity.key.expose()).map(Some))))
                }
                Err(rekindle_pki::Error::NoIdentity(_)) => Ok(None),
                Err(error) => Err(bad(path)(error)),
            }
        }
    }
}

fn half(path: &Utf8Path, text: &[u8]) -> Outcome<String> {
    read::public_half_sha256(text).map_err(bad(path))
}

fn service_account(files: &Files<'_>, pki_dir: &HostPath) -> Option<KeyPairFacts> {
    let (public, private) = (pki_dir.join("sa.pub"), pki_dir.join("sa.key"));
    if !files.exists(&public) && !files.exists(&private) {
        return None;
    }
    let seen = |digest: Outcome<String>| match digest {
        Ok(digest) => Seen::Known(digest),
        Err(fault) => Seen::Unknown(fault.what),
    };
    let of_public =
        files.read(&public).and_then(|text| read::public_key_sha256(text.expose()).map_err(bad(&public)));
    let of_private = files.read(&private).and_then(|text| half(&private, text.expose()));
    Some(KeyPairFacts {
        path: public.clone(),
        public_sha256: seen(of_public),
        of_private_sha256: seen(of_private),
    })
}

/// The old certificate's DER, when it is still the one that the plan saw.
fn old_der(files: &Files<'_>, renewal: &Renewal) -> Outcome<Vec<u8>> {
    let contents = contents(files, &renewal.place)?;
    let (der, _) = contents.ok_or_else(|| Fault::not_found("there is no certificate any more"))?;
    let found = read::certificate(&der).map_err(|e| Fault::failed(chain(&e)))?;
    if found.sha256 != renewal.old.sha256 {
        return Err(Fault::refused("the certificate is not the one that the plan saw"));
    }
    Ok(der)
}

/// The request for a new key, which is made unless an earlier call has made it; behind it the old certificate, by which
/// another host's authority proves what it had signed.
fn requested(files: &Files<'_>, renewal: &Renewal) -> Outcome<String> {
    let path = renewal.key_path();
    let key = if files.exists(&path) {
        Redacted::new(String::from_utf8_lossy(files.read(&path)?.expose()).into_owned())
    } else {
        let key = renew::new_key(&renewal.old.key_kind).map_err(|e| Fault::failed(chain(&e)))?;
        files.write(&path, key.expose().as_bytes())?;
        key
    };
    let der = old_der(files, renewal)?;
    let request = renew::request(&der, &renewal.added_names, &key).map_err(|e| Fault::failed(chain(&e)))?;
    Ok(request + &rekindle_pki::certificate_pem(&der))
}

fn signed(files: &Files<'_>, renewal: &Renewal, request: &str) -> Outcome<String> {
    let authority = files.read(&renewal.authority_cert)?;
    let key = files.read(&renewal.authority_key)?;
    renew::sign(renewal, request, authority.expose(), &key)
        .map_err(|error| Fault::refused(format!("{}: {}", renewal.authority_cert, chain(&error))))
}

/// Writes the files of [`Renewal::moves`] that come into place. The same call writes the same again.
fn stage(files: &Files<'_>, renewal: &Renewal, certificate: &str) -> Outcome<()> {
    let key = files.read(&renewal.key_path())?;
    let half = half(&renewal.key_path(), key.expose())?;
    let der = read::first_certificate(certificate.as_bytes()).map_err(|e| Fault::failed(chain(&e)))?;
    let made = read::certificate(&der).map_err(|e| Fault::failed(chain(&e)))?;
    if made.public_key_sha256 != half {
        return Err(Fault::refused("the signed certificate is not for the key made here"));
    }
    let key_text = Redacted::new(String::from_utf8_lossy(key.expose()).into_owned());
    for part in renewal.moves() {
        let Some(new) = &part.new else { continue };
        match &renewal.place {
            CertificatePlace::Pair { cert, .. } if &part.place == cert => {
                files.write_as_old(renewal, &part, certificate.as_bytes())?;
            }
            CertificatePlace::Pair { .. } => {
                files.write_as_old(renewal, &part, key_text.expose().as_bytes())?;
            }
            CertificatePlace::Kubeconfig { path } => {
                // In the second call of an interrupted one the old text may lie aside already.
                let old = part.old.as_ref().filter(|old| files.exists(old)).unwrap_or(path);
                let text = files.read(old)?;
                let text = String::from_utf8_lossy(text.expose()).into_owned();
                let text = kubeconfig::with_identity(&text, certificate, &key_text).map_err(bad(path))?;
                files.write_as_old(renewal, &part, text.expose().as_bytes())?;
            }
            CertificatePlace::Link { current } if &part.place == current => {
                let behind = renewal.behind.as_ref().ok_or_else(|| Fault::failed("nothing to link to"))?;
                durable::link(behind, &files.0.resolve(new)?)?;
            }
            CertificatePlace::Link { .. } => {
                let both = Redacted::new(format!("{certificate}{}", key_text.expose()));
                files.write_as_old(renewal, &part, both.expose().as_bytes())?;
            }
        }
    }
    Ok(())
}
