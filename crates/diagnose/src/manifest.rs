//! Mending a static pod manifest: which copy is the last good one, and a flag's line taken out.

use rekindle_model::host::{Component, HostFacts, ManifestFacts};

/// A repaired text and what was done, for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repair {
    pub(crate) text: String,
    pub(crate) how: String,
}

/// The newest copy of a component's manifest outside the manifest folder that parses.
pub(crate) fn good_copy(host: &HostFacts, component: Component) -> Option<&ManifestFacts> {
    host.manifests
        .known()?
        .iter()
        .filter(|m| !m.in_place && m.component == Some(component) && m.parse_error.is_none())
        .max_by(|a, b| (a.modified_ms, &b.path).cmp(&(b.modified_ms, &a.path)))
}

/// For a manifest that does not parse: the last good copy, when there is one.
pub(crate) fn replace_unparsable(host: &HostFacts, component: Component) -> Option<Repair> {
    let copy = good_copy(host, component)?;
    Some(Repair { text: copy.text.clone(), how: format!("the last good copy {}", copy.path) })
}

/// For a manifest with a flag the program does not know: the last good copy when it differs in nothing else, else the
/// text without the flag's line. None when the flag does not stand on a line of its own: no guess is made then.
pub(crate) fn without_flag(host: &HostFacts, broken: &ManifestFacts, flag: &str) -> Option<Repair> {
    let text = remove_flag_line(&broken.text, flag)?;
    let same =
        |copy: &&ManifestFacts| copy.text.lines().map(str::trim_end).eq(text.lines().map(str::trim_end));
    let how = match broken.component.and_then(|c| good_copy(host, c)).filter(same) {
        Some(copy) => format!("the last good copy {}, which lacks only {flag}", copy.path),
        None => format!("flag {flag} removed"),
    };
    Some(Repair { text, how })
}

/// The text without the list items that are this flag; none when there is no such item, or when its value stands in an
/// item of its own behind it.
fn remove_flag_line(text: &str, flag: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let is_flag = |line: &str| item(line).is_some_and(|item| item == flag || has_value(item, flag));
    let value_behind = lines.windows(2).any(|pair| match pair {
        [first, second] => {
            item(first) == Some(flag) && item(second).is_some_and(|next| !next.starts_with('-'))
        }
        _ => false,
    });
    if value_behind || !lines.iter().any(|line| is_flag(line)) {
        return None;
    }
    let mut out: String = lines.into_iter().filter(|line| !is_flag(line)).collect::<Vec<_>>().join("\n");
    if text.ends_with('\n') {
        out.push('\n');
    }
    Some(out)
}

/// The scalar of a block sequence item, unquoted.
fn item(line: &str) -> Option<&str> {
    Some(line.trim().strip_prefix("- ")?.trim().trim_matches(['"', '\'']))
}

fn has_value(item: &str, flag: &str) -> bool {
    item.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A bad flag is taken out and nothing else is touched; where the value stands apart no guess is made.
    #[test]
    fn only_the_flags_own_line_goes() {
        let text = "spec:\n  - kube-apiserver\n  - --a=1\n  - \"--bad=x\"\n  - --bad-too=1\n";
        let without = "spec:\n  - kube-apiserver\n  - --a=1\n  - --bad-too=1\n";
        assert_eq!(remove_flag_line(text, "--bad").as_deref(), Some(without));
        assert_eq!(remove_flag_line("- --bad\n- value\n", "--bad"), None);
        assert_eq!(remove_flag_line("- --bad\n- --next\n", "--bad").as_deref(), Some("- --next\n"));
        assert_eq!(remove_flag_line("command: [\"x\", \"--bad\"]\n", "--bad"), None);
    }
}
