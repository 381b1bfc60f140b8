//! Making, saving and ending sets: what is in `CACHE/sets` and `CACHE/live`.

use crate::set::now;
use crate::{Host, HostSpec, Kind, Set, base, cache, cgroup, cmd, host, kubeadm, net, systemd_plane};
use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs;
use std::time::Duration;

pub(crate) fn saved(kind: Kind) -> Result<Utf8PathBuf> {
    Ok(cache::root()?.join("sets").join(kind.name()))
}

/// How old a saved set may be: kubeadm's certificates live a year.
const MAX_AGE: Duration = Duration::from_secs(300 * 24 * 3600);

/// Whether the set is saved and up to date.
///
/// # Errors
/// When there is no cache folder to speak of.
pub fn is_made(kind: Kind) -> Result<bool> {
    let dir = saved(kind)?;
    let made = fs::metadata(dir.join(".stamp")).and_then(|stamp| stamp.modified());
    let young = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < MAX_AGE));
    Ok(young && cache::is_stamped(&dir, &kind.stamp()))
}

/// Ends whatever set runs, also one whose owner died: power cut, unmounted, control groups and bridge removed.
/// The caller holds the lane's lock, or nobody else uses the test bed.
///
/// # Errors
/// When something of it cannot be ended or removed.
pub fn clean() -> Result<()> {
    let dir = cache::live()?;
    let base = cache::root()?.join("base");
    let mut hosts = Vec::new();
    for entry in dir.join("hosts").read_dir_utf8().into_iter().flatten() {
        let entry = entry.with_context(|| format!("cannot list {dir}/hosts"))?;
        hosts.push(Host::at(&HostSpec::new(entry.file_name(), 0), entry.path(), &base));
    }
    std::thread::scope(|scope| {
        let ends: Vec<_> = hosts.iter().map(|host| scope.spawn(|| host.tear_down())).collect();
        ends.into_iter().try_for_each(|end| end.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })?;
    cache::remove_tree(&dir)?;
    cgroup::remove_parents()?;
    net::down()
}

/// Makes and saves a set unless it is there.
///
/// # Errors
/// When the base is missing or a step fails; nothing of it is left running then.
pub fn make(kind: Kind) -> Result<()> {
    if is_made(kind)? {
        return Ok(());
    }
    let base = base::built()?;
    // another lane may be about to make it, too
    let _making = cache::Lock::wait(&format!("make-{kind}"))?;
    let lock = cache::Lock::lane()?;
    if is_made(kind)? {
        return Ok(());
    }
    clean()?;
    cmd::note(&format!("making {kind} (a minute or two)"));
    let dir = cache::live()?;
    let peers = kind.specs();
    let mut hosts = Vec::new();
    for spec in &peers {
        hosts.push(Host::create(spec, &dir.join("hosts").join(&spec.name), &base, &peers)?);
    }
    cmd::sh("cp", ["-a", base.join("ssh").as_str(), dir.join("ssh").as_str()])?;
    ssh_config(&dir, &hosts)?;
    cache::write(&dir.join("kind"), kind.name())?;
    // dropped on the way out, whatever happens
    let set = Set { kind, dir, hosts, since: now()?, keep: false, lock: Some(lock) };
    set.boot()?;
    match kind {
        Kind::Kubeadm1 | Kind::Kubeadm3 => kubeadm::make(&set)?,
        Kind::Systemd1 => systemd_plane::make(&set)?,
    }
    set.wait_ready(Duration::from_secs(300))?;
    set.power_off()?;
    save(&set, &base)
}

/// The `ssh_config` of a set, with the keys where they lie now.
pub(crate) fn ssh_config(dir: &Utf8Path, hosts: &[Host]) -> Result<()> {
    let mut config = String::new();
    for host in hosts {
        config += &format!("Host {0} {1}\n    HostName {1}\n", host.name, host.ip);
    }
    config += &format!(
        "Host *\n    User root\n    IdentityFile {dir}/ssh/id_ed25519\n    IdentitiesOnly yes\n    \
         UserKnownHostsFile {dir}/ssh/known_hosts\n    StrictHostKeyChecking yes\n    BatchMode yes\n    \
         ConnectTimeout 10\n"
    );
    cache::write(&dir.join("ssh_config"), config)
}

/// Moves the stopped hosts of a set into the cache, without what every host shares.
fn save(set: &Set, base: &Utf8Path) -> Result<()> {
    for host in &set.hosts {
        host.tear_down()?;
        let dir = set.dir.join("hosts").join(&host.name);
        host::unlink_shared(base, &dir)?;
        for left in ["work", "root"] {
            cache::remove_tree(&dir.join(left))?;
        }
        for left in ["cgroups", "keeper.pid", "keeper.sh", "console.log"] {
            let _ = fs::remove_file(dir.join(left)); // not there when the host never ran
        }
    }
    cache::make_aside(&saved(set.kind)?, &set.kind.stamp(), |aside| {
        for name in ["hosts", "ssh", "admin.conf", "kind"] {
            fs::rename(set.dir.join(name), aside.join(name))
                .with_context(|| format!("cannot save {name}"))?;
        }
        Ok(())
    })?;
    cmd::note(&format!("saved {}", set.kind));
    Ok(())
}
