//! etcd and the API server as processes of the sandbox, with certificates that nothing else knows.

use super::native::Native;
use crate::commands::drill::sandbox::Spec;
use crate::connect;
use crate::failure::{Doing, Failure};
use camino::{Utf8Path, Utf8PathBuf};
use http::Method;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rekindle_model::etcd::EtcdEndpoint;
use rekindle_world::cluster::{Cluster, ClusterOptions, Sent};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// So long a process may take to be ready: a large store on a slow disk takes minutes.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(50);
/// Nobody else is in this network.
const ETCD_URL: &str = "http://127.0.0.1:2379";
const API_PORT: u16 = 6443;
/// kubeadm's and kube-apiserver's defaults, for a store that does not say.
const SERVICE_RANGE: &str = "10.96.0.0/12";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// An address for documentation (RFC 5737): one must be told, none is used.
const ADVERTISED: &str = "192.0.2.1";
/// Lines of a log that are quoted.
const QUOTED_LINES: usize = 3;

/// A process that ends with this value.
pub(super) struct Process {
    child: Child,
    name: &'static str,
    log: Utf8PathBuf,
}

impl Process {
    fn spawn(name: &'static str, command: &mut Command, folder: &Utf8Path) -> Result<Self, Failure> {
        let (log, failed) = (folder.join(format!("{name}.log")), || format!("{name} can't be started"));
        let file = std::fs::File::create(&log).doing(failed)?;
        command.stdin(Stdio::null()).stdout(file.try_clone().doing(failed)?).stderr(file).kill_on_drop(true);
        Ok(Self { child: command.spawn().doing(failed)?, name, log })
    }

    /// Whether to go on waiting: it has not ended, and there is time.
    fn waits(&mut self, since: Instant, last: Failure) -> Result<(), Failure> {
        let name = self.name;
        let ended = self.child.try_wait().doing(|| format!("{name} is not known"))?;
        let what = match ended {
            Some(status) => format!("{name} ended with {status}"),
            None if since.elapsed() > PATIENCE => {
                format!("{name} is not ready after {} s", PATIENCE.as_secs())
            }
            None => return Ok(()),
        };
        Err(Failure::new(what).because(self.last_words().unwrap_or_else(|| last.line())))
    }

    fn last_words(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.log).ok()?;
        let lines: Vec<&str> = text.lines().rev().take(QUOTED_LINES).collect();
        let quoted = lines.into_iter().rev().map(|line| line.chars().take(400).collect::<String>());
        Some(quoted.collect::<Vec<_>>().join(" | ")).filter(|text| !text.is_empty())
    }
}

/// Boots etcd from the restored data dir and compares its HashKV; its version.
pub(super) async fn etcd(spec: &Spec) -> Result<(Process, String), Failure> {
    let mut command = Command::new(&spec.etcd);
    command.args([
        "--name",
        super::super::MEMBER,
        "--log-level",
        "warn",
        "--data-dir",
        spec.data_dir.as_str(),
    ]);
    command.args(["--listen-client-urls", ETCD_URL, "--advertise-client-urls", ETCD_URL]);
    command.args(["--listen-peer-urls", &spec.peer_url, "--initial-advertise-peer-urls", &spec.peer_url]);
    command.args(["--initial-cluster", &format!("{}={}", super::super::MEMBER, spec.peer_url)]);
    command.args(["--quota-backend-bytes", &(8u64 << 30).to_string()]);
    let mut process = Process::spawn("etcd", &mut command, &spec.folder)?;
    let endpoint = EtcdEndpoint { url: ETCD_URL.into(), cacert: None, cert: None, key: None };
    let (host, since) = (connect::local("/".into()), Instant::now());
    let version = loop {
        match host.etcd_status(&endpoint).await {
            Ok(status) => break status.version,
            Err(error) => process.waits(since, Failure::new("it does not answer").because(error))?,
        }
        tokio::time::sleep(LOOK).await;
    };
    let answer = host.etcd_hash_kv(&endpoint, spec.revision).await;
    let answer = answer.doing(|| "etcd on the restored store does not answer its HashKV".into())?;
    if answer.hash != spec.hash {
        return Err(Failure::new(format!(
            "etcd {version} on the restored store answers HashKV {} at revision {}, expected {}",
            answer.hash, answer.revision, spec.hash
        )));
    }
    Ok((process, version))
}

/// A running API server.
pub(super) struct Api {
    _process: Process,
    pub(super) cluster: Cluster,
    pub(super) kubeconfig: Utf8PathBuf,
    /// `v1.37.2`
    pub(super) version: String,
}

/// Boots an API server on that etcd and waits until it is ready.
pub(super) async fn api_server(spec: &Spec, binary: &Utf8Path, native: &Native) -> Result<Api, Failure> {
    let pki = Pki::create(&spec.folder.join("sandbox-pki")).doing(|| "no certificates can be made".into())?;
    let mut command = Command::new(binary);
    command.args(flags(spec, &pki, native));
    let kubeconfig = pki.kubeconfig().doing(|| "no kubeconfig can be written".into())?;
    let options = ClusterOptions { kubeconfig: Some(kubeconfig.clone()), context: None };
    let cluster = Cluster::connect(&options).await.doing(|| "no way to the restored API server".into())?;
    let mut process = Process::spawn("kube-apiserver", &mut command, &spec.folder)?;
    let since = Instant::now();
    while let Err(error) = cluster.bytes(&Method::GET, "/readyz", Sent::Nothing).await {
        process.waits(since, Failure::new("it is not ready").because(error))?;
        tokio::time::sleep(LOOK).await;
    }
    let version = cluster.get("/version").await.doing(|| "the API server has no version".into())?;
    let version = version.as_ref().and_then(|v| v.get("gitVersion")).and_then(|v| v.as_str());
    let version = format!("kube-apiserver {}", version.unwrap_or("of unknown version"));
    Ok(Api { _process: process, cluster, kubeconfig, version })
}

fn flags(spec: &Spec, pki: &Pki, native: &Native) -> Vec<String> {
    let settings = &spec.settings;
    let (public, private) = match &settings.service_account {
        Some((public, private)) => (public.clone(), private.clone()),
        None => (pki.file("sa.pub"), pki.file("sa.key")),
    };
    let mut flags = vec![
        format!("--etcd-servers={ETCD_URL}"),
        format!("--etcd-prefix={}", settings.etcd_prefix),
        // the restored revision must stay readable
        "--etcd-compaction-interval=0".into(),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={API_PORT}"),
        format!("--advertise-address={ADVERTISED}"),
        "--endpoint-reconciler-type=none".into(),
        // there is no one to ask here, and the user's own checks are to be judged, not kept waiting
        "--disable-admission-plugins=MutatingAdmissionWebhook,ValidatingAdmissionWebhook".into(),
        "--allow-privileged=true".into(),
        "--authorization-mode=RBAC".into(),
        "--profiling=false".into(),
        format!("--tls-cert-file={}", pki.file("apiserver.crt")),
        format!("--tls-private-key-file={}", pki.file("apiserver.key")),
        format!("--client-ca-file={}", pki.file("ca.crt")),
        format!("--service-account-key-file={public}"),
        format!("--service-account-signing-key-file={private}"),
    ];
    let told = |flag: &str| settings.flags.iter().any(|given| given.starts_with(flag));
    if !told("--service-account-issuer=") {
        flags.push(format!("--service-account-issuer={ISSUER}"));
    }
    if !told("--service-cluster-ip-range=") {
        let ranges = native.service_ranges.join(",");
        let ranges = if ranges.is_empty() { SERVICE_RANGE } else { &ranges };
        flags.push(format!("--service-cluster-ip-range={ranges}"));
    }
    flags.extend(settings.flags.iter().cloned());
    flags
        .extend(settings.encryption_config.iter().map(|file| format!("--encryption-provider-config={file}")));
    flags
}

/// A CA of the sandbox's own, a server's and an administrator's certificate, and a pair of service-account keys.
struct Pki {
    dir: Utf8PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

type Made<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

impl Pki {
    fn create(dir: &Utf8Path) -> Made<Self> {
        std::fs::create_dir_all(dir)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "rekindle-drill");
        let key = KeyPair::generate()?;
        write(&dir.join("ca.crt"), &params.self_signed(&key)?.pem())?;
        let pki = Self { dir: dir.to_owned(), issuer: Issuer::new(params, key) };
        pki.issue("apiserver", "kube-apiserver", "", &["kubernetes", "localhost", "127.0.0.1"])?;
        pki.issue("admin", "rekindle-drill", "system:masters", &[])?;
        let accounts = KeyPair::generate()?;
        write(&dir.join("sa.key"), &accounts.serialize_pem())?;
        write(&dir.join("sa.pub"), &accounts.public_key_pem())?;
        Ok(pki)
    }

    fn file(&self, name: &str) -> Utf8PathBuf {
        self.dir.join(name)
    }

    fn issue(&self, file: &str, common_name: &str, group: &str, names: &[&str]) -> Made<()> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let key = KeyPair::generate()?;
        write(&self.file(&format!("{file}.crt")), &params.signed_by(&key, &self.issuer)?.pem())?;
        write(&self.file(&format!("{file}.key")), &key.serialize_pem())
    }

    fn kubeconfig(&self) -> Made<Utf8PathBuf> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: drill\n\
             clusters: [{{name: drill, cluster: {{server: 'https://127.0.0.1:{API_PORT}', certificate-authority: '{}'}}}}]\n\
             users: [{{name: drill, user: {{client-certificate: '{}', client-key: '{}'}}}}]\n\
             contexts: [{{name: drill, context: {{cluster: drill, user: drill}}}}]\n",
            self.file("ca.crt"),
            self.file("admin.crt"),
            self.file("admin.key"),
        );
        let path = self.file("admin.conf");
        write(&path, &text)?;
        Ok(path)
    }
}

fn write(path: &Utf8Path, text: &str) -> Made<()> {
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
