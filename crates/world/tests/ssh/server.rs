//! A real sshd on loopback with keys and a configuration of its own, for the tests of the SSH host.

use camino::{Utf8Path, Utf8PathBuf};
use rekindle_world::ssh::SshOptions;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SSHD: &str = "/usr/sbin/sshd";

/// An sshd that lets the user of the tests in with one key.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    process: Child,
}

impl Server {
    pub(crate) fn start() -> Self {
        assert!(Utf8Path::new(SSHD).exists(), "{SSHD} is missing: install the package openssh-server");
        let folder = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(folder.path()).unwrap();
        for key in ["host", "user", "stranger"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", dir.join(key).as_str()])
                .status();
            assert!(made.unwrap().success());
        }
        std::fs::copy(dir.join("user.pub"), dir.join("authorized_keys")).unwrap();
        let port = testbed::ports::free();
        std::fs::create_dir_all("/run/sshd").unwrap(); // where sshd separates its privileges, made at boot elsewhere
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized_keys\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n\
             MaxStartups 100\n"
        );
        std::fs::write(dir.join("sshd_config"), settings).unwrap();
        let host_key = std::fs::read_to_string(dir.join("host.pub")).unwrap();
        std::fs::write(dir.join("known_hosts"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        for (name, key) in [("config", "user"), ("config-stranger", "stranger")] {
            let settings = format!(
                "Host cp1\n  HostName 127.0.0.1\n  Port {port}\n  User root\n  IdentityFile {dir}/{key}\n  \
                 IdentitiesOnly yes\n  UserKnownHostsFile {dir}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
            );
            std::fs::write(dir.join(name), settings).unwrap();
        }
        let process = Command::new(SSHD)
            .args(["-D", "-e", "-f", dir.join("sshd_config").as_str()])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "sshd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { folder, process }
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path()).unwrap().join(name)
    }

    pub(crate) fn options(&self) -> SshOptions {
        let helper = Some(env!("CARGO_BIN_EXE_serve-for-tests").into());
        SshOptions { config: Some(self.path("config")), helper, sudo: false }
    }

    /// Attempts to log in that were refused.
    pub(crate) fn logins(&self) -> usize {
        std::fs::read_to_string(self.path("log")).unwrap().matches("[preauth]").count()
    }

    /// Process ids of the sessions: children of this sshd and what they run.
    pub(crate) fn sessions(&self) -> Vec<u32> {
        let children = |pid: u32| {
            let tasks =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            tasks.split_whitespace().map(|p| p.parse::<u32>().unwrap()).collect::<Vec<_>>()
        };
        let mut found = children(self.process.id());
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            found.extend(children(*pid));
            next += 1;
        }
        found
    }

    /// Kills every session, as a host that loses power does.
    pub(crate) fn kill_sessions(&self) {
        for pid in self.sessions() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill_sessions();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
