//! A control plane of bare processes on loopback: etcd, kube-apiserver and, where asked, kube-controller-manager,
//! kube-scheduler and kwok, with an administrator's kubeconfig. No root, no hosts: for tests that need a real API but no
//! kubelet. [`crate::fleet`] fills one with nodes and pods.

use crate::{cmd, components, ports};
use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest wait for a server: a loaded machine with a slow disk has taken a minute.
const PATIENCE: Duration = Duration::from_secs(180);

/// How kwok plays a kubelet.
const KWOK: &str = include_str!("../components/kwok/stages.yaml");

/// What is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Also kube-controller-manager: namespaces are emptied and garbage is collected only with it.
    pub controllers: bool,
    /// More flags of the API server.
    pub apiserver: Vec<String>,
    /// More flags of the controller manager.
    pub controller_manager: Vec<String>,
    /// Also kube-scheduler, and kwok, which plays the kubelet of every node: pods are bound, run and end by themselves.
    pub simulated_nodes: Option<Pace>,
}

/// How long simulated pods take to run once they are bound, and to be gone once they are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// No time at all: what takes time is the control plane, and who drains.
    AtOnce,
    /// 1 to 5 s, each pod another time, as kwok's own general stages have it: a kubelet starts and stops containers.
    Kubelet,
}

impl Pace {
    /// The configuration of kwok.
    fn stages(self) -> String {
        let (shortest, longest) = match self {
            Self::AtOnce => ("0", "0"),
            Self::Kubelet => ("1000", "5000"),
        };
        KWOK.replace("SHORTEST_MS", shortest).replace("LONGEST_MS", longest)
    }
}

/// A running control plane; it ends with this value. Its folder is the caller's.
#[derive(Debug)]
pub struct Plane {
    dir: Utf8PathBuf,
    processes: Vec<(&'static str, Child)>,
    /// URL of the API server.
    pub url: String,
    /// Client URL of etcd (plain HTTP).
    pub etcd_url: String,
}

impl Drop for Plane {
    fn drop(&mut self) {
        while let Some((_, mut process)) = self.processes.pop() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Plane {
    /// Starts one in an empty folder and waits until its API server is ready.
    ///
    /// # Errors
    /// When a component is not built (`cargo xtask testbed build`) or does not become ready; the error quotes its log.
    pub fn start(dir: &Utf8Path, options: &Options) -> Result<Self> {
        let pki = Pki::create(&dir.join("pki"))?;
        let port = ports::free();
        let mut plane = Self {
            dir: dir.to_owned(),
            processes: Vec::new(),
            url: format!("https://127.0.0.1:{port}"),
            etcd_url: ports::free_url(),
        };
        plane.start_etcd()?;
        plane.start_apiserver(&pki, port, &options.apiserver)?;
        for (user, group) in [("admin", "system:masters"), ("system:kube-controller-manager", "")] {
            plane.kubeconfig_for(&pki, user, group)?;
        }
        if options.controllers {
            plane.start_controllers(&pki, &options.controller_manager)?;
        }
        if let Some(pace) = options.simulated_nodes {
            plane.kubeconfig_for(&pki, "system:kube-scheduler", "")?;
            plane.start_scheduler()?;
            plane.start_kwok(pace)?;
        }
        Ok(plane)
    }

    pub(crate) fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// The kubeconfig of a member of `system:masters`.
    #[must_use]
    pub fn kubeconfig(&self) -> Utf8PathBuf {
        self.dir.join("admin.conf")
    }

    /// A kubectl with the administrator's kubeconfig, ready for its arguments.
    ///
    /// # Errors
    /// When kubectl is not built.
    pub fn kubectl_command(&self) -> Result<Command> {
        let mut command = cmd::command(components::kubernetes()?.path("kubectl").as_str(), ["--kubeconfig"]);
        command.arg(self.kubeconfig());
        Ok(command)
    }

    /// Runs kubectl, which must succeed; its standard output.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        cmd::run(self.kubectl_command()?.args(args))
    }

    fn spawn(&mut self, name: &'static str, command: &mut Command) -> Result<()> {
        let log = fs::File::create(self.dir.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.processes.push((name, command.spawn().with_context(|| format!("cannot start {name}"))?));
        Ok(())
    }

    fn wait(&mut self, name: &str, url: &str) -> Result<()> {
        let log = self.dir.join(format!("{name}.log"));
        let ready = cmd::wait_for(&format!("{name} answers"), PATIENCE, || {
            for (_, process) in self.processes.iter_mut().filter(|(of, _)| *of == name) {
                ensure!(process.try_wait()?.is_none(), "it has ended");
            }
            cmd::sh("curl", ["-skf", "--max-time", "2", url]).map(Some)
        });
        ready
            .map(|_| ())
            .with_context(|| format!("its log: {}", fs::read_to_string(&log).unwrap_or_default()))
    }

    fn start_etcd(&mut self) -> Result<()> {
        let (url, peer) = (self.etcd_url.clone(), ports::free_url());
        let mut command = Command::new(components::etcd_line("3.6")?.etcd);
        command.args(["--name", "default", "--data-dir", self.dir.join("etcd").as_str()]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        self.spawn("etcd", &mut command)?;
        self.wait("etcd", &format!("{url}/health"))
    }

    fn start_apiserver(&mut self, pki: &Pki, port: u16, more: &[String]) -> Result<()> {
        let sans = ["kubernetes", "kubernetes.default", "localhost", "127.0.0.1", "10.96.0.1"];
        pki.issue("apiserver", "kube-apiserver", "", &sans)?;
        pki.issue("sa", "sa", "", &[])?;
        let file = |name: &str| pki.dir.join(name).into_string();
        let mut command = Command::new(components::kubernetes()?.path("kube-apiserver"));
        command.args(["--bind-address=127.0.0.1", "--authorization-mode=RBAC"]);
        command.args(["--service-cluster-ip-range=10.96.0.0/12", "--anonymous-auth=true"]);
        command.arg("--service-account-issuer=https://kubernetes.default.svc");
        command.args([
            format!("--secure-port={port}"),
            format!("--etcd-servers={}", self.etcd_url),
            format!("--tls-cert-file={}", file("apiserver.crt")),
            format!("--tls-private-key-file={}", file("apiserver.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--service-account-key-file={}", file("sa.crt")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
        ]);
        self.spawn("kube-apiserver", command.args(more))?;
        self.wait("kube-apiserver", &format!("{}/readyz", self.url))
    }

    fn start_controllers(&mut self, pki: &Pki, more: &[String]) -> Result<()> {
        let port = ports::free();
        let kubeconfig = self.dir.join("system:kube-controller-manager.conf");
        let mut command = Command::new(components::kubernetes()?.path("kube-controller-manager"));
        command.args(["--use-service-account-credentials=true", "--leader-elect=false"]);
        command.args([
            format!("--kubeconfig={kubeconfig}"),
            format!("--secure-port={port}"),
            format!("--service-account-private-key-file={}", pki.dir.join("sa.key")),
            format!("--root-ca-file={}", pki.dir.join("ca.crt")),
        ]);
        self.spawn("kube-controller-manager", command.args(more))?;
        self.wait("kube-controller-manager", &format!("https://127.0.0.1:{port}/healthz"))
    }

    fn start_scheduler(&mut self) -> Result<()> {
        let port = ports::free();
        let file = self.dir.join("scheduler.yaml");
        // the rate that a scheduler allows itself by default would be what is measured
        let config = format!(
            "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
             leaderElection: {{leaderElect: false}}\n\
             clientConnection: {{kubeconfig: '{}/system:kube-scheduler.conf', qps: 2000, burst: 4000}}\n",
            self.dir
        );
        fs::write(&file, config).with_context(|| format!("cannot write {file}"))?;
        let mut command = Command::new(components::kubernetes()?.path("kube-scheduler"));
        command.args(["--bind-address=127.0.0.1".to_owned(), format!("--secure-port={port}")]);
        self.spawn("kube-scheduler", command.args(["--config", file.as_str()]))?;
        self.wait("kube-scheduler", &format!("https://127.0.0.1:{port}/healthz"))
    }

    fn start_kwok(&mut self, pace: Pace) -> Result<()> {
        let address = format!("127.0.0.1:{}", ports::free());
        let file = self.dir.join("kwok.yaml");
        fs::write(&file, pace.stages()).with_context(|| format!("cannot write {file}"))?;
        let mut command = Command::new(components::kwok()?.path("kwok"));
        // a configuration in the user's home would be read, too
        command.env("HOME", &self.dir).args(["--config", file.as_str(), "--server-address", &address]);
        self.spawn("kwok", command.args(["--kubeconfig", self.kubeconfig().as_str()]))?;
        self.wait("kwok", &format!("http://{address}/healthz"))
    }

    fn kubeconfig_for(&self, pki: &Pki, user: &str, group: &str) -> Result<()> {
        pki.issue(user, user, group, &[])?;
        let file = |name: &str| pki.dir.join(name).into_string();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: '{}', certificate-authority: '{}'}}}}]\n\
             users: [{{name: test, user: {{client-certificate: '{}', client-key: '{}'}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n",
            self.url,
            file("ca.crt"),
            file(&format!("{user}.crt")),
            file(&format!("{user}.key")),
        );
        let path = self.dir.join(format!("{user}.conf"));
        fs::write(&path, text).with_context(|| format!("cannot write {path}"))
    }
}

/// A CA with certificates as kubeadm makes them.
struct Pki {
    dir: Utf8PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn create(dir: &Utf8Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let key = KeyPair::generate()?;
        fs::write(dir.join("ca.crt"), params.self_signed(&key)?.pem())?;
        Ok(Self { dir: dir.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// `FILE.crt` and `FILE.key`, for these names and addresses.
    fn issue(&self, file: &str, common_name: &str, group: &str, sans: &[&str]) -> Result<()> {
        let mut params = CertificateParams::new(sans.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        fs::write(self.dir.join(format!("{file}.crt")), certificate.pem())?;
        Ok(fs::write(self.dir.join(format!("{file}.key")), key.serialize_pem())?)
    }
}
