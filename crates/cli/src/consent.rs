//! Consent: nothing that changes a cluster begins without it.

use crate::args::Consent;
use crate::failure::Failure;
use crate::output::Output;
use std::io::{BufRead, IsTerminal};

/// Proof that a person (or `--yes`) agreed to what was shown; only [`ask`] makes one.
pub(crate) struct Consented(());

/// Asks for a typed `yes`. Without a terminal and without `--yes` it is refused.
pub(crate) fn ask(consent: &Consent, output: &Output, question: &str) -> Result<Consented, Failure> {
    if consent.yes {
        return Ok(Consented(()));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::refused("not carried out: there is no terminal to ask for consent")
            .hint("look at the plan (`--dry-run`), then give --yes"));
    }
    output.say(&format!("{question} Type yes to go on: "));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    match read {
        Ok(_) if line.trim() == "yes" => Ok(Consented(())),
        _ => Err(Failure::refused("not carried out: the answer was not yes")),
    }
}
