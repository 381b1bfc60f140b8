//! A document as blocks, written as Markdown or as one HTML file that needs nothing else and prints well.
//!
//! Texts may quote code in backticks. Everything else in them is text: what a cluster's names hold is never markup.

use std::fmt::Write;

/// A document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// Its title.
    pub title: String,
    /// What it says, in order.
    pub blocks: Vec<Block>,
}

/// A part of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// A chapter's title.
    Chapter(String),
    /// The title of a part of a chapter.
    Section(String),
    /// A paragraph.
    Text(String),
    /// Points in no order.
    List(Vec<String>),
    /// Steps in order.
    Steps(Vec<String>),
    /// Commands or a file, as they are typed.
    Code(String),
    /// Rows of cells under a head.
    Table(Vec<String>, Vec<Vec<String>>),
    /// A drawing: for HTML as SVG, for Markdown as Mermaid.
    Figure {
        /// The drawing.
        svg: String,
        /// The same, as text.
        mermaid: String,
    },
}

impl Document {
    /// A document without blocks.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), blocks: Vec::new() }
    }

    /// Adds a block.
    pub fn push(&mut self, block: Block) -> &mut Self {
        self.blocks.push(block);
        self
    }

    /// Adds a chapter's title.
    pub fn chapter(&mut self, title: impl Into<String>) -> &mut Self {
        self.push(Block::Chapter(title.into()))
    }

    /// Adds a section's title.
    pub fn section(&mut self, title: impl Into<String>) -> &mut Self {
        self.push(Block::Section(title.into()))
    }

    /// Adds a paragraph.
    pub fn text(&mut self, text: impl Into<String>) -> &mut Self {
        self.push(Block::Text(text.into()))
    }

    /// Adds commands.
    pub fn code(&mut self, code: impl Into<String>) -> &mut Self {
        self.push(Block::Code(code.into()))
    }

    /// Adds a table; none without rows.
    pub fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) -> &mut Self {
        if !rows.is_empty() {
            self.push(Block::Table(head.iter().map(|cell| (*cell).to_owned()).collect(), rows));
        }
        self
    }

    /// As Markdown (CommonMark with tables).
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n", inline_markdown(&self.title));
        for block in &self.blocks {
            text.push('\n');
            match block {
                Block::Chapter(title) => line(&mut text, "## ", title),
                Block::Section(title) => line(&mut text, "### ", title),
                Block::Text(words) => line(&mut text, "", words),
                Block::List(points) => points.iter().for_each(|point| line(&mut text, "- ", point)),
                Block::Steps(steps) => steps.iter().for_each(|step| line(&mut text, "1. ", step)),
                Block::Code(code) => fenced(&mut text, "console", code),
                Block::Table(head, rows) => table_markdown(&mut text, head, rows),
                Block::Figure { mermaid, .. } => fenced(&mut text, "mermaid", mermaid),
            }
        }
        text
    }

    /// As one HTML file.
    pub fn html(&self) -> String {
        let title = escaped(&self.title.replace('`', ""));
        let mut text = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n<body>\n<h1>{}</h1>\n",
            inline_html(&self.title)
        );
        for block in &self.blocks {
            let _ = match block {
                Block::Chapter(title) => {
                    writeln!(text, "<h2 id=\"{}\">{}</h2>", slug(title), inline_html(title))
                }
                Block::Section(title) => writeln!(text, "<h3>{}</h3>", inline_html(title)),
                Block::Text(words) => writeln!(text, "<p>{}</p>", inline_html(words)),
                Block::List(points) => writeln!(text, "<ul>{}</ul>", items(points)),
                Block::Steps(steps) => writeln!(text, "<ol>{}</ol>", items(steps)),
                Block::Code(code) => writeln!(text, "<pre>{}</pre>", escaped(code)),
                Block::Table(head, rows) => writeln!(text, "{}", table_html(head, rows)),
                Block::Figure { svg, .. } => writeln!(text, "<figure>{svg}</figure>"),
            };
        }
        text.push_str("</body>\n</html>\n");
        text
    }
}

const STYLE: &str = "\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #d0d7de; }
h3 { margin-bottom: .3rem; } code, pre { font: 13px/1.45 ui-monospace, monospace; background: #f4f6f8; }
code { padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; } td code { overflow-wrap: break-word; }
pre { padding: .7rem .9rem; border-left: 3px solid #57606a; white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
border-bottom: 1px solid #d0d7de; overflow-wrap: break-word; font-size: 14px; } th { white-space: nowrap; }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
@media print { body { font-size: 10.5pt; margin: 0; max-width: none; } th, td { font-size: 8.5pt; padding: .2rem .4rem; }
td code { font-size: 8pt; } p:has(+ pre) { break-after: avoid; } h2:not(:first-of-type) { break-before: page; } h2, h3 { break-after: avoid; }
pre, table, figure { break-inside: avoid; } pre { border: 1px solid #d0d7de; border-left-width: 3px; } @page { margin: 16mm; } }
";

fn line(text: &mut String, before: &str, words: &str) {
    let _ = writeln!(text, "{before}{}", inline_markdown(words));
}

/// A fence that is longer than any in the code.
fn fenced(text: &mut String, language: &str, code: &str) {
    let longest = code.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let _ = writeln!(text, "{fence}{language}\n{}\n{fence}", code.trim_end());
}

fn table_markdown(text: &mut String, head: &[String], rows: &[Vec<String>]) {
    let row = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| inline_markdown(cell).replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    text.push_str(&row(head));
    let _ = writeln!(text, "|{}", "---|".repeat(head.len()));
    rows.iter().for_each(|cells| text.push_str(&row(cells)));
}

fn table_html(head: &[String], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, cells: &[String]| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", inline_html(cell))).collect()
    };
    let body: String = rows.iter().map(|row| format!("<tr>{}</tr>\n", cells("td", row))).collect();
    // a table of two columns of names and values has no head
    let head = if head.iter().all(String::is_empty) {
        String::new()
    } else {
        format!("<tr>{}</tr>\n", cells("th", head))
    };
    format!("<table>\n{head}{body}</table>")
}

fn items(points: &[String]) -> String {
    points.iter().map(|point| format!("<li>{}</li>\n", inline_html(point))).collect()
}

/// A title as the name of its place in a page.
pub(crate) fn slug(title: &str) -> String {
    let dashed: String =
        title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    dashed.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

/// Text for HTML and XML, also in attributes.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

fn inline_html(text: &str) -> String {
    pieces(text)
        .map(|(code, piece)| {
            let piece = escaped(piece);
            if code { format!("<code>{piece}</code>") } else { piece }
        })
        .collect()
}

fn inline_markdown(text: &str) -> String {
    let one_line = text.replace(['\n', '\r'], " ");
    pieces(&one_line)
        .map(|(code, piece)| {
            if code {
                format!("`{piece}`")
            } else {
                piece.chars().fold(String::new(), |mut text, c| {
                    if matches!(c, '\\' | '*' | '_' | '[' | ']' | '<' | '>' | '#') {
                        text.push('\\');
                    }
                    text.push(c);
                    text
                })
            }
        })
        .collect()
}

/// Text, code, text, ...; a last backtick without its fellow begins none.
fn pieces(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let ticks = text.matches('`').count();
    let parts: Vec<&str> =
        text.splitn(if ticks.is_multiple_of(2) { ticks + 1 } else { ticks }, '`').collect();
    parts
        .into_iter()
        .enumerate()
        .map(|(index, piece)| (index % 2 == 1, piece))
        .filter(|(_, piece)| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    // A node may be named by an attacker: in neither form does its name become markup.
    #[test]
    fn names_are_never_markup() {
        let mut document = Document::new("Cluster `prod`");
        document.text("host <script>alert(1)</script> runs `a && b <c>`");
        document.table(&["host", "state"], vec![vec!["a|b".into(), "![x](http://y)".into()]]);
        document.code("```\necho '<b>'");
        let html = document.html();
        assert!(
            !html.contains("<script>") && html.contains("<code>a &amp;&amp; b &lt;c&gt;</code>"),
            "{html}"
        );
        assert!(html.contains("<pre>```\necho &#39;&lt;b&gt;&#39;</pre>"), "{html}");
        let markdown = document.markdown();
        assert!(markdown.contains("# Cluster `prod`\n") && markdown.contains("\\<script\\>"), "{markdown}");
        assert!(markdown.contains("| a\\|b | !\\[x\\](http://y) |"), "{markdown}");
        assert!(markdown.contains("````console\n```\n"), "{markdown}");
    }
}
