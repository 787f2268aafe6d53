//! What a backup did, in duplicity's words.
//!
//! FORMAT §8 and §16.5.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::plan::Plan;
use crate::dropin::context::Context;
use crate::export::SetTotals;
use crate::time::{Time, TimeZone};

/// Counted while a backup runs. Sizes in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Statistics {
    start: f64,
    pub source_files: u64,
    pub source_size: u64,
    pub new_files: u64,
    pub new_size: u64,
    pub deleted: u64,
    pub changed: u64,
    pub changed_size: u64,
    raw_delta: u64,
    destination: Option<u64>,
}

/// The end of the count.
pub(super) struct Report {
    counted: Statistics,
    end: f64,
    errors: u64,
}

impl Statistics {
    pub fn begin() -> Self {
        Self { start: clock(), ..Self::default() }
    }

    /// Takes over what was written.
    pub fn take(&mut self, totals: &SetTotals) {
        self.raw_delta = totals.raw_bytes;
        self.destination = Some(totals.volume_bytes);
    }

    /// Whether a set was written.
    pub fn is_stored(&self) -> bool {
        self.destination.is_some()
    }

    pub fn end(&self, errors: u64) -> Report {
        Report { counted: self.clone(), end: clock(), errors }
    }
}

impl Report {
    /// The block that stands at the end of a backup.
    pub fn text(&self) -> String {
        let c = &self.counted;
        let sized = |name: &str, bytes: u64| format!("{name} {bytes} ({})\n", short(bytes));
        let at = |name: &str, time: f64| format!("{name} {time:.2} ({})\n", human(time));
        let elapsed = (self.end - c.start).max(0.0);
        [
            "--------------[ Backup Statistics ]--------------\n".to_owned(),
            at("StartTime", c.start),
            at("EndTime", self.end),
            format!("ElapsedTime {elapsed:.2} ({})\n", duration(elapsed)),
            format!("SourceFiles {}\n", c.source_files),
            sized("SourceFileSize", c.source_size),
            format!("NewFiles {}\n", c.new_files),
            sized("NewFileSize", c.new_size),
            format!("DeletedFiles {}\n", c.deleted),
            format!("ChangedFiles {}\n", c.changed),
            sized("ChangedFileSize", c.changed_size),
            sized("ChangedDeltaSize", 0),
            format!("DeltaEntries {}\n", c.new_files + c.deleted + c.changed),
            sized("RawDeltaSize", c.raw_delta),
            sized("TotalDestinationSizeChange", c.destination.unwrap_or(0)),
            format!("Errors {}\n", self.errors),
            "-------------------------------------------------\n".to_owned(),
        ]
        .concat()
    }

    /// The same as JSON.
    pub fn json(&self, context: &Context, plan: &Plan, source: &Path) -> String {
        let c = &self.counted;
        let full = plan.base.as_ref().and_then(|base| base.sets.first()).map_or(plan.times.end(), |set| set.end_time());
        let increments = plan.base.as_ref().map_or(0, |base| base.sets.len().saturating_sub(1));
        let time = |seconds: f64| to_time(seconds).map_or_else(String::new, |time| time.to_string());
        let string = |text: &str| quote(text);
        let destination = c.destination.map_or_else(|| "null".to_owned(), |bytes| bytes.to_string());
        let lines = [
            format!("    \"Filename\": null,\n    \"StartTime\": {:.6},\n    \"EndTime\": {:.6}", c.start, self.end),
            format!("    \"ElapsedTime\": {:.6},\n    \"Errors\": {}", (self.end - c.start).max(0.0), self.errors),
            format!("    \"TotalDestinationSizeChange\": {destination}"),
            format!("    \"SourceFiles\": {},\n    \"SourceFileSize\": {}", c.source_files, c.source_size),
            format!("    \"NewFiles\": {},\n    \"NewFileSize\": {}", c.new_files, c.new_size),
            format!("    \"DeletedFiles\": {},\n    \"ChangedFiles\": {}", c.deleted, c.changed),
            format!("    \"ChangedFileSize\": {},\n    \"ChangedDeltaSize\": 0", c.changed_size),
            format!("    \"DeltaEntries\": {},\n    \"RawDeltaSize\": {}", c.new_files + c.deleted + c.changed, c.raw_delta),
            format!("    \"StartTime_str\": {},\n    \"EndTime_str\": {}", string(&time(c.start)), string(&time(self.end))),
            format!("    \"backup_meta\": {{\n        \"action\": {}", string(super::action_word(plan.times))),
            format!("        \"skipped_inc\": {}", c.destination.is_none() && !context.options.dry_run),
            format!("        \"time_full_bkp\": {},\n        \"time_full_bkp_str\": {}", full.epoch(), string(&full.to_string())),
            format!("        \"no_of_inc\": {increments},\n        \"concurrency\": 0"),
            format!("        \"target\": {}", string(&without_password(&context.url))),
            format!("        \"source\": {}", string(&source.to_string_lossy())),
            "        \"local_json_stat\": []\n    }".to_owned(),
        ];
        format!("{{\n{}\n}}", lines.join(",\n"))
    }
}

/// A URL without what stands between a user's name and the host.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}@{host}{}", &rest[authority.len()..])
        }
        None => url.to_owned(),
    }
}

/// A text of JSON.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 => out += &format!("\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}

fn clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[allow(clippy::cast_possible_truncation, reason = "seconds of this millennium")]
fn to_time(seconds: f64) -> Option<Time> {
    Time::new(seconds as i64)
}

fn human(seconds: f64) -> String {
    to_time(seconds).map_or_else(String::new, |time| time.human(&TimeZone::system()))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of seconds")]
fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    let (hours, minutes) = (whole / 3600, whole / 60 % 60);
    let rest = seconds - (hours * 3600 + minutes * 60) as f64;
    match (hours, minutes) {
        (0, 0) => format!("{rest:.2} seconds"),
        (0, _) => format!("{minutes} minutes {rest:.2} seconds"),
        _ => format!("{hours} hours {minutes} minutes {rest:.2} seconds"),
    }
}

/// A size with three significant digits.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn short(bytes: u64) -> String {
    for (unit, power) in [("TB", 4), ("GB", 3), ("MB", 2), ("KB", 1)] {
        let size = 1u64 << (10 * power);
        if bytes >= size {
            let value = bytes as f64 / size as f64;
            let digits = if value >= 100.0 {
                0
            } else if value >= 10.0 {
                1
            } else {
                2
            };
            return format!("{value:.digits$} {unit}");
        }
    }
    if bytes == 1 { "1 byte".to_owned() } else { format!("{bytes} bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        for (bytes, text) in
            [(0, "0 bytes"), (6, "6 bytes"), (8198, "8.01 KB"), (15_000, "14.6 KB"), (500 << 20, "500 MB"), (3 << 40, "3.00 TB")]
        {
            assert_eq!(short(bytes), text);
        }
        assert_eq!(duration(0.011), "0.01 seconds");
        assert_eq!(duration(3725.5), "1 hours 2 minutes 5.50 seconds");
    }

    #[test]
    fn the_block_is_what_scripts_look_for() {
        let mut counted = Statistics { start: 1_795_653_058.28, source_files: 4, source_size: 8198, ..Statistics::default() };
        counted.take(&SetTotals { raw_bytes: 6, volume_bytes: 183, ..SetTotals::default() });
        let text = Report { counted, end: 1_795_653_058.29, errors: 0 }.text();
        for line in [
            "SourceFiles 4",
            "SourceFileSize 8198 (8.01 KB)",
            "RawDeltaSize 6 (6 bytes)",
            "TotalDestinationSizeChange 183 (183 bytes)",
            "Errors 0",
            "ElapsedTime 0.01 (0.01 seconds)",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
    }

    #[test]
    fn no_password_in_json() {
        assert_eq!(without_password("ftp://me:secret@h/x@y"), "ftp://me@h/x@y");
        assert_eq!(without_password("file:///a"), "file:///a");
        assert_eq!(quote("a\"\\\n"), "\"a\\\"\\\\\\u000a\"");
    }
}
