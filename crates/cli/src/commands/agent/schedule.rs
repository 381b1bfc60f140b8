//! When something is due: a cron line in a time zone, and up to some seconds later, so that agents with the same line do
//! not burden their store together.

use crate::failure::Failure;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rand::Rng;

/// A cron line of five fields: minute, hour, day of the month, month, day of the week.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    cron: Cron,
    zone: TimeZone,
    jitter_ms: i64,
}

impl Schedule {
    /// `zone` by its IANA name. A line without a time that ever comes is none.
    pub(super) fn new(line: &str, zone: &str, jitter_seconds: u32) -> Result<Self, Failure> {
        let bad = || format!("{line:?} is no schedule");
        let hint = "five fields: minute, hour, day of the month, month, day of the week";
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser
            .parse(line)
            .map_err(|error| Failure::usage(bad()).because(error.to_string()).hint(hint))?;
        let found = if zone == "UTC" { Ok(TimeZone::UTC) } else { TimeZone::get(zone) };
        let zone = found.map_err(|error| {
            Failure::usage(format!("the time zone {zone} is not known here"))
                .because(error)
                .hint("UTC always is; others need the time zones of the system (Debian: tzdata)")
        })?;
        let schedule = Self { cron, zone, jitter_ms: i64::from(jitter_seconds) * 1000 };
        match schedule.next_ms(Timestamp::now().as_millisecond()) {
            Some(_) => Ok(schedule),
            None => Err(Failure::usage(bad()).because("no such time ever comes").hint(hint)),
        }
    }

    /// The next time after this one, milliseconds since the Unix epoch.
    pub(super) fn next_ms(&self, after_ms: i64) -> Option<i64> {
        let after = Timestamp::from_millisecond(after_ms).ok()?.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&after, false).ok()?;
        Some(next.timestamp().as_millisecond())
    }

    /// How much later than its time this one is to be, milliseconds.
    pub(super) fn jitter_ms(&self) -> i64 {
        rand::rng().random_range(0..=self.jitter_ms)
    }

    /// The most that a time may be late and still be in time, milliseconds.
    pub(super) fn jitter_max_ms(&self) -> i64 {
        self.jitter_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(line: &str, zone: &str, after: &str) -> String {
        let after: Timestamp = after.parse().unwrap();
        let next = Schedule::new(line, zone, 0).unwrap().next_ms(after.as_millisecond()).unwrap();
        Timestamp::from_millisecond(next).unwrap().to_string()
    }

    // A full that was taken on time must not be due again at once; a line means the hours of its zone.
    #[test]
    fn the_next_time_is_behind_the_last() {
        let six = "0 */6 * * *";
        assert_eq!(next(six, "UTC", "2026-11-23T05:59:59.999Z"), "2026-11-23T06:00:00Z");
        assert_eq!(next(six, "UTC", "2026-11-23T06:00:00Z"), "2026-11-23T12:00:00Z");
        assert_eq!(next("30 4 * * mon", "UTC", "2026-11-23T04:30:00Z"), "2026-11-30T04:30:00Z");
    }

    // In the night in which clocks go forward 02:30 does not come: the full must come all the same.
    #[test]
    fn no_night_is_left_out() {
        let (line, zone) = ("30 2 * * *", "Europe/Berlin");
        let night = next(line, zone, "2027-03-27T12:00:00Z");
        assert!(("2027-03-28T00:30:00Z".."2027-03-28T03:00:00Z").contains(&night.as_str()), "{night}");
    }

    #[test]
    fn what_never_comes_is_no_schedule() {
        for wrong in ["", "* * * *", "0 0 31 2 *", "61 * * * *", "0 0 * * * *", "every day"] {
            assert!(Schedule::new(wrong, "UTC", 0).is_err(), "{wrong}");
        }
        assert!(Schedule::new("0 0 * * *", "Mars/Olympus", 0).is_err());
    }
}
