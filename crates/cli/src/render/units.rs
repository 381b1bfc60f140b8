//! Numbers as people read them: bytes, durations, times.

use jiff::Timestamp;

/// `1.2 GB`, `34 kB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    #[allow(clippy::cast_precision_loss)] // shown with one digit
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        unit = next;
        if value < 1000.0 {
            break;
        }
        if next != "TB" {
            value /= 1000.0;
        }
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// `3 d 4 h`, `2 min 5 s`, `1.8 s`, `12 ms`.
pub(crate) fn duration_ms(ms: i64) -> String {
    let (sign, ms) = if ms < 0 { ("-", -ms) } else { ("", ms) };
    let seconds = ms / 1000;
    let text = match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{}.{} s", seconds, (ms % 1000) / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    };
    format!("{sign}{text}")
}

/// `2026-11-22 20:15:03Z`.
pub(crate) fn time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => format!("{ms} ms since 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Figures end up in reports that auditors read: each unit's edge is right.
    #[test]
    fn edges_of_units() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_000), "1.0 kB");
        assert_eq!(bytes(264_000_000), "264.0 MB");
        assert_eq!(bytes(5_000_000_000_000_000), "5000.0 TB");
        assert_eq!(duration_ms(0), "0 ms");
        assert_eq!(duration_ms(999), "999 ms");
        assert_eq!(duration_ms(1_850), "1.8 s");
        assert_eq!(duration_ms(61_000), "1 min 1 s");
        assert_eq!(duration_ms(90_000_000), "1 d 1 h");
        assert_eq!(duration_ms(-1_500), "-1.5 s");
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
    }
}
