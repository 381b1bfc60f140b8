//! Commands out of a Markdown document, to be run as they are printed.

use anyhow::{Context, Result, ensure};

/// The blocks of commands of a chapter's section (`## chapter`, `### section`), in their order.
///
/// # Errors
/// When there is no such section, or no block in it.
pub fn commands(document: &str, chapter: &str, section: &str) -> Result<Vec<String>> {
    let section = part(part(document, chapter, "##")?, section, "###")?;
    let blocks = section.split("```console\n").skip(1).filter_map(|block| block.split("```").next());
    let blocks: Vec<String> = blocks.map(str::to_owned).collect();
    ensure!(!blocks.is_empty(), "no commands: {section}");
    Ok(blocks)
}

fn part<'a>(text: &'a str, heading: &str, level: &str) -> Result<&'a str> {
    let (_, after) =
        text.split_once(&format!("\n{level} {heading}\n")).with_context(|| format!("no {heading:?}"))?;
    Ok(after.split(&format!("\n{level} ")).next().unwrap_or_default())
}
