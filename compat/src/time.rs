//! duplicity's times: whole seconds, as they stand in file names, in status texts and behind `-t`.
//!
//! FORMAT §2.3 and §16.2. Nothing here asks a clock; the local zone is a parameter.

use std::fmt;

pub use jiff::tz::TimeZone;
use jiff::{Timestamp, civil, tz::Offset};

/// A time of duplicity in whole seconds since the epoch (UTC, no leap seconds), within the years 1901 to 2099.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

/// A `-t` argument that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeError {
    /// Not one of the forms.
    #[error(
        "'{0}' is no time: give 'now', seconds since the epoch, YYYY-MM-DDTHH:MM:SS with or without a zone, YYYYMMDDTHHMMSSZ, \
         a date as YYYY-MM-DD or MM/DD/YYYY, or an age such as 3D12h (s, m, h, D, W, M, Y)"
    )]
    Unknown(String),
    /// A form that is known, of a time that does not exist or lies outside 1901 to 2099.
    #[error("'{0}' is not within the years 1901 to 2099, or no such time exists")]
    OutOfRange(String),
}

impl Time {
    /// 1901-01-01T00:00:00Z.
    pub const MIN: Self = Self(-2_177_452_800);
    /// 2099-12-31T23:59:59Z.
    pub const MAX: Self = Self(4_102_444_799);

    /// From seconds since the epoch; `None` outside [`Time::MIN`] to [`Time::MAX`].
    #[must_use]
    pub fn new(epoch: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&epoch).then_some(Self(epoch))
    }

    /// Seconds since the epoch.
    #[must_use]
    pub fn epoch(self) -> i64 {
        self.0
    }

    /// From a whole text of one of the forms of long file names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::scan(text).and_then(|(time, rest)| rest.is_empty().then_some(time))
    }

    /// From the base-36 form of short file names: only `0-9a-z`.
    #[must_use]
    pub fn parse_base36(text: &str) -> Option<Self> {
        base36(text).and_then(|epoch| i64::try_from(epoch).ok()).and_then(Self::named)
    }

    /// The time at the beginning of a text, and what follows it. The longest form wins; epoch zero is refused, as stock does.
    pub(crate) fn scan(text: &str) -> Option<(Self, &str)> {
        new_form(text)
            .or_else(|| old_form(text))
            .or_else(|| {
                let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
                let (digits, rest) = text.split_at(end);
                Some((digits.parse().ok()?, rest))
            })
            .and_then(|(epoch, rest)| Some((Self::named(epoch)?, rest)))
    }

    fn named(epoch: i64) -> Option<Self> {
        Self::new(epoch).filter(|time| time.0 != 0)
    }

    /// As stock prints it to people: `Tue Nov 14 22:13:20 2023`, always in English.
    #[must_use]
    pub fn human(self, zone: &TimeZone) -> String {
        match Timestamp::from_second(self.0) {
            Ok(at) => at.to_zoned_datetime(zone.clone()).strftime("%a %b %e %H:%M:%S %Y").to_string(),
            Err(_) => self.to_string(),
        }
    }
}

/// The form of long file names: `20231114T221320Z`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.0) {
            Ok(at) => write!(f, "{}", Offset::UTC.to_datetime(at).strftime("%Y%m%dT%H%M%SZ")),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

/// A number in base 36, lower case; `None` if it is empty, has other characters, or does not fit.
pub(crate) fn base36(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    if plain { u64::from_str_radix(text, 36).ok() } else { None }
}

/// A `-t` argument, with the zone of this host.
///
/// # Errors
///
/// The text is no time, or one that duplicity cannot name.
pub fn parse_time_argument(text: &str, now: Time) -> Result<Time, TimeError> {
    parse_time_argument_in(text, now, &TimeZone::system())
}

/// A `-t` argument, with a zone for the forms that name none.
///
/// # Errors
///
/// The text is no time, or one that duplicity cannot name.
pub fn parse_time_argument_in(text: &str, now: Time, zone: &TimeZone) -> Result<Time, TimeError> {
    let unknown = || TimeError::Unknown(text.to_owned());
    if text == "now" {
        return Ok(now);
    }
    let (epoch, known) = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        (text.parse().ok(), true)
    } else if let Some(form) = date_time(text, now, zone).or_else(|| age(text, now)).or_else(|| date(text, zone)) {
        (form, true)
    } else {
        (None, false)
    };
    if !known {
        return Err(unknown());
    }
    epoch.and_then(Time::new).ok_or_else(|| TimeError::OutOfRange(text.to_owned()))
}

/// A form that is recognised: its seconds, or `None` for a time that does not exist.
type Form = Option<i64>;

fn date_time(text: &str, now: Time, zone: &TimeZone) -> Option<Form> {
    for form in [new_form, old_form] {
        if let Some((epoch, "")) = form(text) {
            return Some(Some(epoch));
        }
    }
    let (local, rest) = local_form(&mut Scan(text))?;
    rest.is_empty().then(|| local.seconds().and_then(|s| s.checked_sub(standard_offset(now, zone)?)))
}

/// The zone's offset in seconds without daylight saving, in the year of `now`: the lesser of those in January and July.
fn standard_offset(now: Time, zone: &TimeZone) -> Option<i64> {
    let year = zone.to_datetime(Timestamp::from_second(now.0).ok()?).year();
    let offset = |month| {
        let at = Offset::UTC.to_timestamp(civil::DateTime::new(year, month, 1, 0, 0, 0, 0).ok()?).ok()?;
        Some(i64::from(zone.to_offset(at).seconds()))
    };
    Some(offset(1)?.min(offset(7)?))
}

fn age(text: &str, now: Time) -> Option<Form> {
    let mut rest = Scan(text);
    let mut seconds = Some(0_i64);
    while !rest.0.is_empty() {
        let digits = rest.number()?;
        let unit = match rest.char()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'D' => 86_400,
            'W' => 7 * 86_400,
            'M' => 30 * 86_400,
            'Y' => 365 * 86_400,
            _ => return None,
        };
        seconds = seconds.and_then(|sum| digits.parse::<i64>().ok()?.checked_mul(unit)?.checked_add(sum));
    }
    (!text.is_empty()).then(|| seconds.and_then(|s| now.0.checked_sub(s)))
}

fn date(text: &str, zone: &TimeZone) -> Option<Form> {
    let midnight = |year, month, day| Civil { year, month, day, ..Civil::default() };
    let mut utc = Scan(text);
    if let (Some(year), Some(month), Some(day), Some('Z' | 'z'), "") =
        (utc.digits(4), utc.digits(2), utc.digits(2), utc.char(), utc.0)
    {
        return Some(midnight(year, month, day).seconds());
    }
    let mut parts = text.split(['-', '/']);
    let (a, b, c) = (parts.next()?, parts.next()?, parts.next()?);
    let (year, month, day) = if a.len() == 4 { (a, b, c) } else { (c, a, b) };
    let short = |part: &str| (1..=2).contains(&part.len());
    let numbers = [year, month, day].iter().all(|part| part.bytes().all(|b| b.is_ascii_digit()));
    if parts.next().is_some() || year.len() != 4 || !short(month) || !short(day) || !numbers {
        return None;
    }
    let at = midnight(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    Some(at.date_time().and_then(|at| Some(zone.to_zoned_datetime(at).ok()?.timestamp().as_second())))
}

/// A time of some calendar day, not checked yet.
#[derive(Default)]
struct Civil {
    year: i16,
    month: i16,
    day: i16,
    hour: i16,
    minute: i16,
    second: i16,
}

impl Civil {
    fn date_time(&self) -> Option<civil::DateTime> {
        let [month, day, hour, minute, second] =
            [self.month, self.day, self.hour, self.minute, self.second].map(|n| i8::try_from(n).ok());
        civil::DateTime::new(self.year, month?, day?, hour?, minute?, second?, 0).ok()
    }

    /// Seconds since the epoch, read as UTC.
    fn seconds(&self) -> Option<i64> {
        Some(Offset::UTC.to_timestamp(self.date_time()?).ok()?.as_second())
    }
}

/// `YYYYMMDDTHHMMSSZ` at the beginning.
fn new_form(text: &str) -> Option<(i64, &str)> {
    let mut scan = Scan(text);
    let (year, month, day) = (scan.digits(4)?, scan.digits(2)?, scan.digits(2)?);
    scan.letter('T')?;
    let (hour, minute, second) = (scan.digits(2)?, scan.digits(2)?, scan.digits(2)?);
    scan.letter('Z')?;
    Some((Civil { year, month, day, hour, minute, second }.seconds()?, scan.0))
}

/// `YYYY-MM-DDTHH:MM:SS` and a zone at the beginning; any one character can stand for the colons.
fn old_form(text: &str) -> Option<(i64, &str)> {
    let mut scan = Scan(text);
    let (local, _) = local_form(&mut scan)?;
    let separator = text.chars().nth(13)?;
    let sign = match scan.char()? {
        'Z' | 'z' => return Some((local.seconds()?, scan.0)),
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let hours = scan.digits(2).filter(|h| *h < 24)?;
    scan.exactly(separator)?;
    let minutes = scan.digits(2).filter(|m| *m < 60)?;
    let offset = i64::from(hours) * 3600 + i64::from(minutes) * 60;
    Some((local.seconds()?.checked_sub(sign * offset)?, scan.0))
}

/// `YYYY-MM-DDTHH:MM:SS` at the beginning.
fn local_form<'a>(scan: &mut Scan<'a>) -> Option<(Civil, &'a str)> {
    let year = scan.digits(4)?;
    scan.exactly('-')?;
    let month = scan.digits(2)?;
    scan.exactly('-')?;
    let day = scan.digits(2)?;
    scan.letter('T')?;
    let hour = scan.digits(2)?;
    let separator = scan.char().filter(|c| *c != '-')?;
    let minute = scan.digits(2)?;
    scan.exactly(separator)?;
    let second = scan.digits(2)?;
    Some((Civil { year, month, day, hour, minute, second }, scan.0))
}

/// What is left of a text.
struct Scan<'a>(&'a str);

impl<'a> Scan<'a> {
    fn char(&mut self) -> Option<char> {
        let c = self.0.chars().next()?;
        self.0 = &self.0[c.len_utf8()..];
        Some(c)
    }

    fn exactly(&mut self, wanted: char) -> Option<()> {
        (self.char()? == wanted).then_some(())
    }

    /// In upper or lower case.
    fn letter(&mut self, wanted: char) -> Option<()> {
        self.char()?.eq_ignore_ascii_case(&wanted).then_some(())
    }

    /// Exactly so many digits; at most four.
    fn digits(&mut self, count: usize) -> Option<i16> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    }

    /// A number of any length.
    fn number(&mut self) -> Option<&'a str> {
        let end = self.0.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
        let (number, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(number)
    }
}

#[cfg(test)]
#[path = "time/tests.rs"]
mod tests;
