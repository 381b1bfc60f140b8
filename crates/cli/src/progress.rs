//! Progress for a person: bars on a terminal, plain lines or JSON events otherwise. One event stream feeds them all.

use crate::args::Format;
use crate::output::Output;
use crate::render::units::time;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rekindle_model::event::{Event, What};
use std::collections::HashMap;
use std::sync::Mutex;

/// Renders events as they come.
pub(crate) struct Renderer {
    json: bool,
    live: bool,
    bars: MultiProgress,
    by_label: Mutex<HashMap<String, ProgressBar>>,
}

impl Renderer {
    /// For the terminal (or pipe) at hand.
    pub(crate) fn new(output: &Output) -> Self {
        let json = output.format == Format::Json;
        Self { json, live: output.live && !json, bars: MultiProgress::new(), by_label: Mutex::default() }
    }

    /// Shows one event.
    pub(crate) fn show(&self, event: &Event) {
        if let What::Progress { label, done, total, .. } = &event.what {
            if self.live {
                self.bar(label, *done, *total);
            }
            return;
        }
        if self.json {
            if let Ok(line) = serde_json::to_string(event) {
                self.line(&line);
            }
        } else if let Some(line) = text(event) {
            self.line(&line);
        }
    }

    fn line(&self, line: &str) {
        if self.live {
            // A line above the bars, so that they stay whole.
            let _ = self.bars.println(line);
        } else {
            use std::io::Write;
            let _ = writeln!(anstream::stderr(), "{line}");
        }
    }

    fn bar(&self, label: &str, done: u64, total: u64) {
        let Ok(mut bars) = self.by_label.lock() else { return };
        let bar = bars.entry(label.to_owned()).or_insert_with(|| self.bars.add(byte_bar(label)));
        bar.set_length(total.max(done));
        bar.set_position(done);
        if total > 0 && done >= total {
            bar.finish_and_clear();
            bars.remove(label);
        }
    }
}

/// A bar for bytes, with their rate.
pub(crate) fn byte_bar(label: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("  {msg:32} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_message(label.to_owned());
    bar
}

fn text(event: &Event) -> Option<String> {
    let at = time(event.at_ms);
    let at = at.get(11..19).unwrap_or(&at);
    Some(match &event.what {
        What::PhaseStarted { .. } | What::Progress { .. } => return None,
        What::RunStarted { run_id, resumed } => {
            format!("{at} run {run_id} {}", if *resumed { "taken up again" } else { "started" })
        }
        What::StepStarted { step, host, summary, .. } => {
            let host = host.as_ref().map_or("here".to_owned(), ToString::to_string);
            format!("{at} {step:>3} ► {host}: {summary}")
        }
        What::StepDone { step, .. } => format!("{at} {step:>3} ✔"),
        What::StepFailed { step, error } => format!("{at} {step:>3} ✗ {}", error.join(": ")),
        What::UndoStarted { step } => format!("{at} {step:>3} ◄ taking back"),
        What::UndoDone { step } => format!("{at} {step:>3} ◄ taken back"),
        What::UndoFailed { step, error } => {
            format!("{at} {step:>3} ✗ could not be taken back: {}", error.join(": "))
        }
        What::RunEnded { outcome } => format!("{at} run ended: {outcome:?}"),
        What::Note { text } => format!("{at}     {text}"),
    })
}
