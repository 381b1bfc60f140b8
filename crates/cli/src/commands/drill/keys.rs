//! What the restored API server needs of the cluster beside its store: service-account keys, the CA, encryption at rest, and
//! a few flags. From flags, or from the newest bundle of the vault; it lies in the drill's own folder and goes with it.

use super::args::Run;
use super::sandbox::Settings;
use crate::commands::backup;
use crate::failure::{Doing, Failure};
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_vault::Store;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

/// Names in a bundle: paths of the host without the leading `/`.
const PKI: &str = "etc/kubernetes/pki";
const MANIFEST: &str = "etc/kubernetes/manifests/kube-apiserver.yaml";
/// A bundle has some hundred entries; a file of keys some thousand bytes.
const ENTRIES_MAX: usize = 100_000;
const FILE_MAX_BYTES: u64 = 1 << 20;
/// Flags that decide about what is served out of the store.
const FLAGS: [&str; 4] =
    ["--runtime-config=", "--feature-gates=", "--service-account-issuer=", "--service-cluster-ip-range="];
const ETCD_PREFIX: &str = "--etcd-prefix=";
const ENCRYPTION: &str = "--encryption-provider-config=";

/// The settings, and the host whose bundle they are of.
pub(super) async fn find(args: &Run, folder: &Utf8Path) -> Result<(Settings, Option<String>), Failure> {
    let mut settings = Settings {
        etcd_prefix: kube_storage::keys::DEFAULT_PREFIX.into(),
        encryption_missing: "no configuration of encryption at rest was given, and none is in a bundle"
            .into(),
        ..Settings::default()
    };
    let dir = folder.join("keys");
    std::fs::create_dir(&dir).doing(|| format!("cannot make {dir}"))?;
    let mut host = None;
    if let Some((archive, of)) = bundle(args, folder).await? {
        of_bundle(&archive, &dir, &mut settings).doing(|| format!("the bundle of {of} can't be read"))?;
        host = Some(of);
    }
    if let Some(pki) = &args.pki {
        let pki = pki.canonicalize_utf8().doing(|| format!("cannot read {pki}"))?;
        take_pki(&pki, &mut settings);
    }
    if let Some(file) = &args.encryption_config {
        settings.encryption_config = Some(file.canonicalize_utf8().doing(|| format!("cannot read {file}"))?);
    }
    refuse_kms(&mut settings)?;
    Ok((settings, host))
}

fn take_pki(dir: &Utf8Path, settings: &mut Settings) {
    let there = |name: &str| Some(dir.join(name)).filter(|file| file.is_file());
    if let (Some(public), Some(private)) = (there("sa.pub"), there("sa.key")) {
        settings.service_account = Some((public, private));
    }
    if let Some(ca) = there("ca.crt") {
        settings.ca = Some(ca);
    }
}

/// Fetches the vault's newest bundle; its file and its host.
async fn bundle(args: &Run, folder: &Utf8Path) -> Result<Option<(Utf8PathBuf, String)>, Failure> {
    let Some(url) = &args.from.from else { return Ok(None) };
    let store: Store = args.from.store(url)?;
    let vault = backup::vault(&store, args.from.cluster.as_deref(), &args.from.signers()?).await?;
    let (history, _) = vault.history().await.doing(|| format!("cannot read {url}"))?;
    let Some(newest) = history.bundles.iter().max_by_key(|bundle| bundle.content.taken_ms) else {
        return Ok(None);
    };
    let (part, file) = (&newest.content.part, folder.join("bundle.tar"));
    let fetched = vault.fetch(part, &Arc::new(args.from.identities()?), file.as_std_path()).await;
    fetched.doing(|| format!("cannot fetch {}", vault.object(&part.name)))?;
    Ok(Some((file, newest.content.host.clone())))
}

/// Takes out of a bundle what is needed, and nothing else.
fn of_bundle(archive: &Utf8Path, dir: &Utf8Path, settings: &mut Settings) -> Result<(), Failure> {
    let wanted = |name: &str| format!("{PKI}/{name}");
    let names = [wanted("sa.pub"), wanted("sa.key"), wanted("ca.crt"), MANIFEST.into()];
    let mut found = entries(archive, &names)?;
    if let Some(manifest) = found.remove(MANIFEST) {
        let manifest = String::from_utf8_lossy(&manifest).into_owned();
        let told = |flag: &&str| Some(format!("{flag}{}", backup::flag_of(&manifest, flag)?));
        settings.flags = FLAGS.iter().filter_map(told).collect();
        if let Some(prefix) = backup::flag_of(&manifest, ETCD_PREFIX) {
            settings.etcd_prefix = prefix.into();
        }
        if let Some(path) = backup::flag_of(&manifest, ENCRYPTION) {
            let name = path.trim_start_matches('/').to_owned();
            match entries(archive, std::slice::from_ref(&name))?.remove(&name) {
                Some(config) => {
                    let file = dir.join("encryption.yaml");
                    write(&file, &config)?;
                    settings.encryption_config = Some(file);
                }
                None => settings.encryption_missing = format!("the bundle lacks {path}"),
            }
        }
    }
    for (name, content) in &found {
        let name = Utf8Path::new(name).file_name().unwrap_or_default();
        write(&dir.join(name), content)?;
    }
    take_pki(dir, settings);
    Ok(())
}

/// The plain files of these names.
fn entries(archive: &Utf8Path, names: &[String]) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let unread = || format!("cannot read {archive}");
    let mut tar = tar::Archive::new(std::fs::File::open(archive).doing(unread)?);
    let mut found = BTreeMap::new();
    for entry in tar.entries().doing(unread)?.take(ENTRIES_MAX) {
        let entry = entry.doing(unread)?;
        let name = entry.path().doing(unread)?.to_string_lossy().into_owned();
        if !names.contains(&name) || !entry.header().entry_type().is_file() {
            continue;
        }
        let mut content = Vec::new();
        entry.take(FILE_MAX_BYTES).read_to_end(&mut content).doing(unread)?;
        found.insert(name, content);
    }
    Ok(found)
}

fn write(path: &Utf8Path, content: &[u8]) -> Result<(), Failure> {
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content)).doing(|| format!("cannot write {path}"))
}

#[derive(Deserialize)]
struct Encryption {
    #[serde(default)]
    resources: Vec<Encrypted>,
}

#[derive(Deserialize)]
struct Encrypted {
    #[serde(default)]
    providers: Vec<BTreeMap<String, serde::de::IgnoredAny>>,
}

/// A KMS is asked over a socket that is a file: nothing would keep a restored API server from asking that of production.
fn refuse_kms(settings: &mut Settings) -> Result<(), Failure> {
    let Some(file) = &settings.encryption_config else { return Ok(()) };
    let text = std::fs::read_to_string(file).doing(|| format!("cannot read {file}"))?;
    // the parser's error may quote the keys
    let config: Encryption = serde_saphyr::from_str(&text)
        .map_err(|_| Failure::new(format!("{file} is no configuration of encryption at rest")))?;
    let mut providers = config.resources.iter().flat_map(|resource| &resource.providers);
    if providers.any(|provider| provider.contains_key("kms")) {
        settings.encryption_config = None;
        settings.encryption_missing = "a KMS holds the keys, and no sandbox may ask it".into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(config: &str) -> Settings {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8PathBuf::try_from(dir.path().join("enc.yaml")).unwrap();
        std::fs::write(&file, config).unwrap();
        let mut settings = Settings { encryption_config: Some(file), ..Settings::default() };
        refuse_kms(&mut settings).unwrap();
        settings
    }

    // A sandbox has no network, but a KMS listens on a file: such a configuration must not get into it.
    #[test]
    fn no_sandbox_gets_a_kms() {
        let local = "resources: [{resources: [secrets], providers: [{aescbc: {keys: []}}, {identity: {}}]}]";
        assert!(refused(local).encryption_config.is_some());
        let kms = "resources: [{resources: [secrets], providers: [{kms: {name: a, endpoint: unix:///k}}, {identity: {}}]}]";
        let settings = refused(kms);
        assert!(settings.encryption_config.is_none() && settings.encryption_missing.contains("KMS"));
    }
}
