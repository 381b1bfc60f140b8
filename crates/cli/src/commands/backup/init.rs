//! `rekindle backup init`: the key, the store and the identity, each proved before the first backup counts on it.

use super::args::Init;
use super::dry::BackupPlan;
use super::report::BackupInit;
use super::{passphrase, recipients, store};
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::Utf8Path;
use rekindle_vault::{Identities, SigningKey, Store, keys};

pub(super) async fn run(args: &Init, output: &Output) -> Result<Exit, Failure> {
    let (store, key) = decide(args)?;
    if args.dry_run {
        return planned(args, &store, key.as_ref()).show(output);
    }
    store.probe().await.map_err(|error| {
        Failure::new(format!("{} is not fit for backups", store.url()))
            .because(error)
            .hint("it must be writable, and honour conditional writes (If-None-Match)")
    })?;
    let made = key.is_none();
    let key = match key {
        Some(key) => key,
        None => SigningKey::create(args.signing_key.as_std_path()).doing(no_key)?,
    };
    let report = BackupInit::new(store.url(), key.signer(), &args.signing_key, made);
    output.document(&report, |_| report.table())?;
    output.say("Keep the identity outside this cluster and outside its bundles: without it no backup can be read, and with it");
    output.say("every secret of the cluster can. Who reads the vault must know the signer; note it where the identity is.");
    Ok(Exit::Ok)
}

fn no_key() -> String {
    "no key to sign with".into()
}

/// The store, and the key if it is there already. The identity is proved here, in memory: nothing is changed.
fn decide(args: &Init) -> Result<(Store, Option<SigningKey>), Failure> {
    let store = store(&args.place)?;
    let recipients = recipients(&args.encrypt)?;
    let identities = match (&args.identity, &args.encrypt.passphrase_file) {
        (Some(path), _) => Identities::read(path.as_std_path()).doing(|| "no identity to prove".into())?,
        (None, Some(path)) => Identities::passphrase(passphrase(path)?),
        (None, None) => return Err(Failure::usage("no identity was given")),
    };
    keys::prove(&recipients, &identities).map_err(|error| {
        Failure::refused("the identity can't read what would be written")
            .because(error)
            .hint("give the recipient that belongs to it: `age-keygen -y IDENTITY-FILE` prints it")
    })?;
    let path = args.signing_key.as_std_path();
    let key = if path.exists() { Some(SigningKey::read(path).doing(no_key)?) } else { None };
    Ok((store, key))
}

fn planned(args: &Init, store: &Store, key: Option<&SigningKey>) -> BackupPlan {
    let identity = args.identity.as_deref().or(args.encrypt.passphrase_file.as_deref());
    let plan = BackupPlan::new(store.url()).reads(
        "the identity, which was proved to read what would be written",
        identity.map_or("", Utf8Path::as_str),
    );
    let plan = match key {
        Some(key) => plan.reads(format!("the signing key of {}", key.signer()), args.signing_key.as_str()),
        None => plan.writes("a new signing key, mode 0600", args.signing_key.as_str()),
    };
    let probe = "an object that is removed again, to prove that the store honours conditional writes";
    plan.writes(probe, format!("{}/_probe/UUID", store.url().trim_end_matches('/')))
}
