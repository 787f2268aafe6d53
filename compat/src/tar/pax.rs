//! Records of pax extension headers.

use super::error::TarErrorKind;

type Result<T> = std::result::Result<T, TarErrorKind>;

/// The records that matter here, as they were written. The last one of a name counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<Vec<u8>>,
    pub uid: Option<Vec<u8>>,
    pub gid: Option<Vec<u8>>,
    pub uname: Option<Vec<u8>>,
    pub gname: Option<Vec<u8>>,
    pub mtime: Option<Vec<u8>>,
}

impl Pax {
    /// Parses a payload: `LENGTH KEY=VALUE\n`, LENGTH being that of the whole record.
    pub fn parse(&mut self, mut payload: &[u8]) -> Result<()> {
        while !payload.is_empty() {
            let (key, value, rest) = record(payload)?;
            self.take(key, value)?;
            payload = rest;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let place = match key {
            b"path" => &mut self.path,
            b"linkpath" => &mut self.linkpath,
            b"size" => &mut self.size,
            b"uid" => &mut self.uid,
            b"gid" => &mut self.gid,
            b"uname" => &mut self.uname,
            b"gname" => &mut self.gname,
            b"mtime" => &mut self.mtime,
            b"hdrcharset" if matches!(value, b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => return Ok(()),
            b"hdrcharset" => return Err(TarErrorKind::Pax("unknown hdrcharset")),
            _ if key.starts_with(b"GNU.sparse.") || key == b"SCHILY.realsize" => return Err(TarErrorKind::Sparse),
            _ => return Ok(()),
        };
        *place = Some(value.to_vec());
        Ok(())
    }

    /// Whether it says where data ends or what a member is called: nothing that may hold for all members.
    pub fn is_of_one_member(&self) -> bool {
        self.path.is_some() || self.linkpath.is_some() || self.size.is_some()
    }
}

/// The first record: key, value, and what is behind it.
fn record(payload: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let digits = payload.iter().take_while(|c| c.is_ascii_digit()).count();
    let length = super::number::decimal(&payload[..digits]).map_err(|_| TarErrorKind::Pax("no record length"))?;
    let length = usize::try_from(length).map_err(|_| TarErrorKind::Pax("record length"))?;
    if length > payload.len() || length < digits + 2 {
        return Err(TarErrorKind::Pax("record length"));
    }
    let (record, rest) = payload.split_at(length);
    let text = record[digits..]
        .strip_prefix(b" ")
        .and_then(|r| r.strip_suffix(b"\n"))
        .ok_or(TarErrorKind::Pax("record without blank or newline"))?;
    let equals = text.iter().position(|c| *c == b'=').ok_or(TarErrorKind::Pax("record without '='"))?;
    let (key, value) = (&text[..equals], &text[equals + 1..]);
    if key.is_empty() || key.contains(&b'\n') {
        return Err(TarErrorKind::Pax("record key"));
    }
    Ok((key, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(payload: &[u8]) -> Result<Pax> {
        let mut pax = Pax::default();
        pax.parse(payload)?;
        Ok(pax)
    }

    #[test]
    fn values_may_hold_newlines_and_equal_signs() {
        let pax = parse(b"21 hdrcharset=BINARY\n16 path=a\nb=c=\xff\n11 uid=123\n").expect("valid");
        assert_eq!(pax.path.as_deref(), Some(&b"a\nb=c=\xff"[..]));
        assert_eq!(pax.uid.as_deref(), Some(&b"123"[..]));
    }

    #[test]
    fn the_last_record_of_a_name_counts() {
        assert_eq!(parse(b"8 uid=1\n8 uid=2\n").expect("valid").uid.as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"8 uid=1"[..],
            b"9 uid=1\n",
            b"7 uid=1\n",
            b"8 uid=1\n\0",
            b"8 uid 1\n",
            b"uid=1\n",
            b"0 uid=1\n",
            b"3 \n",
            b"2\n",
            b"5 =1\n",
            b"99999999999999999999 uid=1\n",
            b"8\tuid=1\n",
            b"19 hdrcharset=UTF-7\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sparse_maps_are_refused() {
        assert!(matches!(parse(b"22 GNU.sparse.major=1\n"), Err(TarErrorKind::Sparse)));
    }
}
