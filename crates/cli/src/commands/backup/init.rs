//! `rekindle backup init`: the key, the store and the identity, each proved before the first backup counts on it.

use super::args::Init;
use super::report::BackupInit;
use super::{passphrase, recipients, store};
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use rekindle_vault::{Identities, SigningKey, keys};

pub(super) async fn run(args: &Init, output: &Output) -> Result<Exit, Failure> {
    let store = store(&args.place)?;
    store.probe().await.map_err(|error| {
        Failure::new(format!("{} is not fit for backups", store.url()))
            .because(error)
            .hint("it must be writable, and honour conditional writes (If-None-Match)")
    })?;
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
    let made = !path.exists();
    let key = if made { SigningKey::create(path) } else { SigningKey::read(path) };
    let key = key.doing(|| "no key to sign with".into())?;
    let report = BackupInit::new(store.url(), key.signer(), &args.signing_key, made);
    output.document(&report, |_| report.table())?;
    output.say("Keep the identity outside this cluster and outside its bundles: without it no backup can be read, and with it");
    output.say("every secret of the cluster can. Who reads the vault must know the signer; note it where the identity is.");
    Ok(Exit::Ok)
}
