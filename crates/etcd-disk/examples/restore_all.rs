//! All members of a cluster from one snapshot in one pass: `restore_all SNAPSHOT FOLDER INITIAL_CLUSTER`. The benchmark
//! measures it beside one etcdutl run a member.

use etcd_disk::restore::{Form, NewCluster, RestoreOptions, Target, restore_members};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy};
use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [snapshot, folder, members] = args.as_slice() else {
        return Err("usage: restore_all SNAPSHOT FOLDER INITIAL_CLUSTER".into());
    };
    let cluster = NewCluster::from_initial_cluster(members, "recovered")?;
    let target = |name: &str| Target {
        name: name.to_owned(),
        data_dir: PathBuf::from(folder).join(name),
        wal_dir: None,
    };
    let targets: Vec<Target> = cluster.by_id().iter().map(|(_, member)| target(&member.name)).collect();
    let source = SnapshotFile::open(Path::new(snapshot), TrailerPolicy::Required)?;
    let form = Form::BumpedBy { revisions: 1_000_000_000 };
    restore_members(&source, form, &cluster, &RestoreOptions::default(), &targets, &mut |_, _| ())?;
    Ok(())
}
