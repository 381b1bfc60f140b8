//! Unknown is a value: a fact was either seen, or could not be read, and then the reason stands beside it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A fact that was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Seen<T> {
    /// It was read, and this is what was read.
    Known(T),
    /// It could not be read; the text says what was tried and what came back.
    Unknown(String),
}

impl<T> Seen<T> {
    /// The fact, when it was read.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
    /// The reason why it could not be read.
    pub fn why_unknown(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(why) => Some(why),
        }
    }
    /// From a result: the error's whole chain becomes the reason.
    pub fn from_result<E: std::error::Error>(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(error) => Self::Unknown(chain(&error)),
        }
    }
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self::Unknown("not looked at".into())
    }
}

/// An error and its causes on one line, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
