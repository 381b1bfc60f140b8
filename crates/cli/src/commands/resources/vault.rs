//! A backup of resources in a vault: put there as one archive, and taken out into a folder as any other. In the archive
//! Secrets are encrypted one by one as in a folder, so that none lies on a disk in the clear on the way.

use super::args::{Backup, IntoVault, OutOfVault, Place};
use crate::commands::backup::take::same_cluster;
use crate::commands::backup::{
    BackupPlan, cluster_name, open_store, scratch, signing_key, vault, writer_name,
};
use crate::commands::from::signers;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_resources::archive;
use rekindle_resources::index::{ClusterFacts, Index};
use rekindle_vault::manifest::{ClusterIdentity, Content, Manifest, Resources};
use rekindle_vault::{
    ClusterName, Identities, PartKind, Recipients, ResourcesMeta, Scratch, SigningKey, Store, Vault,
};
use std::sync::Arc;

/// Where a backup goes, and what it needs there.
pub(super) struct Target {
    store: Store,
    key: SigningKey,
    named: Option<ClusterName>,
}

impl Target {
    /// What is wrong with it shows before the cluster is asked for anything.
    pub(super) fn of_flags(into: &IntoVault) -> Result<Option<Self>, Failure> {
        let (Some(url), Some(key)) = (&into.vault, &into.signing_key) else { return Ok(None) };
        let named = into.cluster.as_deref().map(cluster_name).transpose()?;
        Ok(Some(Self { store: open_store(url)?, key: signing_key(key)?, named }))
    }

    pub(super) fn url(&self) -> &str {
        self.store.url()
    }

    /// The cluster's folder; its name is the cluster's UID unless it was given.
    pub(super) async fn vault(&self, facts: &ClusterFacts) -> Result<Vault, Failure> {
        let nameless = || Failure::usage("the cluster does not tell its UID").hint("name it with --cluster");
        let name = match &self.named {
            Some(name) => name.clone(),
            None => cluster_name(&facts.uid.as_deref().ok_or_else(nameless)?.to_ascii_lowercase())?,
        };
        let unread = || format!("cannot read {}", self.url());
        let vault = Vault::new(&self.store, name, &[self.key.signer()]).doing(unread)?;
        let (history, _) = vault.history().await.doing(unread)?;
        same_cluster(&history, &identity(facts), self.url())?;
        Ok(vault)
    }

    /// What a backup would do.
    pub(super) async fn planned(
        &self,
        args: &Backup,
        vault: &Vault,
        facts: &ClusterFacts,
        output: &Output,
    ) -> Result<Exit, Failure> {
        let objects = vault.next_objects(PartKind::Resources, &writer_name()?).await;
        let [part, manifest] = objects.doing(|| format!("cannot read {}", self.url()))?;
        let words = args.select.selection().words();
        let what = if words.is_empty() { "all objects".to_owned() } else { format!("objects: {words}") };
        let scratch = args.into.scratch.as_str();
        BackupPlan::new(self.url())
            .reads(
                format!("the key of {}", self.key.signer()),
                args.into.signing_key.as_deref().map_or("", Utf8Path::as_str),
            )
            .reads(what, facts.server.as_str())
            .writes(
                "the backup as a folder and an archive, Secrets encrypted, until it is in the vault",
                scratch,
            )
            .writes("the archive, compressed and encrypted", part)
            .writes("what is said of it, signed", manifest)
            .show(output)
    }

    /// Packs a backup's folder and puts it into the vault.
    pub(super) async fn put(
        self,
        vault: &Vault,
        recipients: Recipients,
        folder: &Utf8Path,
        index: &Index,
    ) -> Result<Manifest, Failure> {
        let into = || format!("cannot put the backup into {}", self.store.url());
        let (from, archive) = (folder.to_owned(), folder.with_extension("tar"));
        let to = archive.clone();
        let packed = tokio::task::spawn_blocking(move || archive::pack(&from, &to)).await;
        packed.doing(into)?.doing(into)?;
        let meta = ResourcesMeta {
            identity: identity(&index.cluster),
            scope: index.selection.words(),
            taken_ms: index.started_ms,
            objects: index.objects,
            problems: index.problems.len() as u64,
            server_version: index.cluster.version.clone(),
        };
        let writer = vault.writer(writer_name()?, self.key.clone(), recipients).await.doing(into)?;
        writer.put_resources(archive.into(), meta).await.doing(into)
    }
}

fn identity(facts: &ClusterFacts) -> ClusterIdentity {
    ClusterIdentity { kube_system_uid: facts.uid.clone(), etcd_cluster_id: None }
}

/// A folder with a backup. One that was taken out of a vault goes with this value, unless it is kept.
pub(super) struct Opened {
    /// Where it is.
    pub(super) folder: Utf8PathBuf,
    _scratch: Option<Scratch>,
    kept: Option<Utf8PathBuf>,
}

impl Opened {
    /// The folder of the flags; what lies in a vault is fetched first. `keep`: a folder for it from which a later process
    /// can go on.
    pub(super) async fn of_flags(
        place: &Place,
        keep: Option<&Utf8Path>,
        output: &Output,
    ) -> Result<Self, Failure> {
        let (Some(url), Some(identity)) = (&place.vault.from, &place.identity) else {
            let folder = place.folder.clone().unwrap_or_default();
            return Ok(Self { folder, _scratch: None, kept: None });
        };
        let parent = keep.map_or_else(|| place.vault.scratch.clone(), |state_dir| state_dir.join(FETCHED));
        let folder = scratch(&parent)?;
        let path =
            Utf8PathBuf::try_from(folder.path().to_owned()).doing(|| format!("{parent} is not UTF-8"))?;
        let ((number, part, passed_over), unpacked) = fetch(&place.vault, url, identity, &path).await?;
        output.say(&format!("backup {number} of {url}"));
        if let Some(newer) = passed_over {
            output.say(&format!("backup {newer} is newer, but partial: --number {newer} takes it"));
        }
        if keep.is_none() {
            return Ok(Self { folder: unpacked, _scratch: Some(folder), kept: None });
        }
        let kept = parent.join(part);
        // one that is there already is that of a restore that was begun before, and stays whatever becomes of this one
        let is_new = !kept.exists();
        if is_new {
            std::fs::rename(&unpacked, &kept).doing(|| format!("cannot make {kept}"))?;
        }
        Ok(Self { folder: kept.clone(), _scratch: None, kept: is_new.then_some(kept) })
    }

    /// From now on the folder outlives this process: a run needs it.
    pub(super) fn keep(&mut self) {
        self.kept = None;
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(folder) = &self.kept {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// What was fetched for restores that may have to go on, below the folder of runs.
const FETCHED: &str = "fetched";

/// A restore is complete: what was fetched for it goes.
pub(super) fn forget(folder: &Utf8Path, state_dir: &Utf8Path) {
    if folder.parent() == Some(&state_dir.join(FETCHED)) {
        // it holds no Secret in the clear; what can't be removed is in nobody's way
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Number of a backup, a name of its own, and the number of a newer one that is partial.
type Fetched = (u64, String, Option<u64>);

/// Fetches and unpacks a backup below `to`: which one, and its folder.
async fn fetch(
    from: &OutOfVault,
    url: &str,
    identity: &Utf8Path,
    to: &Utf8Path,
) -> Result<(Fetched, Utf8PathBuf), Failure> {
    let trusted: Vec<_> = from.trusted_signers.iter().map(|text| signers(text)).collect::<Result<_, _>>()?;
    let vault = vault(&open_store(url)?, from.cluster.as_deref(), &trusted.concat()).await?;
    let unread = || format!("cannot read {url}");
    let identities =
        Identities::read(identity.as_std_path()).doing(|| "the identity can't be used".into())?;
    let (number, passed_over) = match from.number {
        Some(number) => (number, None),
        None => newest(&vault, url).await?,
    };
    let Content::Resources(resources) = vault.manifest(number).await.doing(unread)?.content else {
        return Err(Failure::usage(format!(
            "backup {number} of {url} holds no objects read through the API"
        ))
        .hint("`rekindle backup list` shows what each one is"));
    };
    let (archive, folder) = (to.join("backup.tar"), to.join("backup"));
    vault.fetch(&resources.part, &Arc::new(identities), archive.as_std_path()).await.doing(unread)?;
    let (unpack, into) = (archive.clone(), folder.clone());
    let unpacked = tokio::task::spawn_blocking(move || archive::unpack(&unpack, &into)).await;
    unpacked.doing(unread)?.doing(|| format!("backup {number} of {url} can't be unpacked"))?;
    std::fs::remove_file(&archive).doing(|| format!("cannot remove {archive}"))?;
    let name = resources.part.sha256;
    Ok(((number, name, passed_over), folder))
}

/// The backup that is meant where no number is given, and a newer one of its kind that is partial.
async fn newest(vault: &Vault, url: &str) -> Result<(u64, Option<u64>), Failure> {
    let (history, _) = vault.history().await.doing(|| format!("cannot read {url}"))?;
    let found = history.resources.iter().map(|one| {
        let Resources { scope, problems, taken_ms, .. } = &one.content;
        Found {
            of_all: scope.is_empty(),
            is_whole: *problems == 0,
            taken_ms: *taken_ms,
            number: one.sequence,
        }
    });
    chosen(&found.collect::<Vec<_>>()).ok_or_else(|| {
        Failure::new(format!("{url} holds no objects of {} read through the API", vault.cluster()))
            .hint("`rekindle resources backup --vault` puts some there")
    })
}

/// A backup in a vault. The greatest is the one that is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    of_all: bool,
    is_whole: bool,
    taken_ms: i64,
    number: u64,
}

fn chosen(found: &[Found]) -> Option<(u64, Option<u64>)> {
    let best = found.iter().max()?;
    let newer = found.iter().filter(|one| one.of_all == best.of_all && one.taken_ms > best.taken_ms);
    Some((best.number, newer.max_by_key(|one| one.taken_ms).map(|one| one.number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A conversion webhook has been dead since Monday: every backup since then is partial. A restore takes the last whole
    // one and says so; a whole one of a single namespace is no backup of the cluster.
    #[test]
    fn the_newest_whole_backup_is_meant() {
        let one = |number, of_all, is_whole| Found {
            of_all,
            is_whole,
            taken_ms: i64::try_from(number).unwrap(),
            number,
        };
        let [whole, partial, later] = [one(1, true, true), one(2, true, false), one(3, true, false)];
        let shop = one(4, false, true);
        assert_eq!(chosen(&[whole, partial, later, shop]), Some((1, Some(3))));
        assert_eq!(chosen(&[whole, partial, one(5, true, true)]), Some((5, None)));
        assert_eq!(chosen(&[partial, later, shop]), Some((3, None)), "partial is better than nothing");
        assert_eq!(chosen(&[shop]), Some((4, None)));
        assert_eq!(chosen(&[]), None);
    }
}
