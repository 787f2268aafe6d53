//! Dates in this machine's time zone, for the rules of `forget`.

use engine::entry::Timestamp;
use engine::maintain::policy::{Calendar, Civil, Span};
use jiff::tz::TimeZone;
use jiff::{ToSpan, ZonedDateTime};

/// A time zone.
#[derive(Debug)]
pub struct Local(TimeZone);

impl Local {
    /// That of the machine.
    pub fn system() -> Self {
        Self(TimeZone::system())
    }

    /// The nearest time that has a date.
    fn zoned(&self, time: Timestamp) -> ZonedDateTime {
        let limit = if time.seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        jiff::Timestamp::from_second(time.seconds).unwrap_or(limit).to_zoned_datetime(self.0.clone())
    }
}

impl Calendar for Local {
    fn civil(&self, time: Timestamp) -> Civil {
        let zoned = self.zoned(time);
        let week = zoned.date().iso_week_date();
        Civil {
            year: zoned.year().into(),
            month: zoned.month().unsigned_abs(),
            day: zoned.day().unsigned_abs(),
            hour: zoned.hour().unsigned_abs(),
            iso_year: week.year().into(),
            iso_week: week.week().unsigned_abs(),
        }
    }

    fn before(&self, time: Timestamp, span: Span) -> Timestamp {
        let length = 0.years().try_years(span.years).and_then(|s| s.try_months(span.months));
        let length = length.and_then(|s| s.try_days(span.days)).and_then(|s| s.try_hours(span.hours));
        let earlier = length.and_then(|length| self.zoned(time).checked_sub(length));
        // Longer ago than there are dates.
        earlier.map_or(Timestamp { seconds: i64::MIN, nanos: 0 }, |at| Timestamp {
            seconds: at.timestamp().as_second(),
            nanos: time.nanos,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_lengths() {
        let utc = Local(TimeZone::UTC);
        // 2024-12-31T23:00:00Z, a Tuesday of the first week of 2025.
        let time = Timestamp { seconds: 1_735_686_000, nanos: 5 };
        let civil = utc.civil(time);
        assert_eq!((civil.year, civil.month, civil.day, civil.hour), (2024, 12, 31, 23));
        assert_eq!((civil.iso_year, civil.iso_week), (2025, 1));
        let month = utc.before(time, Span { months: 1, ..Span::default() });
        assert_eq!((utc.civil(month).month, utc.civil(month).day), (11, 30));
        assert_eq!(utc.before(time, Span { hours: 2, ..Span::default() }).seconds, time.seconds - 7200);
        assert_eq!(utc.before(time, Span { years: 20_000, ..Span::default() }).seconds, i64::MIN);
        assert_eq!(utc.civil(Timestamp { seconds: i64::MAX, nanos: 0 }).year, 9999);
    }
}
