//! Text for people.

use std::fmt::Write as _;
use std::time::Duration;

use engine::entry::{Entry, Kind, Timestamp};
use engine::monitor::{Counter, Problem};
use engine::path::display_bytes;

use super::progress::Numbers;

/// A number of bytes in binary units.
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 5] = [("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.into_iter().find(|(_, bits)| count >> bits > 0) {
        Some((unit, bits)) => {
            let thousandths = u128::from(count) * 1000 / (1_u128 << bits);
            format!("{}.{:03} {unit}", thousandths / 1000, thousandths % 1000)
        }
        None => format!("{count} B"),
    }
}

/// Hours, minutes and seconds.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// A time in this machine's time zone.
pub fn time(time: Timestamp) -> String {
    match jiff::Timestamp::new(time.seconds, 0) {
        Ok(at) => at.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("@{}", time.seconds),
    }
}

/// A quotient with two digits after the point, or a dash where there is none.
pub fn ratio(of: u64, to: u64) -> String {
    match u128::from(of).saturating_mul(100).checked_div(u128::from(to)) {
        Some(hundredths) => format!("{}.{:02}", hundredths / 100, hundredths % 100),
        None => "-".to_owned(),
    }
}

/// A count with a noun that takes an s.
pub fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

pub fn problem(problem: &Problem) -> String {
    format!("{}: {}", problem.subject, problem.message)
}

pub fn note(text: &str) -> String {
    format!("note: {text}")
}

/// One line of progress.
pub fn progress(numbers: &Numbers) -> String {
    let done = |counter: Counter| numbers.done[counter as usize];
    let total = |counter: Counter| numbers.total[counter as usize];
    let mut line = format!("[{}] {}", duration(numbers.elapsed), numbers.stage);
    let mut separator = ": ";
    let mut add = |text: String| {
        line.push_str(separator);
        line.push_str(&text);
        separator = ", ";
    };
    if let Some(fraction) = numbers.fraction() {
        add(format!("{:.1}%", fraction * 100.0));
    }
    for (counter, name) in [(Counter::Entries, "entries"), (Counter::Packs, "packs")] {
        match (done(counter), total(counter)) {
            (0, 0) => {}
            (done, 0) => add(format!("{done} {name}")),
            (done, total) => add(format!("{done} of {total} {name}")),
        }
    }
    match (done(Counter::Bytes), total(Counter::Bytes)) {
        (0, 0) => {}
        (done, 0) => add(bytes(done)),
        (done, total) => add(format!("{} of {}", bytes(done), bytes(total))),
    }
    if done(Counter::StoredBytes) > 0 {
        add(format!("{} stored", bytes(done(Counter::StoredBytes))));
    }
    if let Some(left) = numbers.remaining() {
        add(format!("{} left", duration(left)));
    }
    line
}

/// Type and permissions as `ls` writes them.
pub fn mode(kind: &Kind, mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(match kind {
        Kind::File => '-',
        Kind::Directory => 'd',
        Kind::Symlink(_) => 'l',
        Kind::Fifo => 'p',
        Kind::CharDevice(..) => 'c',
        Kind::BlockDevice(..) => 'b',
    });
    for (shift, special, mark) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => mark,
            (false, true) => mark.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Everything about an entry but its path, for `ls -l`.
pub fn details(entry: &Entry) -> String {
    let owner = &entry.meta.owner;
    let named = |name: &Option<String>, id: u32| match name {
        Some(name) => display_bytes(name.as_bytes()),
        None => id.to_string(),
    };
    let size = match entry.kind {
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => format!("{major},{minor}"),
        _ => entry.size.to_string(),
    };
    format!(
        "{} {:<8} {:<8} {size:>12} {}",
        mode(&entry.kind, entry.meta.mode),
        named(&owner.user, owner.uid),
        named(&owner.group, owner.gid),
        time(entry.meta.mtime)
    )
}

/// Lines of columns under a heading, each as wide as needed. Columns whose heading starts with a space are aligned to
/// the right.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column)).flat_map(|cell| cell.lines());
            cells.map(|line| line.chars().count()).chain([heading[column].trim().len()]).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    let mut print = |cells: &[&str]| {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = widths[column];
            // Writing to a string does not fail.
            let _ = match heading[column].starts_with(' ') {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:<width$}  "),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    };
    let trimmed: Vec<&str> = heading.iter().map(|h| h.trim()).collect();
    print(&trimmed);
    print(&["-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)).as_str()]);
    for row in rows {
        let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(1);
        for line in 0..height {
            let cells: Vec<&str> = row.iter().map(|cell| cell.lines().nth(line).unwrap_or_default()).collect();
            print(&cells);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.500 KiB");
        assert_eq!(bytes(u64::MAX), "16383.999 PiB");
        assert_eq!(duration(Duration::from_secs(59)), "0:59");
        assert_eq!(duration(Duration::from_secs(3661)), "1:01:01");
        assert_eq!(ratio(5, 2), "2.50");
        assert_eq!(ratio(5, 0), "-");
    }

    #[test]
    fn modes() {
        assert_eq!(mode(&Kind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(mode(&Kind::File, 0o4755), "-rwsr-xr-x");
        assert_eq!(mode(&Kind::File, 0o2640), "-rw-r-S---");
    }

    #[test]
    fn tables_align() {
        let rows = [vec!["a".to_owned(), "1\n22".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["ID", " Size", "P"], &rows), "ID  Size  P\n-----------\na      1  x\n      22\n");
    }
}
