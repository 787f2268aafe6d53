//! Lines as duplicity's `list-current-files` prints them.

use engine::path::EntryPath;
use jiff::Timestamp;
use jiff::tz::TimeZone;

const DAY: i64 = 86_400;
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A line with its newline: the time of the last change in `zone`, then the raw path, `.` for the root. Times before 1970 count
/// as 1970.
#[must_use]
pub fn list_line(mtime: i64, path: &EntryPath, zone: &TimeZone) -> Vec<u8> {
    let mut line = asctime(mtime.max(0), zone).into_bytes();
    line.push(b' ');
    line.extend_from_slice(if path.is_root() { b"." } else { path.as_bytes() });
    line.push(b'\n');
    line
}

/// A time in C's `asctime` form, without a newline: `Sun Sep 13 12:26:41 2020`. Any number of seconds has one; times that no
/// zone has rules for are shown in UTC.
#[must_use]
pub fn asctime(seconds: i64, zone: &TimeZone) -> String {
    let offset = Timestamp::from_second(seconds).map_or(0, |t| zone.to_offset(t).seconds());
    let local = seconds.saturating_add(offset.into());
    let (days, second) = (local.div_euclid(DAY), local.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let weekday = name(&WEEKDAYS, (days + 4).rem_euclid(7));
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday} {} {day:2} {hour:02}:{minute:02}:{second:02} {year}", name(&MONTHS, month))
}

fn name(names: &[&'static str], at: i64) -> &'static str {
    usize::try_from(at).ok().and_then(|at| names.get(at)).copied().unwrap_or("?")
}

/// Year, month from 0 and day from 1 of a day counted from 1970-01-01, in the Gregorian calendar. Years begin in March
/// within, so that the leap day is the last one.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let is_next_year = month >= 10;
    (era * 400 + year + i64::from(is_next_year), (month + 2) % 12, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_as_c_prints_them() {
        let utc = TimeZone::UTC;
        for (seconds, text) in [
            (0, "Thu Jan  1 00:00:00 1970"),
            (-1, "Wed Dec 31 23:59:59 1969"),
            (951_782_400, "Tue Feb 29 00:00:00 2000"),
            (1_600_000_001, "Sun Sep 13 12:26:41 2020"),
            (10_413_792_000, "Mon Jan  1 00:00:00 2300"),
            (253_402_300_800, "Sat Jan  1 00:00:00 10000"),
        ] {
            assert_eq!(asctime(seconds, &utc), text);
        }
        assert_eq!(asctime(i64::MAX, &utc), "Sun Dec  4 15:30:07 292277026596");
    }

    #[test]
    fn zones_and_their_summer() {
        let Ok(berlin) = TimeZone::get("Europe/Berlin") else {
            println!("skipped: no time zone database");
            return;
        };
        assert_eq!(asctime(1_600_000_001, &berlin), "Sun Sep 13 14:26:41 2020");
        assert_eq!(asctime(1_700_000_000, &berlin), "Tue Nov 14 23:13:20 2023");
    }

    #[test]
    fn lines() {
        let utc = TimeZone::UTC;
        assert_eq!(list_line(-5, &EntryPath::root(), &utc), b"Thu Jan  1 00:00:00 1970 .\n");
        let path = EntryPath::new(b"new\nline\xff").expect("valid");
        assert_eq!(list_line(1, &path, &utc), b"Thu Jan  1 00:00:01 1970 new\nline\xff\n");
    }

    proptest! {
        #[test]
        fn as_jiff_prints_them(seconds in -62_000_000_000i64..253_000_000_000) {
            let theirs = Timestamp::from_second(seconds).expect("in range").to_zoned_datetime(TimeZone::UTC);
            prop_assert_eq!(asctime(seconds, &TimeZone::UTC), theirs.strftime("%a %b %e %H:%M:%S %-Y").to_string());
        }

        #[test]
        fn any_time_has_a_form(seconds: i64) {
            prop_assert!(!asctime(seconds, &TimeZone::UTC).contains('?'));
        }
    }
}
