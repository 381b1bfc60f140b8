//! Real etcd processes on loopback, with and without TLS, for the tests of the etcd client.

use camino::{Utf8Path, Utf8PathBuf};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rekindle_model::HostPath;
use rekindle_model::etcd::EtcdEndpoint;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use testbed::components::Etcd;

/// A folder for a test, as a UTF-8 path.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    pub(crate) fn path(&self) -> &Utf8Path {
        Utf8Path::from_path(self.0.path()).unwrap()
    }
}

/// A CA with certificates as kubeadm makes them: for servers and clients, by name and address.
pub(crate) struct Pki {
    pub(crate) dir: Utf8PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new(dir: &Utf8Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "etcd-ca");
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir: dir.to_owned(), issuer: Issuer::new(params, key) }
    }

    /// Writes `NAME.crt` and `NAME.key` for these names and addresses.
    pub(crate) fn issue(&self, name: &str, sans: &[&str], expired: bool) {
        let sans: Vec<String> = sans.iter().map(|s| (*s).to_owned()).collect();
        let mut params = CertificateParams::new(sans).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        self.sign(name, params);
    }

    /// The same for a client that is a member of a group, as Kubernetes reads certificates.
    pub(crate) fn issue_for_group(&self, name: &str, group: &str) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, params);
    }

    fn sign(&self, name: &str, mut params: CertificateParams) {
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.dir.join(format!("{name}.crt")), cert.pem()).unwrap();
        std::fs::write(self.dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// One etcd process.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) dir: Utf8PathBuf,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) tls: Option<Utf8PathBuf>,
    /// Folder of the identity towards peers; they speak plain HTTP without.
    pub(crate) peer_tls: Option<Utf8PathBuf>,
    /// Flags more.
    pub(crate) flags: Vec<String>,
    process: Option<Child>,
}

impl Member {
    pub(crate) fn new(dir: &Utf8Path, name: &str, tls: Option<Utf8PathBuf>) -> Self {
        let ports = [testbed::ports::free(), testbed::ports::free()];
        let dir = dir.join(name);
        let [client_port, peer_port] = ports;
        let (name, flags) = (name.into(), Vec::new());
        Self { name, dir, client_port, peer_port, tls, peer_tls: None, flags, process: None }
    }

    pub(crate) fn peer_url(&self) -> String {
        let scheme = if self.peer_tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.peer_port)
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    /// How Rekindle reaches it; certificate files as paths under the root `/`.
    pub(crate) fn endpoint(&self) -> EtcdEndpoint {
        let file = |name: &str| self.tls.as_ref().map(|dir| HostPath(dir.join(name)));
        EtcdEndpoint {
            url: self.url(),
            cacert: file("ca.crt"),
            cert: file("client.crt"),
            key: file("client.key"),
        }
    }

    /// How its peers reach it, with its own identity.
    pub(crate) fn peer_endpoint(&self) -> EtcdEndpoint {
        let file = |name: &str| self.peer_tls.as_ref().map(|dir| HostPath(dir.join(name)));
        EtcdEndpoint {
            url: self.peer_url(),
            cacert: file("ca.crt"),
            cert: file("server.crt"),
            key: file("server.key"),
        }
    }

    pub(crate) fn start(&mut self, etcd: &Etcd, initial_cluster: &str, state: &str) {
        let log = std::fs::File::create(self.dir.with_extension("log")).unwrap();
        let mut command = Command::new(&etcd.etcd);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).env_clear();
        command.args(["--name", &self.name, "--data-dir", self.dir.as_str(), "--logger", "zap"]);
        command.args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()]);
        command.args(["--listen-peer-urls", &self.peer_url()]);
        command.args(["--initial-advertise-peer-urls", &self.peer_url()]);
        command.args(["--initial-cluster", initial_cluster, "--initial-cluster-state", state]);
        if let Some(tls) = &self.tls {
            let file = |name: &str| tls.join(name).into_string();
            command.args(["--client-cert-auth", "--trusted-ca-file", &file("ca.crt")]);
            command.args(["--cert-file", &file("server.crt"), "--key-file", &file("server.key")]);
        }
        if let Some(tls) = &self.peer_tls {
            let file = |name: &str| tls.join(name).into_string();
            command.args(["--peer-client-cert-auth", "--peer-trusted-ca-file", &file("ca.crt")]);
            command.args(["--peer-cert-file", &file("server.crt"), "--peer-key-file", &file("server.key")]);
        }
        command.args(&self.flags);
        self.process = Some(command.spawn().unwrap());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Output of etcdctl against this member; it must succeed.
    pub(crate) fn ctl(&self, etcd: &Etcd, args: &[&str]) -> String {
        let mut command = Command::new(&etcd.etcdctl);
        command.args(["--endpoints", &self.url()]).args(args);
        if let Some(tls) = &self.tls {
            let file = |name: &str| tls.join(name).into_string();
            command.args(["--cacert", &file("ca.crt"), "--cert", &file("client.crt")]);
            command.args(["--key", &file("client.key")]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until it serves writes.
    pub(crate) fn wait_ready(&self, etcd: &Etcd) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let mut command = Command::new(&etcd.etcdctl);
            command.args(["--endpoints", &self.url(), "--command-timeout", "2s", "endpoint", "health"]);
            if let Some(tls) = &self.tls {
                let file = |name: &str| tls.join(name).into_string();
                command.args(["--cacert", &file("ca.crt"), "--cert", &file("client.crt")]);
                command.args(["--key", &file("client.key")]);
            }
            if command.output().unwrap().status.success() {
                return;
            }
            let log = || std::fs::read_to_string(self.dir.with_extension("log")).unwrap();
            assert!(
                Instant::now() < deadline,
                "{} is not healthy after 30 s; its log:\n{}",
                self.name,
                log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `--initial-cluster` of these members.
pub(crate) fn initial_cluster(members: &[Member]) -> String {
    members.iter().map(|m| format!("{}={}", m.name, m.peer_url())).collect::<Vec<_>>().join(",")
}

/// A running cluster over plain HTTP.
pub(crate) fn start_cluster(etcd: &Etcd, dir: &Utf8Path, names: &[&str]) -> Vec<Member> {
    let mut members: Vec<_> = names.iter().map(|name| Member::new(dir, name, None)).collect();
    let initial = initial_cluster(&members);
    members.iter_mut().for_each(|m| m.start(etcd, &initial, "new"));
    members.iter().for_each(|m| m.wait_ready(etcd));
    members
}
