//! `rekindle runbook`: what was seen of the cluster, or was saved of it, as a runbook. The text is made by `crates/runbook`.

use super::agent::AgentConfig;
use super::check::options;
use super::managed;
use crate::args::Hosts;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Args as ClapArgs, ValueEnum};
use rekindle_model::API_VERSION;
use rekindle_model::inventory::Inventory;
use rekindle_runbook::site::{Notes, Site};
use rekindle_world::observe::observe;
use schemars::JsonSchema;
use serde::Serialize;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;

/// What `--out` writes: the Markdown, the HTML, and what both were made of.
pub(super) const FILES: [&str; 3] = ["runbook.md", "runbook.html", INVENTORY];
pub(super) const INVENTORY: &str = "inventory.json";
/// An inventory of a thousand nodes has some megabytes.
const INVENTORY_MAX_BYTES: u64 = 256 << 20;

/// `rekindle runbook`
#[derive(Debug, ClapArgs)]
pub(crate) struct Runbook {
    #[command(flatten)]
    hosts: Hosts,
    /// The agent's configuration file: its vault, cluster, signers and `contacts`.
    #[arg(long, value_name = "FILE")]
    config: Option<Utf8PathBuf>,
    /// Make it of what was saved by an earlier `--out`, and look at no host.
    #[arg(long, value_name = "FILE", conflicts_with = "hosts")]
    inventory: Option<Utf8PathBuf>,
    /// Write runbook.md, runbook.html and inventory.json into this folder, over earlier ones.
    #[arg(long, value_name = "DIR")]
    out: Option<Utf8PathBuf>,
    /// The form on standard output.
    #[arg(long, value_enum, default_value_t = Form::Md)]
    form: Form,
}

/// Forms of a runbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Markdown, its chart as Mermaid.
    Md,
    /// One HTML page that needs nothing else, and prints well.
    Html,
}

/// A runbook.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunbookDocument {
    /// `rekindle/v1alpha1`.
    api_version: &'static str,
    /// `Runbook`.
    kind: &'static str,
    /// When the cluster was looked at, milliseconds since the Unix epoch.
    taken_ms: i64,
    /// Hosts that could not be read, and are missing from its commands.
    missing: Vec<String>,
    /// As Markdown.
    markdown: String,
    /// As HTML.
    html: String,
}

pub(super) fn run(args: &Runbook, output: &Output) -> Result<Exit, Failure> {
    let notes = match &args.config {
        Some(file) => AgentConfig::file(file)?.notes(),
        None => Notes::default(),
    };
    let inventory = match &args.inventory {
        Some(file) => saved(file)?,
        None => connect::runtime()?.block_on(async {
            managed::refuse(&args.hosts, "runbook", managed::LOST_OBJECTS, output).await?;
            let world = connect::world(&args.hosts).await?;
            Ok::<_, Failure>(observe(&world, &options(&args.hosts, None, None)).await)
        })?,
    };
    let mut missing = Vec::new();
    for host in inventory.hosts.iter() {
        if let Some(why) = &host.unreachable {
            missing.push(host.id.to_string());
            output.say(&format!("{} could not be read, and is missing from the commands: {why}", host.id));
        }
    }
    for what in Site::new(&inventory, &notes).uncovered() {
        output.say(&format!(
            "{what} is not known, so no restore by hand is printed: name all control-plane hosts"
        ));
        missing.push(what);
    }
    let document = rekindle_runbook::runbook(&inventory, &notes);
    let made = RunbookDocument {
        api_version: API_VERSION,
        kind: "Runbook",
        taken_ms: inventory.taken_ms,
        missing,
        markdown: document.markdown(),
        html: document.html(),
    };
    let Some(dir) = &args.out else {
        let text = if args.form == Form::Html { &made.html } else { &made.markdown };
        output.document(&made, |_| text.clone())?;
        return Ok(Exit::Ok);
    };
    let json = serde_json::to_string_pretty(&inventory).doing(|| "cannot render the inventory".into())?;
    for (name, text) in FILES.into_iter().zip([&made.markdown, &made.html, &json]) {
        write(dir, name, text)?;
    }
    output.document(&made, |_| format!("wrote runbook.md, runbook.html and inventory.json into {dir}\n"))?;
    Ok(Exit::Ok)
}

/// An inventory that `--out` has written.
pub(super) fn saved(file: &Utf8Path) -> Result<Inventory, Failure> {
    let unread = || format!("cannot read {file}");
    let mut text = Vec::new();
    std::fs::File::open(file)
        .doing(unread)?
        .take(INVENTORY_MAX_BYTES)
        .read_to_end(&mut text)
        .doing(unread)?;
    serde_json::from_slice(&text).map_err(|error| {
        Failure::new(format!("{file} is no inventory"))
            .because(error)
            .hint("`rekindle runbook --out DIR` writes DIR/inventory.json")
    })
}

/// Writes it, whole or not at all.
fn write(dir: &Utf8Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = dir.join(name);
    let doing = || format!("cannot write {path}");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).doing(doing)?;
    let mut file = tempfile::NamedTempFile::new_in(dir).doing(doing)?;
    file.write_all(text.as_bytes()).doing(doing)?;
    file.as_file().sync_all().doing(doing)?;
    file.persist(&path).doing(doing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use rekindle_model::fixtures::Fixture;
    use rekindle_runbook::site::VaultNote;

    /// The words of a line, as a shell takes them.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(std::mem::take(&mut word)),
                c => word.push(c),
            }
        }
        words.push(word);
        words.retain(|word| !word.is_empty());
        words
    }

    // Nobody checks a command at 3 a.m.: every one that a runbook gives is one that this program takes.
    #[test]
    fn every_command_of_a_runbook_is_taken() {
        let vault =
            VaultNote { url: "s3://b".into(), cluster: "c".into(), signers: vec!["ed25519:AAAA".into()] };
        let with_vault = Notes { vault: Some(vault), ..Notes::default() };
        let mut taken = 0;
        for notes in [with_vault, Notes::default()] {
            for inventory in
                [Fixture::kubeadm(3).build(), Fixture::kubeadm(1).build(), Fixture::systemd().build()]
            {
                let text = rekindle_runbook::runbook(&inventory, &notes).markdown();
                for line in text.lines().filter(|line| line.starts_with("rekindle ")) {
                    let parsed = crate::args::Args::try_parse_from(words(line));
                    assert!(parsed.is_ok(), "{line}: {}", parsed.err().unwrap());
                    taken += 1;
                }
            }
        }
        assert!(taken > 60, "{taken}");
    }
}
