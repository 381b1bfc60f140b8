//! The pinned components, built from their Go modules: etcd 3.5, 3.6 and 3.7, Kubernetes, containerd, and for the
//! vault age and a Versity S3 gateway, for the chart Helm, for nodes by the thousand kwok.
//!
//! The pins stand in `components/NAME/go.mod` and `go.sum`, complete, so a build is the same everywhere and
//! nothing pre-built is fetched. Each component is built aside, stamped with its pins and renamed into
//! `CACHE/bin/NAME-VERSION`; one with the right stamp is left alone.

use crate::{cache, cmd, needs};
use anyhow::{Context, Result, bail};
use camino::Utf8PathBuf;
use std::fmt::Write as _;

/// A component: one Go module with the packages to build from it.
struct Component {
    /// Its name, also on the command line.
    name: &'static str,
    /// The name of its folder, before the version.
    folder: &'static str,
    /// The module whose version is the component's version.
    module: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    /// Go package and the name of its binary.
    binaries: &'static [(&'static str, &'static str)],
    /// Variables set to `vVERSION`, `MAJOR` and `MINOR` by the linker, as the projects' own builds do.
    version_vars: &'static [(&'static str, VersionPart)],
    /// Hosts are built with it: another pin makes another host.
    on_hosts: bool,
}

#[derive(Clone, Copy)]
enum VersionPart {
    Whole,
    Major,
    Minor,
}

const ETCD_BINARIES: &[(&str, &str)] = &[
    ("go.etcd.io/etcd/server/v3", "etcd"),
    ("go.etcd.io/etcd/etcdctl/v3", "etcdctl"),
    ("go.etcd.io/etcd/etcdutl/v3", "etcdutl"),
    ("go.etcd.io/bbolt/cmd/bbolt", "bbolt"),
];

macro_rules! etcd {
    ($line:literal) => {
        Component {
            name: concat!("etcd-", $line),
            folder: "etcd",
            module: "go.etcd.io/etcd/server/v3",
            go_mod: include_str!(concat!("../components/etcd-", $line, "/go.mod")),
            go_sum: include_str!(concat!("../components/etcd-", $line, "/go.sum")),
            binaries: ETCD_BINARIES,
            version_vars: &[],
            on_hosts: true,
        }
    };
}

/// In build order: tests of the file formats need only the first three.
const COMPONENTS: &[Component] = &[
    etcd!("3.6"),
    etcd!("3.5"),
    etcd!("3.7"),
    Component {
        name: "kubernetes",
        folder: "kubernetes",
        module: "k8s.io/kubernetes",
        go_mod: include_str!("../components/kubernetes/go.mod"),
        go_sum: include_str!("../components/kubernetes/go.sum"),
        binaries: &[
            ("k8s.io/kubernetes/cmd/kubeadm", "kubeadm"),
            ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
            ("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
            ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
            ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
            ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
        ],
        // kubeadm refuses to work for a version that it does not know
        version_vars: &[
            ("k8s.io/component-base/version.gitVersion", VersionPart::Whole),
            ("k8s.io/component-base/version.gitMajor", VersionPart::Major),
            ("k8s.io/component-base/version.gitMinor", VersionPart::Minor),
            ("k8s.io/client-go/pkg/version.gitVersion", VersionPart::Whole),
            ("k8s.io/client-go/pkg/version.gitMajor", VersionPart::Major),
            ("k8s.io/client-go/pkg/version.gitMinor", VersionPart::Minor),
        ],
        on_hosts: true,
    },
    Component {
        name: "containerd",
        folder: "containerd",
        module: "github.com/containerd/containerd/v2",
        go_mod: include_str!("../components/containerd/go.mod"),
        go_sum: include_str!("../components/containerd/go.sum"),
        binaries: &[
            ("github.com/containerd/containerd/v2/cmd/containerd", "containerd"),
            ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
            ("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
        ],
        version_vars: &[("github.com/containerd/containerd/v2/version.Version", VersionPart::Whole)],
        on_hosts: true,
    },
    Component {
        name: "age",
        folder: "age",
        module: "filippo.io/age",
        go_mod: include_str!("../components/age/go.mod"),
        go_sum: include_str!("../components/age/go.sum"),
        binaries: &[("filippo.io/age/cmd/age", "age"), ("filippo.io/age/cmd/age-keygen", "age-keygen")],
        version_vars: &[],
        on_hosts: false,
    },
    Component {
        name: "versitygw",
        folder: "versitygw",
        module: "github.com/versity/versitygw",
        go_mod: include_str!("../components/versitygw/go.mod"),
        go_sum: include_str!("../components/versitygw/go.sum"),
        binaries: &[("github.com/versity/versitygw/cmd/versitygw", "versitygw")],
        version_vars: &[],
        on_hosts: false,
    },
    Component {
        name: "helm",
        folder: "helm",
        module: "helm.sh/helm/v4",
        go_mod: include_str!("../components/helm/go.mod"),
        go_sum: include_str!("../components/helm/go.sum"),
        binaries: &[("helm.sh/helm/v4/cmd/helm", "helm")],
        version_vars: &[],
        on_hosts: false,
    },
    Component {
        name: "kwok",
        folder: "kwok",
        module: "sigs.k8s.io/kwok",
        go_mod: include_str!("../components/kwok/go.mod"),
        go_sum: include_str!("../components/kwok/go.sum"),
        binaries: &[("sigs.k8s.io/kwok/cmd/kwok", "kwok")],
        version_vars: &[],
        on_hosts: false,
    },
];

impl Component {
    /// The pinned version without its `v`, as go.mod has it.
    fn version(&self) -> &'static str {
        self.go_mod
            .lines()
            .filter_map(|line| line.trim().trim_start_matches("require ").strip_prefix(self.module))
            .find_map(|rest| rest.strip_prefix(" v"))
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap_or("unpinned")
    }

    fn dir(&self) -> Result<Utf8PathBuf> {
        Ok(cache::root()?.join("bin").join(format!("{}-{}", self.folder, self.version())))
    }

    fn ldflags(&self) -> String {
        let version = self.version();
        let mut parts = version.split('.');
        let (major, minor) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
        let mut flags = "-s -w".to_owned();
        for (var, part) in self.version_vars {
            let _ = match part {
                VersionPart::Whole => write!(flags, " -X {var}=v{version}"),
                VersionPart::Major => write!(flags, " -X {var}={major}"),
                VersionPart::Minor => write!(flags, " -X {var}={minor}"),
            };
        }
        flags
    }

    fn stamp(&self) -> String {
        let mut stamp = format!("{}\n{}\n", self.ldflags(), self.go_mod);
        for (package, binary) in self.binaries {
            let _ = writeln!(stamp, "{binary} {package}");
        }
        stamp + self.go_sum
    }

    fn build(&self) -> Result<()> {
        let dir = self.dir()?;
        let stamp = self.stamp();
        if cache::is_stamped(&dir, &stamp) {
            return Ok(());
        }
        cmd::note(&format!("building {} {} from its Go module", self.name, self.version()));
        let start = std::time::Instant::now();
        let work = cache::root()?.join("work").join(self.name);
        cache::write(&work.join("go.mod"), self.go_mod)?;
        cache::write(&work.join("go.sum"), self.go_sum)?;
        cache::make_aside(&dir, &stamp, |aside| {
            for (package, binary) in self.binaries {
                let target = aside.join(binary);
                let mut go = cmd::command("go", ["build", "-mod=readonly", "-trimpath", "-buildvcs=false"]);
                go.arg(format!("-ldflags={}", self.ldflags())).args(["-o", target.as_str(), package]);
                // the user's flags stay out (one -mod=mod and the pins are gone), and no toolchain is fetched
                go.current_dir(&work).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOFLAGS", "");
                cmd::run(&mut go).with_context(|| format!("cannot build {} ({binary})", self.name))?;
            }
            Ok(())
        })?;
        cmd::note(&format!("built {dir} in {} s", start.elapsed().as_secs()));
        Ok(())
    }

    /// The folder of a built component.
    fn built(&self) -> Result<Utf8PathBuf> {
        let dir = self.dir()?;
        if !dir.join(".stamp").is_file() {
            bail!("{} {} is not in {dir}: run `cargo xtask testbed build`", self.name, self.version());
        }
        Ok(dir)
    }
}

fn find(name: &str) -> Result<&'static Component> {
    COMPONENTS.iter().find(|c| c.name == name).with_context(|| {
        let known: Vec<&str> = COMPONENTS.iter().map(|c| c.name).collect();
        format!("no component {name}; there are {}", known.join(", "))
    })
}

/// Builds the named components, or all of them, unless they are there already.
///
/// # Errors
/// When a name is unknown, Go is missing or too old, or a build fails.
pub fn build(names: &[String]) -> Result<()> {
    let mut wanted: Vec<&Component> = names.iter().map(|name| find(name)).collect::<Result<_>>()?;
    if wanted.is_empty() {
        wanted.extend(COMPONENTS);
    }
    build_each(wanted)
}

/// Builds what test hosts run, unless it is there already.
///
/// # Errors
/// As [`build`].
pub fn build_for_hosts() -> Result<()> {
    build_each(COMPONENTS.iter().filter(|component| component.on_hosts))
}

fn build_each<'c>(wanted: impl IntoIterator<Item = &'c Component>) -> Result<()> {
    needs::go()?;
    let _lock = cache::Lock::wait("build")?;
    wanted.into_iter().try_for_each(Component::build)
}

/// Every component's name, version and folder, and whether it is built.
///
/// # Errors
/// When there is no cache folder to speak of.
pub fn list() -> Result<Vec<(String, Utf8PathBuf, bool)>> {
    COMPONENTS
        .iter()
        .map(|c| {
            let dir = c.dir()?;
            let built = cache::is_stamped(&dir, &c.stamp());
            Ok((format!("{} {}", c.name, c.version()), dir, built))
        })
        .collect()
}

/// What hosts are built from, as one text: changes with any pin.
pub(crate) fn stamp_of_all() -> String {
    COMPONENTS.iter().filter(|c| c.on_hosts).map(|c| format!("{} {}\n", c.name, c.version())).collect()
}

/// The binaries of one etcd line.
#[derive(Debug, Clone)]
pub struct Etcd {
    /// `3.6.14`
    pub version: String,
    /// The server.
    pub etcd: Utf8PathBuf,
    /// The client.
    pub etcdctl: Utf8PathBuf,
    /// The offline tool.
    pub etcdutl: Utf8PathBuf,
    /// bbolt's own tool, of the bbolt that this etcd uses.
    pub bbolt: Utf8PathBuf,
}

/// The lines of etcd that Rekindle is proved against.
pub const ETCD_LINES: [&str; 3] = ["3.5", "3.6", "3.7"];

/// The binaries of an etcd line: `3.5`, `3.6` or `3.7`.
///
/// # Errors
/// When the line is unknown or not built: says which command builds it.
pub fn etcd_line(line: &str) -> Result<Etcd> {
    let component = find(&format!("etcd-{line}"))?;
    let dir = component.built()?;
    Ok(Etcd {
        version: component.version().to_owned(),
        etcd: dir.join("etcd"),
        etcdctl: dir.join("etcdctl"),
        etcdutl: dir.join("etcdutl"),
        bbolt: dir.join("bbolt"),
    })
}

/// A built component as a folder of binaries.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `1.37.2`
    pub version: String,
    /// The folder that has them.
    pub dir: Utf8PathBuf,
    /// Their names.
    pub names: Vec<&'static str>,
}

impl Binaries {
    /// The path of one of them.
    #[must_use]
    pub fn path(&self, name: &str) -> Utf8PathBuf {
        self.dir.join(name)
    }
}

fn binaries(name: &str) -> Result<Binaries> {
    let component = find(name)?;
    Ok(Binaries {
        version: component.version().to_owned(),
        dir: component.built()?,
        names: component.binaries.iter().map(|(_, binary)| *binary).collect(),
    })
}

/// kubeadm, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet and kubectl.
///
/// # Errors
/// When not built: says which command builds them.
pub fn kubernetes() -> Result<Binaries> {
    binaries("kubernetes")
}

/// containerd, its runc shim and ctr.
///
/// # Errors
/// When not built: says which command builds them.
pub fn containerd() -> Result<Binaries> {
    binaries("containerd")
}

/// age and age-keygen.
///
/// # Errors
/// When not built: says which command builds them.
pub fn age() -> Result<Binaries> {
    binaries("age")
}

/// The Versity S3 gateway.
///
/// # Errors
/// When not built: says which command builds it.
pub fn versitygw() -> Result<Binaries> {
    binaries("versitygw")
}

/// Helm.
///
/// # Errors
/// When not built: says which command builds it.
pub fn helm() -> Result<Binaries> {
    binaries("helm")
}

/// kwok, which plays kubelets.
///
/// # Errors
/// When not built: says which command builds it.
pub fn kwok() -> Result<Binaries> {
    binaries("kwok")
}

#[cfg(test)]
mod tests {
    use super::*;

    // The versions come from go.mod alone: a pin that the parser misses would name every folder "unpinned".
    #[test]
    fn every_component_has_a_version() {
        for component in COMPONENTS {
            assert!(component.version().starts_with(|c: char| c.is_ascii_digit()), "{}", component.name);
        }
        for line in ETCD_LINES {
            assert!(find(&format!("etcd-{line}")).unwrap().version().starts_with(line));
        }
    }

    #[test]
    fn kubernetes_is_told_its_version() {
        let flags = find("kubernetes").unwrap().ldflags();
        let version = find("kubernetes").unwrap().version();
        assert!(flags.contains(&format!("component-base/version.gitVersion=v{version}")), "{flags}");
        assert!(flags.contains("version.gitMinor=37"), "{flags}");
    }
}
