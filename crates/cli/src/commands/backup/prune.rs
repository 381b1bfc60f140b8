//! `rekindle backup prune`: shows what would go, asks, removes.

use super::args::Prune;
use super::report::BackupPrune;
use super::{signing_key, store, vault, writer_name};
use crate::consent;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use jiff::{Span, SpanRelativeTo, Unit};
use rekindle_vault::{Retention, Signer};

pub(super) async fn run(args: &Prune, output: &Output) -> Result<Exit, Failure> {
    let key = signing_key(&args.signing_key)?;
    let mut trusted = vec![key.signer()];
    for text in &args.signers {
        let signer: Signer =
            text.parse().map_err(|e: rekindle_vault::Error| Failure::usage(e.to_string()))?;
        trusted.push(signer);
    }
    let retention = retention(args)?;
    let vault = vault(&store(&args.place)?, args.cluster.as_deref(), &trusted).await?;
    let (url, now_ms) = (&args.place.url, jiff::Timestamp::now().as_millisecond());
    let failed = || format!("cannot prune {url}");
    let told = vault.prune(writer_name()?, key.clone(), &retention, now_ms, true).await.doing(failed)?;
    let told = BackupPrune::new(url, told);
    if args.consent.dry_run || told.is_nothing() {
        output.document(&told, |short| told.table(short))?;
        return Ok(Exit::Ok);
    }
    if !args.consent.yes {
        output.say(&told.table(false));
    }
    consent::ask(&args.consent, output, "These backups will be gone.")?;
    let done = vault.prune(writer_name()?, key, &retention, now_ms, false).await.doing(failed)?;
    let done = BackupPrune::new(url, done);
    output.document(&done, |short| done.table(short))?;
    Ok(Exit::Ok)
}

fn retention(args: &Prune) -> Result<Retention, Failure> {
    Ok(Retention {
        last: args.keep_last,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        within_ms: args.keep_within.as_ref().map(|span| ms("--keep-within", span)).transpose()?,
        point_in_time_ms: args.point_in_time.as_ref().map(|span| ms("--point-in-time", span)).transpose()?,
    })
}

/// A span of days, hours and less; a day has 24 hours.
pub(in crate::commands) fn ms(flag: &str, span: &Span) -> Result<i64, Failure> {
    let wrong = || Failure::usage(format!("{flag}: {span:#} is no time that can be counted in hours"));
    let days = SpanRelativeTo::days_are_24_hours();
    let total = span.total((Unit::Hour, days)).map_err(|error| wrong().because(error))?;
    if total <= 0.0 {
        return Err(wrong());
    }
    let rounded = span
        .round(jiff::SpanRound::new().largest(Unit::Millisecond).smallest(Unit::Millisecond).relative(days));
    rounded.map(|span| span.get_milliseconds()).map_err(|error| wrong().because(error))
}
