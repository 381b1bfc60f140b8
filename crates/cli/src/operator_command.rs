//! A command of the operator's own, such as the one that turns a host off.

use schemars::JsonSchema;
use serde::Deserialize;
use std::str::FromStr;

/// A program and its arguments: words as a POSIX shell splits them, with its quotes; no shell runs it. In each word
/// `{node}` stands for the node's name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub(crate) struct OperatorCommand(Vec<String>);

impl OperatorCommand {
    /// Its words; there is one at least.
    pub(crate) fn into_words(self) -> Vec<String> {
        self.0
    }
}

impl FromStr for OperatorCommand {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match shlex::split(text) {
            None => Err("a quote in this command is not closed"),
            Some(words) if words.is_empty() => Err("this command is empty"),
            Some(words) => Ok(Self(words)),
        }
    }
}

impl TryFrom<String> for OperatorCommand {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What hypervisors are told over ssh has words of its own.
    #[test]
    fn words_are_a_shells() {
        let words = |text: &str| text.parse::<OperatorCommand>().map(OperatorCommand::into_words);
        assert_eq!(words("ssh hv 'virsh destroy {node}'").unwrap(), ["ssh", "hv", "virsh destroy {node}"]);
        assert!(words("ssh 'hv").is_err());
        assert!(words("  ").is_err());
    }
}
