//! Figures and lists for people, and which words can be written into files without quoting.

/// A time for people, UTC.
pub(crate) fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms - ms.rem_euclid(1000))
        .map_or_else(|_| format!("{ms} ms"), |t| t.to_string())
}

/// `1 revision`, `7 revisions`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A length of time for people, rounded down to its two largest units.
pub(crate) fn span(seconds: i64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, _, _) => format!("{h} h {m} min"),
        _ => format!("{d} d {h} h"),
    }
}

/// Bytes for people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

/// Whether a value can be written into YAML and systemd files without any quoting rules coming into it.
pub(crate) fn plain_value(value: &str) -> bool {
    !value.is_empty()
        && !value.ends_with(':')
        && value.chars().all(|c| c.is_ascii_graphic() && !"\"'\\#$%`".contains(c))
}

/// A text's hosts for people: `a`, `a and b`, `a, b and c`.
pub(crate) fn and_list(items: &[String]) -> String {
    match items {
        [] => "none".into(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} and {last}", head.join(", ")),
    }
}
