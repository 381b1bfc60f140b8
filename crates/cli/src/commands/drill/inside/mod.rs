//! The inside of the sandbox (`rekindle drill inside`): loopback is set up, etcd and the API server are booted from the
//! restored store, and what they answer is compared with what lies in it.
//!
//! - `boot.rs`: the processes and their certificates. `native.rs`: what lies in the store, read without etcd.
//! - `served.rs`: which resources are served. `compare.rs`: every object, listed at the restored revision.
//! - `accounts.rs`: service-account keys and the CA. `wishes.rs`: the checks of the user's own.

mod accounts;
mod boot;
mod compare;
mod native;
mod served;
mod wishes;

use super::BOOTS;
use super::report::{Booted, Check, Phase};
use super::sandbox::{Spec, Told, network_namespace};
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use std::io::{BufRead, Read};
use std::process::Command;
use std::time::Instant;

/// A line that is longer is no order.
const SPEC_MAX_BYTES: u64 = 1 << 20;

pub(super) fn run(output: &Output) -> Result<Exit, Failure> {
    let mut line = String::new();
    let read = std::io::stdin().lock().take(SPEC_MAX_BYTES).read_line(&mut line);
    read.doing(|| "nobody says what to do".into())?;
    let spec: Spec = serde_json::from_str(&line).doing(|| "only `rekindle drill run` starts this".into())?;
    std::thread::spawn(|| {
        // its end is the parent's end
        let _ = std::io::stdin().lock().read(&mut [0]);
        std::process::exit(1);
    });
    close(&spec)?;
    let told = connect::runtime()?.block_on(work(&spec, output));
    output.data(&serde_json::to_string(&told).doing(|| "cannot tell what was seen".into())?)?;
    Ok(Exit::Ok)
}

/// Makes sure that nothing leads out, then sets up loopback.
fn close(spec: &Spec) -> Result<(), Failure> {
    let open = || Failure::refused("this is no sandbox: the network of the host is in reach");
    if network_namespace()? == spec.outside {
        return Err(open());
    }
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !up.doing(|| "loopback can't be set up".into())?.success() {
        return Err(Failure::new("loopback can't be set up"));
    }
    // a heading, and no route
    let routes = std::fs::read_to_string("/proc/self/net/route").doing(|| "routes can't be read".into())?;
    if routes.lines().count() > 1 { Err(open()) } else { Ok(()) }
}

async fn work(spec: &Spec, output: &Output) -> Told {
    let mut told = Told::default();
    if let Err(failure) = steps(spec, &mut told, output).await {
        told.failure = Some(failure.line());
    }
    told
}

async fn steps(spec: &Spec, told: &mut Told, output: &Output) -> Result<(), Failure> {
    // before etcd has it
    let native = native::read(&spec.data_dir, &spec.settings.etcd_prefix)?;
    let mut clock = Clock(Instant::now());
    output.say("booting etcd from what was restored");
    let (_etcd, version) = boot::etcd(spec).await?;
    told.phases.push(clock.phase("etcd"));
    told.checks.push(Check::passed(
        "etcd boots from it and answers the same HashKV",
        format!("etcd {version}, HashKV {} at revision {}", spec.hash, spec.revision),
    ));
    let mut booted = Booted { etcd: version, api_server: String::new(), objects: 0, sentinels: Vec::new() };
    let Some(api_server) = &spec.api_server else { return Ok(()) };
    if native.encrypted > 0 && spec.settings.encryption_config.is_none() {
        let why = format!(
            "{} objects are encrypted at rest: {}",
            native.encrypted, spec.settings.encryption_missing
        );
        told.checks.push(Check::not_proved(BOOTS, why));
        return Ok(());
    }
    output.say("booting an API server on it");
    let api = boot::api_server(spec, api_server, &native).await?;
    told.phases.push(clock.phase("apiServer"));
    booted.api_server.clone_from(&api.version);
    told.checks.push(Check::passed(BOOTS, api.version.clone()));
    output.say("comparing every object");
    let compared = compare::all(&api.cluster, &native, spec.revision).await;
    // what was booted is told even if the rest fails
    let compared = match compared {
        Ok(compared) => compared,
        Err(failure) => {
            told.booted = Some(booted);
            return Err(failure);
        }
    };
    (booted.objects, booted.sentinels) = (compared.objects, compared.sentinels);
    told.checks.extend(compared.checks);
    told.checks.extend(accounts::checks(&api.cluster, &spec.settings, spec.revision).await);
    told.phases.push(clock.phase("compare"));
    told.booted = Some(booted);
    told.checks.extend(wishes::checks(&api, spec).await);
    Ok(())
}

/// Measures one phase after another.
struct Clock(Instant);

impl Clock {
    fn phase(&mut self, name: &str) -> Phase {
        let took = std::mem::replace(&mut self.0, Instant::now()).elapsed();
        Phase { name: name.into(), took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX) }
    }
}
