//! A simulated world: hosts whose files are real and lie under a folder, and whose units, kubelets, containers, etcd and
//! API servers are simulated. Made from an inventory, so that what was seen, what is planned and what happens agree.
//!
//! Start with [`SimWorld`]; [`Faults`] makes requests fail. `state` holds units and kubelets, `etcd` reads data dirs as an
//! etcd does (ids, revision, HashKV, damage), `api` answers as an API server does. Nothing here proves anything of real
//! clusters: it proves what the executor does at every point where something can break.
//! Not simulated: elections by time, a log that goes on (a member that joins gets a copy of another's files), and an etcd
//! that starts a new cluster without data (it exits).

mod api;
mod etcd;
mod faults;
mod host;
mod state;
mod store;

pub use faults::{Faults, Trouble};

use crate::World;
use crate::fault::{Fault, Outcome};
use crate::local::LocalHost;
use camino::{Utf8Path, Utf8PathBuf};
use etcd_disk::restore::{DbFrom, Form, NewCluster, NewMember, RestoreOptions, write_db, write_member};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, VerifyOptions};
use rekindle_model::etcd::DbFacts;
use rekindle_model::host::{Component, HostFacts, Layout};
use rekindle_model::inventory::Inventory;
use rekindle_model::seen::chain;
use rekindle_model::source::SourceKind;
use rekindle_model::{HostId, MemberId};
use sha2::{Digest, Sha256};
use state::{HostState, State, Unit, under};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use store::Contents;

/// A simulated world.
pub struct SimWorld {
    state: Arc<Mutex<State>>,
    /// What goes wrong.
    pub faults: Arc<Faults>,
    world: World,
}

impl SimWorld {
    /// Makes the world an inventory tells of, in an empty folder: manifests, unit files, data dirs (damaged where the
    /// inventory says so), what runs. Snapshot files are written too, and the inventory is made to name them.
    ///
    /// # Errors
    /// When a file can't be written, or what should run can't start from what is there.
    pub fn new(inventory: &mut Inventory, dir: &Utf8Path, seed: u64) -> Result<Self, Fault> {
        let state = Arc::new(Mutex::new(State::default()));
        let faults = Arc::new(Faults::default());
        write_sources(inventory, dir, seed)?;
        name_members(inventory)?;
        let mut hosts: Vec<Arc<dyn crate::Host>> = Vec::new();
        for (number, facts) in inventory.hosts.iter().enumerate() {
            let root = dir.join(format!("host-{number}"));
            make_files(facts, inventory, &root, seed)?;
            let mut locked = state.lock().unwrap_or_else(PoisonError::into_inner);
            locked.hosts.insert(facts.id.clone(), host_state(facts, root.clone()));
            start(&mut locked, facts)?;
            drop(locked);
            hosts.push(Arc::new(host::SimHost::new(facts.id.clone(), root, state.clone(), faults.clone())));
        }
        let own = hosts.iter().find(|host| host.id().is_local()).cloned();
        let local = own.unwrap_or_else(|| Arc::new(LocalHost::new(HostId::local(), dir.join("local"))));
        Ok(Self { state, faults, world: World { local, hosts } })
    }

    /// The seam.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Everything that an undo must bring back, by name: each file (with its content's SHA-256) but those in folders
    /// named `rekindle-...`, what units and etcds run, which API servers are ready.
    pub fn fingerprint(&self) -> Result<BTreeMap<String, String>, Fault> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeMap::new();
        for (id, host) in &state.hosts {
            files_of(id, &host.root, &host.root, &mut found)?;
            for (name, unit) in &host.units {
                found.insert(format!("{id} unit {name}"), format!("active {}", unit.active));
            }
            let etcd = host
                .etcd
                .as_ref()
                .map(|i| format!("{} of {} at {}", i.member, i.cluster, i.verified.revision));
            found.insert(format!("{id} etcd"), etcd.unwrap_or_else(|| "does not run".into()));
            found.insert(format!("{id} in quorum"), state.in_quorum(id).to_string());
            found.insert(format!("{id} API ready"), state.api_ready(id).to_string());
        }
        Ok(found)
    }

    /// Whether the API server of every host is ready.
    pub fn all_ready(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.hosts.keys().all(|id| state.api_ready(id))
    }
}

fn io(path: &Utf8Path) -> impl Fn(std::io::Error) -> Fault {
    move |error| Fault::io(format!("make {path}"), &error)
}

fn disk(error: &etcd_disk::Error) -> Fault {
    Fault::failed(chain(error))
}

/// Writes a file with its folders.
fn write(path: &Utf8Path, text: &[u8]) -> Outcome<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io(path))?;
    }
    std::fs::write(path, text).map_err(io(path))
}

fn contents(facts: &DbFacts, inventory: &Inventory, seed: u64) -> Contents {
    let addresses = inventory.hosts.iter().filter_map(|h| h.addresses.known()?.first().cloned());
    Contents {
        revision: facts.revision,
        live_keys: facts.live_keys,
        kube_system_uid: facts.kube_system_uid.known().cloned().unwrap_or_default(),
        api_servers: addresses.collect(),
        seed,
    }
}

/// Snapshot files become real ones, and the inventory tells what is in them.
fn write_sources(inventory: &mut Inventory, dir: &Utf8Path, seed: u64) -> Outcome<()> {
    let folder = dir.join("backup");
    std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    for number in 0..inventory.sources.len() {
        let Some(source) = inventory.sources.get(number) else { continue };
        let (SourceKind::SnapshotFile(_), Some(facts)) = (&source.kind, source.facts.known()) else {
            continue;
        };
        let (db, file) = (folder.join(format!("{number}.raw")), folder.join(format!("etcd-{number}.db")));
        store::write_db(&db, &contents(facts, inventory, seed))?;
        let mut open = std::fs::File::open(&db).map_err(io(&db))?;
        let (sha256, size_bytes) = store::write_snapshot(&mut open, &file)?;
        std::fs::remove_file(&db).map_err(io(&db))?;
        let snapshot =
            SnapshotFile::open(file.as_std_path(), TrailerPolicy::Required).map_err(|e| disk(&e))?;
        let verified = snapshot.verify(&VerifyOptions::default(), &mut |_, _| {}).map_err(|e| disk(&e))?;
        let Some(source) = inventory.sources.get_mut(number) else { continue };
        source.kind = SourceKind::SnapshotFile(file.into());
        source.sha256 = Some(sha256);
        if let rekindle_model::Seen::Known(facts) = &mut source.facts {
            facts.size_bytes = size_bytes;
            (facts.revision, facts.live_keys) = (verified.revision, verified.live_keys);
        }
    }
    Ok(())
}

/// A host's files: manifests, unit files, kubeconfig, data dir.
fn make_files(facts: &HostFacts, inventory: &Inventory, root: &Utf8Path, seed: u64) -> Outcome<()> {
    for folder in ["etc/kubernetes/manifests", "etc/systemd/system", "var/lib/etcd", "var/lib/kubelet"] {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    }
    write(&root.join("etc/kubernetes/admin.conf"), b"apiVersion: v1\nkind: Config\n")?;
    for manifest in facts.manifests.known().into_iter().flatten() {
        write(&under(root, &manifest.path), manifest.text.as_bytes())?;
    }
    for unit in facts.units.values().filter_map(|unit| unit.known()) {
        write(
            &under(root, &unit.fragment_path),
            format!("[Service]\nExecStart={}\n", unit.exec_start.join(" ")).as_bytes(),
        )?;
    }
    for (path, file) in &facts.unit_files {
        if let Some(file) = file.known() {
            write(&under(root, path), file.text.as_bytes())?;
        }
    }
    make_data(facts, inventory, root, seed)
}

/// The cluster that these hosts founded.
fn cluster_of(inventory: &Inventory) -> Outcome<NewCluster> {
    let members = inventory.hosts.iter().filter_map(|h| h.etcd_config.known());
    let members = members.map(|c| NewMember { name: c.name.clone(), peer_urls: c.peer_urls.clone() });
    NewCluster::new("etcd-cluster", members.collect()).map_err(|e| disk(&e))
}

/// The ids that members really have here.
fn name_members(inventory: &mut Inventory) -> Outcome<()> {
    use rekindle_model::Seen::Known;
    if inventory.hosts.iter().all(|h| h.etcd_config.known().is_none()) {
        return Ok(());
    }
    let cluster = cluster_of(inventory)?;
    for host in &mut inventory.hosts {
        let own = host.etcd_config.known().map(|c| c.name.clone());
        let mut lists = Vec::new();
        if let Known(live) = &mut host.etcd_live {
            if let (Known(status), Some(id)) =
                (&mut live.status, own.and_then(|name| cluster.member_id(&name)))
            {
                status.member_id = MemberId(id.0);
                status.cluster_id = MemberId(cluster.cluster_id().0);
            }
            if let Known(members) = &mut live.members {
                lists.push(members);
            }
        }
        if let Known(data) = &mut host.etcd_data
            && let Known(db) = &mut data.db
        {
            lists.push(&mut db.members);
        }
        for member in lists.into_iter().flatten() {
            if let Some(id) = cluster.member_id(&member.name) {
                member.id = MemberId(id.0);
            }
        }
    }
    Ok(())
}

/// The data dir: the member as it was founded, damaged where the inventory has no facts of its db.
fn make_data(facts: &HostFacts, inventory: &Inventory, root: &Utf8Path, seed: u64) -> Outcome<()> {
    let (Some(config), Some(data)) = (facts.etcd_config.known(), facts.etcd_data.known()) else {
        return Ok(());
    };
    if !data.has_member {
        return Ok(());
    }
    let data_dir = under(root, &config.data_dir);
    let cluster = cluster_of(inventory)?;
    let known = data.db.known().filter(|db| db.revision > 0 && db.live_keys > 0).cloned();
    let live = facts.etcd_live.known().and_then(|live| live.status.known()).map(|status| status.revision);
    let answers = facts.etcd_live.known();
    let sound = known.clone().unwrap_or_else(|| DbFacts {
        revision: live.unwrap_or(10_000),
        live_keys: answers.and_then(|a| a.live_keys.known().copied()).unwrap_or(100),
        kube_system_uid: answers.map(|a| a.kube_system_uid.clone()).unwrap_or_default(),
        ..DbFacts::default()
    });
    let (raw, db) = (root.join("raw.db"), root.join("new.db"));
    store::write_db(&raw, &contents(&sound, inventory, seed))?;
    let source = SnapshotFile::open(raw.as_std_path(), TrailerPolicy::Skip).map_err(|e| disk(&e))?;
    let options = RestoreOptions::default();
    write_db(&source, Form::Exact, &cluster, &options, db.as_std_path(), &mut |_, _| {})
        .map_err(|e| disk(&e))?;
    std::fs::remove_file(&raw).map_err(io(&raw))?;
    write_member(data_dir.as_std_path(), None, DbFrom::Move(db.as_std_path()), &config.name, &cluster)
        .map_err(|e| disk(&e))?;
    let sick = !data.damage.is_empty() || (known.is_none() && live.is_none());
    if sick {
        let path = data_dir.join("member/snap/db");
        write(&path, b"overwritten")?;
    }
    Ok(())
}

fn host_state(facts: &HostFacts, root: Utf8PathBuf) -> HostState {
    let units = facts.units.iter().filter_map(|(name, unit)| {
        let unit = unit.known()?;
        let failed = unit.active_state == "failed";
        let state = Unit {
            active: false,
            failed,
            fragment: unit.fragment_path.clone(),
            exec_start: unit.exec_start.clone(),
        };
        Some((name.clone(), state))
    });
    HostState {
        root,
        hostname: facts.hostname.known().cloned().unwrap_or_default(),
        manifest_dir: facts.manifest_dir.clone(),
        units: units.collect(),
        containers: BTreeMap::new(),
        etcd: None,
    }
}

/// Starts what ran when the inventory was taken.
fn start(state: &mut State, facts: &HostFacts) -> Outcome<()> {
    let id = &facts.id;
    for component in Component::ALL {
        if facts.layout == Layout::StaticPods && facts.container(component).is_some_and(|c| c.running) {
            state.found_running(id, component)?;
        }
    }
    for (name, unit) in &facts.units {
        let Some(true) = unit.known().map(|unit| unit.is_active()) else { continue };
        let host = state.host(id)?;
        // Kubelet ran, and what runs is known: it starts nothing now.
        match host.units.get_mut(name) {
            Some(unit) if state::component_of(name).is_none() => unit.active = true,
            Some(unit) => {
                let unit = unit.clone();
                state.start_unit(id, name, &unit)?;
            }
            None => {}
        }
    }
    Ok(())
}

fn files_of(
    id: &HostId,
    root: &Utf8Path,
    dir: &Utf8Path,
    found: &mut BTreeMap<String, String>,
) -> Outcome<()> {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir_utf8().map_err(io(&folder))? {
            let entry = entry.map_err(io(&folder))?;
            let path = entry.path();
            if entry.file_name().trim_start_matches('.').starts_with("rekindle-") {
                continue;
            }
            let name = path.strip_prefix(root).unwrap_or(path);
            if let Ok(target) = path.read_link_utf8() {
                found.insert(format!("{id} file /{name}"), format!("link to {target}"));
                continue;
            }
            if path.is_dir() {
                if name != "run" {
                    // runtime state of its own, as on a real host
                    folders.push(path.to_owned());
                }
                continue;
            }
            found.insert(format!("{id} file /{name}"), content_of(path)?);
        }
    }
    Ok(())
}

/// Size and SHA-256 of what is not zero: a WAL is 64 MB of mostly nothing, and what was never written is not read.
fn content_of(path: &Utf8Path) -> Outcome<String> {
    use rustix::fs::{SeekFrom, seek};
    use std::os::unix::fs::FileExt as _;
    const CHUNK: usize = 1 << 16;
    let file = std::fs::File::open(path).map_err(io(path))?;
    let bytes = file.metadata().map_err(io(path))?.len();
    let (mut sum, mut chunk, zero) = (Sha256::new(), vec![0_u8; CHUNK], vec![0_u8; CHUNK]);
    let mut at: u64 = 0;
    loop {
        let data = match seek(&file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => break, // no data behind this
            Err(error) => return Err(io(path)(error.into())),
        };
        // chunks begin at multiples of their size, wherever data begins
        at = data - data % CHUNK as u64;
        let read = file.read_at(&mut chunk, at).map_err(io(path))?;
        if chunk.get(..read) != zero.get(..read) {
            sum.update(at.to_le_bytes());
            sum.update(chunk.get(..read).unwrap_or_default());
        }
        at += CHUNK as u64;
    }
    Ok(format!("{bytes} bytes {}", sum.finalize().iter().map(|b| format!("{b:02x}")).collect::<String>()))
}
