//! Splits a command line into words the way systemd does: blanks, quotes, backslashes (systemd.syntax(7), "Quoting").

/// The words of a line. A quote left open ends with the line: hostile or broken text still gives words.
pub(crate) fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) => {
                if let Some(next) = chars.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The value of `--name` in a command line: `--name=value`, `--name value`, also with one dash (Go's flag package
/// takes both). The last one given wins.
pub(crate) fn flag<'a>(command: &'a [String], name: &str) -> Option<&'a str> {
    let mut found = None;
    let mut words = command.iter().skip(1).peekable();
    while let Some(word) = words.next() {
        let Some(bare) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
        if let Some(value) = bare.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            found = Some(value);
        } else if bare == name {
            found =
                words.peek().filter(|next| !next.starts_with('-')).map(|next| next.as_str()).or(Some("true"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    // Settings of real units are quoted in all ways; a value read wrong is a data dir looked for in a wrong place.
    #[test]
    fn quotes_and_escapes() {
        assert_eq!(
            split(r#"/usr/bin/etcd --name "cp 1" --x='a"b' c\ d "" "#),
            ["/usr/bin/etcd", "--name", "cp 1", "--x=a\"b", "c d", ""]
        );
        assert_eq!(split("\"open"), ["open"]);
        assert!(split("  ").is_empty());
    }

    // etcd takes its flags in four spellings.
    #[test]
    fn flags_in_all_spellings() {
        let command =
            split("etcd --name=a -data-dir /x --force-new-cluster --listen-client-urls http://b --name c");
        assert_eq!(flag(&command, "name"), Some("c"));
        assert_eq!(flag(&command, "data-dir"), Some("/x"));
        assert_eq!(flag(&command, "force-new-cluster"), Some("true"));
        assert_eq!(flag(&command, "data"), None);
    }
}
