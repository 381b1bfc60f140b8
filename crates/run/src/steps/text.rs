//! Small helpers over bytes and text.

use sha2::{Digest, Sha256};

/// SHA-256 in lowercase hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The start of an answer, for an error text.
pub(crate) fn start_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(300).collect::<String>().replace('\n', " ")
}

/// The value of a flag in text or a command line: `--name=value` up to white space or a quote.
pub(crate) fn flag_value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let pattern = format!("--{name}=");
    let at = text.find(&pattern)? + pattern.len();
    let rest = text.get(at..)?;
    let end = rest.find(|c: char| c.is_whitespace() || c == '"' || c == '\'').unwrap_or(rest.len());
    rest.get(..end).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Ports are read from the manifest or unit, in whatever quotes they stand.
    #[test]
    fn flags_are_found_in_manifests_and_units() {
        assert_eq!(flag_value("    - --secure-port=6444\n    - --x=1", "secure-port"), Some("6444"));
        assert_eq!(flag_value("ExecStart=/usr/bin/a \"--secure-port=1\" --b", "secure-port"), Some("1"));
        assert_eq!(flag_value("--secure-port= ", "secure-port"), None);
        assert_eq!(flag_value("nothing", "secure-port"), None);
    }
}
