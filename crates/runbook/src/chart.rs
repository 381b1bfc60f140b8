//! The way from a symptom to a chapter: questions in the order in which they are asked, each with where a yes leads. One
//! source, drawn as SVG and written as Mermaid.

use crate::doc::{escaped, slug};
use std::fmt::Write;

/// Questions, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    /// What it begins with.
    pub start: String,
    /// The questions: a no leads to the next one.
    pub questions: Vec<Question>,
    /// What to do when all are answered with no.
    pub end: String,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub ask: String,
    /// How to find out: a command, or empty.
    pub look: String,
    /// The chapter that a yes leads to.
    pub chapter: String,
}

const WIDTH: usize = 860;
const ASK_WIDTH: usize = 480;
const CHAPTER_X: usize = 560;
const CHAPTER_WIDTH: usize = WIDTH - CHAPTER_X - 10;
const LINE_HEIGHT: usize = 18;
const GAP: usize = 34;
/// Letters that fit a line of each column, with the font below.
const ASK_LETTERS: usize = 62;
const CHAPTER_LETTERS: usize = 34;

impl Chart {
    /// As a Mermaid flow chart.
    pub fn mermaid(&self) -> String {
        let mut text = format!("flowchart TD\n  s([\"{}\"]) --> q0\n", label(&self.start));
        for (index, question) in self.questions.iter().enumerate() {
            let look = if question.look.is_empty() {
                String::new()
            } else {
                format!("<br/>{}", label(&question.look))
            };
            let next = if index + 1 == self.questions.len() { "e".into() } else { format!("q{}", index + 1) };
            let _ = writeln!(text, "  q{index}{{\"{}{look}\"}}", label(&question.ask));
            let _ = writeln!(text, "  q{index} -- yes --> a{index}[\"{}\"]", label(&question.chapter));
            let _ = writeln!(text, "  q{index} -- no --> {next}");
        }
        let _ = writeln!(text, "  e[\"{}\"]", label(&self.end));
        text
    }

    /// As SVG; the chapters are links within the page.
    pub fn svg(&self) -> String {
        let mut body = String::new();
        let mut y = 10;
        y = boxed(&mut body, y, &wrapped(&self.start, ASK_LETTERS), &[], "start");
        for question in &self.questions {
            arrow_down(&mut body, y);
            y += GAP;
            let (asked, chapter) =
                (wrapped(&question.ask, ASK_LETTERS), wrapped(&question.chapter, CHAPTER_LETTERS));
            let look = wrapped(&question.look, ASK_LETTERS);
            let bottom = boxed(&mut body, y, &asked, &look, "ask");
            answer(&mut body, y, bottom, &question.chapter, &chapter);
            let _ = writeln!(
                body,
                "<text x=\"{}\" y=\"{}\" class=\"word\">no</text>",
                10 + ASK_WIDTH / 2 + 8,
                bottom + 20
            );
            y = bottom;
        }
        arrow_down(&mut body, y);
        y += GAP;
        let height = boxed(&mut body, y, &wrapped(&self.end, ASK_LETTERS), &[], "start") + 10;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" role=\"img\">\n\
             <style>.ask{{fill:#eef4fb;stroke:#4a7ab5}}.start{{fill:#f4f6f8;stroke:#57606a}}.do{{fill:#edf7ee;stroke:#3a8a4a}}\
             text{{font:13.5px system-ui,sans-serif;fill:#1b1f24}}.look{{font:12px ui-monospace,monospace;fill:#4a5560}}\
             .word{{font-weight:600}}.line{{stroke:#57606a;stroke-width:1.4;fill:none}}a text{{fill:#0b5cad}}</style>\n\
             <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
             orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#57606a\"/></marker></defs>\n{body}</svg>"
        )
    }
}

/// A box in the left column; its lower edge.
fn boxed(body: &mut String, y: usize, lines: &[String], look: &[String], class: &str) -> usize {
    let height = (lines.len() + look.len()) * LINE_HEIGHT + 16;
    let round = if class == "start" { 14 } else { 4 };
    let _ = writeln!(
        body,
        "<rect x=\"10\" y=\"{y}\" width=\"{ASK_WIDTH}\" height=\"{height}\" rx=\"{round}\" class=\"{class}\"/>"
    );
    for (index, line) in lines.iter().chain(look).enumerate() {
        let class = if index < lines.len() { "" } else { " class=\"look\"" };
        let at = y + 22 + index * LINE_HEIGHT;
        let _ = writeln!(body, "<text x=\"24\" y=\"{at}\"{class}>{}</text>", escaped(line));
    }
    y + height
}

fn arrow_down(body: &mut String, y: usize) {
    let (x, to) = (10 + ASK_WIDTH / 2, y + GAP - 2);
    let _ = writeln!(body, "<path d=\"M{x} {y}V{to}\" class=\"line\" marker-end=\"url(#tip)\"/>");
}

/// The box that a yes leads to, level with its question.
fn answer(body: &mut String, top: usize, bottom: usize, chapter: &str, lines: &[String]) {
    let (from, middle) = (10 + ASK_WIDTH, top.midpoint(bottom));
    let height = lines.len() * LINE_HEIGHT + 16;
    let y = middle.saturating_sub(height / 2);
    let _ = writeln!(
        body,
        "<path d=\"M{from} {middle}H{}\" class=\"line\" marker-end=\"url(#tip)\"/>\
         <text x=\"{}\" y=\"{}\" class=\"word\">yes</text>",
        CHAPTER_X - 2,
        from + 22,
        middle - 6
    );
    let _ = writeln!(
        body,
        "<a href=\"#{}\"><rect x=\"{CHAPTER_X}\" y=\"{y}\" width=\"{CHAPTER_WIDTH}\" height=\"{height}\" rx=\"4\" class=\"do\"/>",
        slug(chapter)
    );
    for (index, line) in lines.iter().enumerate() {
        let at = y + 22 + index * LINE_HEIGHT;
        let _ = writeln!(body, "<text x=\"{}\" y=\"{at}\">{}</text>", CHAPTER_X + 14, escaped(line));
    }
    body.push_str("</a>\n");
}

/// Words in lines of at most so many letters, unless one word is longer.
fn wrapped(text: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= letters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Text within quotes of Mermaid, which reads HTML entities.
fn label(text: &str) -> String {
    escaped(text).replace('\n', " ").replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Both drawings have every question and every chapter, and what a name holds is never markup.
    #[test]
    fn both_forms_say_the_same() {
        let question = |ask: &str, chapter: &str| Question {
            ask: ask.into(),
            look: "ls <x>".into(),
            chapter: chapter.into(),
        };
        let chart = Chart {
            start: "Something is wrong".into(),
            questions: vec![question("Is \"a\" down?", "Start a"), question("Is b lost?", "Restore b")],
            end: "Ask".into(),
        };
        let (svg, mermaid) = (chart.svg(), chart.mermaid());
        for text in ["Something is wrong", "Is &quot;a&quot; down?", "ls &lt;x&gt;", "Restore b", "Ask"] {
            assert!(svg.contains(text), "{text}: {svg}");
            assert!(mermaid.contains(text), "{text}: {mermaid}");
        }
        assert!(svg.contains("href=\"#restore-b\""));
        assert_eq!(wrapped("aa bb cc", 5), ["aa bb", "cc"]);
    }
}
