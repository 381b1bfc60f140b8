//! Container images of the control plane and the pause container, as docker archives of static binaries.

use crate::{cache, cmd, components};
use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;
use std::fs;

/// The tag of the etcd image: the 3.7 line, which this kubeadm takes by default, at our pin.
pub(crate) fn etcd_tag() -> Result<String> {
    Ok(format!("{}-0", components::etcd_line("3.7")?.version))
}

/// Names of the images that kubeadm wants, with the etcd tag of ours.
fn wanted() -> Result<Vec<String>> {
    let kubernetes = components::kubernetes()?;
    let version = format!("v{}", kubernetes.version);
    let mut kubeadm = cmd::command(kubernetes.path("kubeadm").as_str(), ["config", "images", "list"]);
    let list = cmd::run(kubeadm.args(["--kubernetes-version", &version]))?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// The name of the pause image, which every host has.
///
/// # Errors
/// When kubeadm is not built.
pub fn pause_name() -> Result<String> {
    wanted()?.into_iter().find(|name| name.contains("/pause:")).context("kubeadm names no pause image")
}

/// Writes one archive per image into `dir` and returns their paths.
pub(crate) fn archives(dir: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let kubernetes = components::kubernetes()?;
    let etcd = components::etcd_line("3.7")?;
    let mut archives = Vec::new();
    for name in wanted()? {
        let (path, _) = name.rsplit_once(':').with_context(|| format!("image {name} has no tag"))?;
        let (repository, short) = path.rsplit_once('/').unwrap_or(("", path));
        let (name, binaries) = match short {
            "pause" => (name.clone(), vec![pause(dir)?]),
            "etcd" => {
                let name = format!("{repository}/etcd:{}", etcd_tag()?);
                (name, vec![etcd.etcd.clone(), etcd.etcdctl.clone(), etcd.etcdutl.clone()])
            }
            binary if kubernetes.names.contains(&binary) => (name.clone(), vec![kubernetes.path(binary)]),
            _ => continue, // kube-proxy and coredns are add-ons: the clusters here do without
        };
        archives.push(archive(dir, &name, short, &binaries)?);
    }
    Ok(archives)
}

/// The pause program, compiled from its few lines of C.
fn pause(dir: &Utf8Path) -> Result<Utf8PathBuf> {
    let (source, binary) = (dir.join("pause.c"), dir.join("pause"));
    cache::write(&source, include_str!("../files/pause.c"))?;
    cmd::sh("cc", ["-static", "-Os", "-s", "-o", binary.as_str(), source.as_str()])?;
    Ok(binary)
}

/// Writes the docker archive `SHORT.tar` into `dir`: an image of one layer with the binaries in `/usr/local/bin`; the first
/// is the entry point.
///
/// # Errors
/// When a binary or the folder can't be read or written.
pub fn archive(dir: &Utf8Path, name: &str, short: &str, binaries: &[Utf8PathBuf]) -> Result<Utf8PathBuf> {
    let work = dir.join(format!("{short}.d"));
    let bin = work.join("layer/usr/local/bin");
    fs::create_dir_all(&bin).with_context(|| format!("cannot make {bin}"))?;
    cmd::sh("install", ["-d", "-m", "1777", work.join("layer/tmp").as_str()])?;
    let mut entry = String::new();
    for binary in binaries {
        let file = binary.file_name().context("a binary without a name")?;
        fs::copy(binary, bin.join(file)).with_context(|| format!("cannot copy {binary}"))?;
        if entry.is_empty() {
            entry = format!("/usr/local/bin/{file}");
        }
    }
    tar(&work.join("layer"), &work.join("layer.tar"), &["."])?;
    let sum = cmd::sh("sha256sum", [work.join("layer.tar").as_str()])?;
    let digest = sum.split_whitespace().next().context("sha256sum printed nothing")?;
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Entrypoint": [entry]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "history": [{"created_by": "cargo xtask testbed build"}],
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    cache::write(&work.join("config.json"), config.to_string())?;
    cache::write(&work.join("manifest.json"), manifest.to_string())?;
    let archive = dir.join(format!("{short}.tar"));
    tar(&work, &archive, &["manifest.json", "config.json", "layer.tar"])?;
    cache::remove_tree(&work)?;
    Ok(archive)
}

fn tar(from: &Utf8Path, to: &Utf8Path, names: &[&str]) -> Result<()> {
    let mut tar = cmd::command("tar", ["--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.args(["--mtime=@0", "-C", from.as_str(), "-cf", to.as_str()]).args(names);
    cmd::run(&mut tar)?;
    Ok(())
}
