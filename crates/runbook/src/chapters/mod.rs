//! The chapters: `overview.rs` is the cluster and the chart; the others are failures, each with how it looks, what to do with
//! Rekindle and by hand, how to verify and how to go back.

mod certificates;
mod control_plane;
mod etcd;
mod objects;
mod overview;

use crate::doc::{Block, Document};
use crate::site::Site;

/// What is done about one kind of failure.
pub(crate) struct Chapter {
    pub(crate) title: &'static str,
    /// How it looks.
    pub(crate) looks: Vec<String>,
    /// Commands of Rekindle.
    pub(crate) rekindle: String,
    /// The same with stock tools: what a block is about, and the commands.
    pub(crate) by_hand: Vec<(String, String)>,
    /// How to see that it worked.
    pub(crate) verify: String,
    /// How to go back.
    pub(crate) back: Vec<(String, String)>,
}

/// The whole document.
pub(crate) fn all(site: &Site<'_>) -> Document {
    let mut document = overview::begin(site);
    let chapters = [
        control_plane::stopped(site),
        etcd::one_member_lost(site),
        etcd::data_lost(site),
        certificates::expired(site),
        objects::node_lost(site),
        objects::stuck(site),
        objects::object_lost(site),
        etcd::all_gone(site),
    ];
    for chapter in chapters {
        write(&mut document, chapter);
    }
    document
}

fn write(document: &mut Document, chapter: Chapter) {
    document.chapter(chapter.title);
    document.section("How it looks");
    document.push(Block::List(chapter.looks));
    document.section("With Rekindle");
    document.code(chapter.rekindle);
    for (heading, blocks) in [("By hand", chapter.by_hand), ("Verify", Vec::new()), ("Go back", chapter.back)]
    {
        document.section(heading);
        if heading == "Verify" {
            document.code(chapter.verify.clone());
        }
        for (text, code) in blocks {
            if !text.is_empty() {
                document.text(text);
            }
            if !code.is_empty() {
                document.code(code);
            }
        }
    }
}

/// How a run of Rekindle is taken back.
const UNDO: &str = "rekindle runs\nrekindle runs undo RUN\n";

/// What is asked when everything is said to be well again.
fn verify_all(site: &Site<'_>) -> String {
    let mut text = format!("rekindle check{}\n", site.host_flags());
    let mut asked: Vec<String> = Vec::new();
    for host in &site.hosts {
        let Some(api) = host.facts.api.known() else { continue };
        let url = crate::site::quoted(&format!("{}/readyz?verbose", api.server));
        if !asked.contains(&url) {
            // a host may know its own API server by an address that means another one elsewhere
            let own = ["127.0.0.1", "localhost", "[::1]"].iter().any(|own| api.server.contains(own));
            let place = if own && site.hosts.len() > 1 { "      # on each control-plane host" } else { "" };
            text.push_str(&format!("curl -sk {url}{place}\n"));
            asked.push(url);
        }
    }
    let kubectl = site.kubectl();
    text.push_str(&format!("{kubectl} get nodes\n{kubectl} get pods -A | grep -v -e Running -e Completed\n"));
    text
}
