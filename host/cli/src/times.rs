//! Points in time and durations for people.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// How long ago a point in time was: `now`, `12s`, `5m`, `3h`, `8d`.
pub(crate) fn age(at_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(at_ms) / 1000 {
        0 => "now".to_owned(),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A duration as a clock shows it: `0:07`, `1:02:03`, `3d 1:02:03`.
pub(crate) fn clock(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{:02}", seconds % 60),
        (0, _) => format!("{hours}:{minutes:02}:{:02}", seconds % 60),
        _ => format!("{days}d {hours}:{minutes:02}:{:02}", seconds % 60),
    }
}

/// A point in time in UTC: `2026-11-23 03:15:51.123Z`.
pub(crate) fn utc(at_ms: u64) -> String {
    let (days, ms) = (at_ms / 86_400_000, at_ms % 86_400_000);
    let (year, month, day) = civil_date(days);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1000)
}

/// Year, month and day of a count of days since 1970, by eras of 400 years whose years begin in March.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_are_written_in_utc() {
        // As `date -u -d @SECONDS` says.
        assert_eq!(utc(0), "1970-01-01 00:00:00.000Z");
        assert_eq!(utc(951_782_399_999), "2000-02-28 23:59:59.999Z");
        assert_eq!(utc(951_868_800_000), "2000-03-01 00:00:00.000Z");
        assert_eq!(utc(1_709_164_800_005), "2024-02-29 00:00:00.005Z");
        assert_eq!(utc(4_102_444_800_000), "2100-01-01 00:00:00.000Z");
    }

    #[test]
    fn ages_and_durations_have_the_unit_that_fits() {
        let ages =
            [0, 999, 1000, 59_999, 60_000, 3_600_000, 86_400_000 * 9].map(|ms| age(10_000, 10_000 + ms));
        assert_eq!(ages, ["now", "now", "1s", "59s", "1m", "1h", "9d"]);
        assert_eq!(age(10_000, 0), "now", "clocks may be set back");
        assert_eq!([7_000, 3_723_000, 266_523_000].map(clock), ["0:07", "1:02:03", "3d 2:02:03"]);
    }
}
