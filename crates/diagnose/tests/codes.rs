//! Codes are a contract: scripts match them, people look them up. Each has one entry and one page, and the pages say
//! what the table says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use rekindle_diagnose::codes::CODES;
use rekindle_model::finding::Layer;
use std::collections::BTreeSet;
use std::path::Path;

// A page without an entry, an entry without a page, a title that drifted: each breaks a link a person follows at night.
#[test]
fn every_code_has_its_page_and_every_page_its_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/findings");
    for entry in CODES {
        let path = folder.join(format!("{}.md", entry.code));
        let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let first = page.lines().next().unwrap();
        assert_eq!(first, format!("# {}: {}", entry.code, entry.title));
        assert!(
            page.contains(&format!("Severity: {:?}.", entry.severity).to_lowercase().replacen('s', "S", 1))
        );
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&page).contains(&words(entry.meaning)), "{}: the page says something else", entry.code);
        for heading in ["## What it means", "## How it looks", "## What Rekindle does", "## By hand"] {
            assert!(page.contains(&format!("\n{heading}\n")), "{}: no {heading:?}", entry.code);
        }
    }
    let pages: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("RK-"))
        .collect();
    let codes: BTreeSet<String> = CODES.iter().map(|c| format!("{}.md", c.code)).collect();
    assert_eq!(pages, codes);
}

// A code names its layer by its letter and stands once in the table; what it follows from is in the table too.
#[test]
fn the_table_is_consistent() {
    let all: BTreeSet<&str> = CODES.iter().map(|c| c.code).collect();
    assert_eq!(all.len(), CODES.len(), "a code stands twice");
    for entry in CODES {
        let letter = match entry.layer {
            Layer::Host => 'H',
            Layer::Certificates => 'P',
            Layer::Runtime => 'R',
            Layer::Kubelet => 'K',
            Layer::ControlPlane | Layer::Leases => 'C',
            Layer::Etcd => 'E',
            Layer::ApiServer | Layer::Vip | Layer::Objects => 'A',
            Layer::Nodes => 'N',
        };
        assert_eq!(entry.code.chars().nth(3), Some(letter), "{}", entry.code);
        assert!(!entry.title.is_empty() && !entry.meaning.is_empty() && !entry.remedy.is_empty());
        for follows in entry.follows {
            assert!(
                all.contains(follows),
                "{} follows from {follows}, which is not in the table",
                entry.code
            );
        }
    }
}
