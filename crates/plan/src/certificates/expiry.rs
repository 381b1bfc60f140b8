//! What a drill does to certificates: each is signed anew, by the authority that is there, for a time that is over. The
//! ordinary renewal finds what it would find after a year off.

use super::Renew;
use super::pick::{Work, left_out, reachable, work};
use super::steps::{add_signed, add_start_kubelet, add_stopped_swap};
use crate::build::Steps;
use crate::survey::Context;

/// They ended so long ago, so that no clock of the cluster is still before it.
const ENDED_S: i64 = 3_600;

/// Adds the steps for every host given. What is left of the control plane is not waited for: it can't work.
///
/// # Errors
/// Why these certificates can't be let expire: what can't be renewed afterwards must not be broken.
pub(crate) fn add_expiry(context: &Context<'_>, steps: &mut Steps) -> Result<(), String> {
    if let Some(why) = left_out(context) {
        return Err(format!("not every host given could be read: {why}"));
    }
    let wanted = Renew { all: true, ..Renew::default() };
    let (mut external, mut works) = (Vec::new(), Vec::new());
    for host in reachable(context) {
        works.extend(work(context, host, &wanted, &mut external)?);
    }
    if let Some(why) = external.first() {
        return Err(format!("a certificate could not be renewed afterwards: {why}"));
    }
    if works.is_empty() {
        return Err("there is no certificate on these hosts that Rekindle could renew afterwards".into());
    }
    for work in &mut works {
        let now_s = context.inventory.host_now_s(work.host);
        expire(work, now_s.saturating_sub(ENDED_S));
    }
    add_signed(steps, &works);
    steps.stage();
    works.iter().for_each(|work| add_stopped_swap(steps, work));
    // units are left stopped: with such certificates some never report that they have started
    steps.stage();
    works.iter().for_each(|work| add_start_kubelet(steps, work));
    Ok(())
}

/// As long as they were valid, they were valid until then.
fn expire(work: &mut Work<'_>, end_s: i64) {
    // the pair that kubelet signs itself is its own to make
    work.set_aside.clear();
    for (_, renewal) in &mut work.renewals {
        renewal.not_before_s = end_s.saturating_sub(renewal.old.lifetime_s());
        renewal.not_after_s = end_s;
    }
}
