//! Test hooks: where a run is killed, cut off, failed or done twice, so that tests can prove it survives.
//!
//! The binary honours one of them: `REKINDLE_KILL_AT=STEP:before|mid|after` makes it send itself SIGKILL at that point
//! (STEP = number in the plan, or the kind of step as in its `do` field for the first of that kind; `undo:` in front for
//! the undoing of that step). `before`: the start is journaled, nothing done. `mid`: a few milliseconds into the work.
//! `after`: the work is done, its end not journaled. In normal use the variable is not set and nothing here runs.

use crate::error::RunError;
use crate::journal::CutAt;
use rekindle_model::plan::PlannedStep;
use std::time::Duration;

/// Name of the environment variable.
pub const KILL_AT: &str = "REKINDLE_KILL_AT";

/// How far into the work `mid` kills.
const MID: Duration = Duration::from_millis(4);

/// Where in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The start is journaled, nothing done.
    Before,
    /// In the middle of the work.
    Mid,
    /// The work is done, its end not journaled.
    After,
}

/// A point of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultPoint {
    /// Step number, or kind.
    pub step: String,
    /// Whether undoing that step is meant.
    pub undo: bool,
    /// Where in it.
    pub at: At,
}

/// The hooks of one run.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// SIGKILL to this process.
    pub kill: Option<FaultPoint>,
    /// The step fails (`Before`: without acting, `After`: having acted; `Mid` is as `After`).
    pub fail: Option<FaultPoint>,
    /// The journal ends here, as by a power cut.
    pub cut: Option<CutAt>,
    /// Every step is applied twice, and every undo done twice.
    pub twice: bool,
}

impl Hooks {
    /// The hooks the environment asks for.
    ///
    /// # Errors
    /// [`RunError::KillAt`] when the variable is set to something else than a point.
    pub fn from_env() -> Result<Self, RunError> {
        let Some(text) = std::env::var_os(KILL_AT) else { return Ok(Self::default()) };
        let text = text.to_string_lossy().into_owned();
        let kill = FaultPoint::parse(&text).ok_or(RunError::KillAt { value: text })?;
        Ok(Self { kill: Some(kill), ..Self::default() })
    }

    /// Whether the step is to fail here.
    pub(crate) fn fails(&self, step: &PlannedStep, undo: bool, at: At) -> bool {
        self.fail.as_ref().is_some_and(|point| {
            let point_at = if point.at == At::Mid { At::After } else { point.at };
            point_at == at && point.meets(step, undo)
        })
    }

    /// Kills this process if this is the point; for `Mid` it is killed a little later, in the middle of the work.
    pub(crate) fn kill_here(&self, step: &PlannedStep, undo: bool, at: At) {
        let Some(point) = self.kill.as_ref().filter(|point| point.meets(step, undo)) else { return };
        match (point.at, at) {
            (At::Before, At::Before) | (At::After | At::Mid, At::After) => kill_self(),
            (At::Mid, At::Before) => {
                std::thread::spawn(|| {
                    std::thread::sleep(MID);
                    kill_self();
                });
            }
            _ => {}
        }
    }
}

impl FaultPoint {
    /// From `[undo:]STEP:before|mid|after`.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, undo) = text.strip_prefix("undo:").map_or((text, false), |rest| (rest, true));
        let (step, at) = rest.split_once(':')?;
        let at = match at {
            "before" => At::Before,
            "mid" => At::Mid,
            "after" => At::After,
            _ => return None,
        };
        (!step.is_empty()).then(|| Self { step: step.to_owned(), undo, at })
    }

    fn meets(&self, step: &PlannedStep, undo: bool) -> bool {
        let kind = serde_json::to_value(&step.step).ok();
        let kind = kind.as_ref().and_then(|value| value.get("do")).and_then(|name| name.as_str());
        self.undo == undo && (self.step == step.number.to_string() || kind == Some(self.step.as_str()))
    }
}

fn kill_self() {
    // If even this fails the test that asked for it sees the run end and fails.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    // A mistyped hook must not pass for "not set": the test that set it would prove nothing.
    #[test]
    fn points_are_read_and_nonsense_is_not() {
        let point = FaultPoint::parse("undo:rename:mid").unwrap();
        assert_eq!(point, FaultPoint { step: "rename".into(), undo: true, at: At::Mid });
        assert_eq!(FaultPoint::parse("7:before").unwrap().step, "7");
        for nonsense in ["", "7", ":before", "7:later", "undo:7"] {
            assert_eq!(FaultPoint::parse(nonsense), None, "{nonsense}");
        }
    }
}
