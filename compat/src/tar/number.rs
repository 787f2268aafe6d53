//! Numbers in headers: octal, base-256, and the decimals of pax.

use super::error::NumberProblem;

type Result<T> = std::result::Result<T, NumberProblem>;

/// A header field that cannot be negative. Empty = 0.
pub(super) fn unsigned(field: &[u8]) -> Result<u64> {
    match field.first() {
        Some(0xff) => Err(NumberProblem::Negative),
        Some(first) if *first >= 0x80 => u64::try_from(base256(field)?).map_err(|_| NumberProblem::Overflow),
        _ => octal(field),
    }
}

/// A header field that may be negative (in base-256 only). Empty = 0.
pub(super) fn signed(field: &[u8]) -> Result<i64> {
    match field.first() {
        Some(first) if *first >= 0x80 => i64::try_from(base256(field)?).map_err(|_| NumberProblem::Overflow),
        _ => i64::try_from(octal(field)?).map_err(|_| NumberProblem::Overflow),
    }
}

/// Blanks, digits, then only blanks and NULs.
fn octal(field: &[u8]) -> Result<u64> {
    let field = field.trim_ascii_start();
    let digits = field.iter().take_while(|c| c.is_ascii_digit()).count();
    let (digits, rest) = field.split_at(digits);
    if !rest.iter().all(|c| matches!(c, b' ' | 0)) {
        return Err(NumberProblem::Malformed);
    }
    digits.iter().try_fold(0u64, |value, c| match c {
        b'0'..=b'7' => {
            let value = value.checked_mul(8).ok_or(NumberProblem::Overflow)?;
            Ok(value + u64::from(c - b'0'))
        }
        _ => Err(NumberProblem::Malformed),
    })
}

/// GNU's binary form: 0x80 (positive) or 0xff (negative), then big-endian two's complement. Fields have at most 12 bytes.
fn base256(field: &[u8]) -> Result<i128> {
    let (first, rest) = field.split_first().ok_or(NumberProblem::Malformed)?;
    let value = rest.iter().try_fold(0i128, |v, b| Some(v.checked_mul(256)? + i128::from(*b))).ok_or(NumberProblem::Overflow)?;
    match first {
        0x80 => Ok(value),
        0xff => Ok(value - (1i128 << (8 * rest.len().min(15)))),
        _ => Err(NumberProblem::Malformed),
    }
}

/// A pax number that cannot be negative.
pub(super) fn decimal(text: &[u8]) -> Result<u64> {
    if text.first() == Some(&b'-') {
        return Err(NumberProblem::Negative);
    }
    if text.is_empty() {
        return Err(NumberProblem::Malformed);
    }
    text.iter().try_fold(0u64, |value, c| {
        if !c.is_ascii_digit() {
            return Err(NumberProblem::Malformed);
        }
        value.checked_mul(10).and_then(|v| v.checked_add(u64::from(c - b'0'))).ok_or(NumberProblem::Overflow)
    })
}

/// A pax time: seconds with an optional fraction, rounded towards the past.
pub(super) fn time(text: &[u8]) -> Result<i64> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |c| *c == b'.');
    let seconds = decimal(parts.next().unwrap_or_default())?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(NumberProblem::Malformed);
    }
    let seconds = i64::try_from(seconds).map_err(|_| NumberProblem::Overflow)?;
    let has_fraction = fraction.iter().any(|c| *c != b'0');
    // i64::MIN itself is not reached: -(2^63 - 1) - 1.
    Ok(if negative { -seconds - i64::from(has_fraction) } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use NumberProblem::{Malformed, Negative, Overflow};

    #[test]
    fn octal_fields_as_writers_pad_them() {
        for (field, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"006440\0 ", 0o6440),
            (b"77777777", 0o77_777_777),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
        ] {
            assert_eq!(unsigned(field), Ok(value), "{field:?}");
        }
        for field in [&b"0000648\0"[..], b"-000644\0", b"644\0\0\0x\0", b"0x1\0", b"6_4\0"] {
            assert_eq!(unsigned(field), Err(Malformed), "{field:?}");
        }
    }

    #[test]
    fn octal_too_large_for_64_bits() {
        assert_eq!(unsigned(b"7777777777777777777777777"), Err(Overflow));
        assert_eq!(signed(b"1777777777777777777777"), Err(Overflow));
    }

    #[test]
    fn base256_fields() {
        assert_eq!(unsigned(b"\x80\0\0\0\0\x2d\xc6\xc0"), Ok(3_000_000));
        assert_eq!(unsigned(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Err(Negative));
        assert_eq!(signed(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), Ok(-2));
        assert_eq!(unsigned(b"\x80\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff"), Err(Overflow));
        assert_eq!(unsigned(b"\x80\x01\0\0\0\0\0\0\0\0\0\0"), Err(Overflow));
        assert_eq!(signed(b"\xff\0\0\0\0\0\0\0\0\0\0\0"), Err(Overflow));
        assert_eq!(unsigned(b"\x81\0\0\0\0\0\0\0"), Err(Malformed));
    }

    #[test]
    fn pax_decimals() {
        assert_eq!(decimal(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), Err(Overflow));
        for bad in [&b""[..], b" 1", b"+1", b"1e3", b"0x1"] {
            assert_eq!(decimal(bad), Err(Malformed), "{bad:?}");
        }
        assert_eq!(decimal(b"-1"), Err(Negative));
    }

    #[test]
    fn pax_times_round_to_the_past() {
        for (text, seconds) in
            [(&b"12.999999999999"[..], 12), (b"12", 12), (b"12.", 12), (b"-1.5", -2), (b"-1.0", -1), (b"-0.1", -1), (b"0", 0)]
        {
            assert_eq!(time(text), Ok(seconds), "{text:?}");
        }
        assert_eq!(time(b"9223372036854775808"), Err(Overflow));
        assert_eq!(time(b"-9223372036854775807.5"), Ok(i64::MIN));
        for bad in [&b"1.2.3"[..], b"--1", b".5", b"1e9", b"nan"] {
            assert!(time(bad).is_err(), "{bad:?}");
        }
    }
}
