//! Ranges of bytes: of a blob that is read, and of a chunk that is uploaded.

use std::ops::Range;

/// What a `Range` header asks of content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requested {
    /// All of it: the header is malformed, has several ranges or another unit. The protocol lets a server ignore those.
    Whole,
    /// These bytes; never none.
    Part(Range<u64>),
    /// Bytes that the content does not have.
    Unsatisfiable,
}

/// Reads a `Range` header for content of `length` bytes.
#[must_use]
pub fn requested(header: &str, length: u64) -> Requested {
    let Some(range) = header.trim().strip_prefix("bytes=") else { return Requested::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Requested::Whole };
    let range = match (number(first), number(last)) {
        // Empty where the first is behind the last, as where both are behind the end.
        (Some(first), Some(last)) => first..last.saturating_add(1).min(length),
        (Some(first), None) if last.is_empty() => first..length,
        // The last so many bytes.
        (None, Some(count)) if first.is_empty() => length.saturating_sub(count)..length,
        _ => return Requested::Whole,
    };
    if range.is_empty() { Requested::Unsatisfiable } else { Requested::Part(range) }
}

/// From which byte on a `Range` header asks for content whose length may not be known: 0 where it asks for all of it, and more
/// than that where it asks for its end.
#[must_use]
pub fn begins(header: &str) -> u64 {
    // Of all lengths, the largest leaves every range as it was meant.
    match requested(header, u64::MAX) {
        Requested::Part(range) => range.start,
        Requested::Whole | Requested::Unsatisfiable => 0,
    }
}

/// Reads the `Content-Range` of an uploaded chunk: `first-last`, both inclusive, with or without a unit and a total. None
/// where it is malformed.
#[must_use]
pub fn chunk(header: &str) -> Option<Range<u64>> {
    let range = header.trim();
    let range = range.strip_prefix("bytes ").or_else(|| range.strip_prefix("bytes=")).unwrap_or(range);
    let range = range.split_once('/').map_or(range, |(range, _)| range);
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then(|| last.checked_add(1).map(|end| first..end))?
}

/// Digits alone: `u64::from_str` would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::{Requested, begins, chunk, requested};

    #[test]
    fn a_range_header_is_read_as_http_says() {
        for (header, expected) in [
            ("bytes=0-0", Requested::Part(0..1)),
            ("bytes=0-9", Requested::Part(0..10)),
            ("bytes=0-99", Requested::Part(0..10)),
            ("bytes=3-5", Requested::Part(3..6)),
            ("bytes=9-", Requested::Part(9..10)),
            ("bytes=-1", Requested::Part(9..10)),
            ("bytes=-99", Requested::Part(0..10)),
            ("bytes=0-18446744073709551615", Requested::Part(0..10)),
            ("bytes=10-", Requested::Unsatisfiable),
            ("bytes=10-12", Requested::Unsatisfiable),
            ("bytes=-0", Requested::Unsatisfiable),
            ("bytes=5-3", Requested::Unsatisfiable),
            ("bytes=0-1,3-4", Requested::Whole),
            ("bytes=-", Requested::Whole),
            ("bytes=+1-2", Requested::Whole),
            ("bytes=a-b", Requested::Whole),
            ("bytes=99999999999999999999-", Requested::Whole),
            ("items=0-1", Requested::Whole),
            ("", Requested::Whole),
        ] {
            assert_eq!(requested(header, 10), expected, "{header}");
        }
        assert_eq!(requested("bytes=0-", 0), Requested::Unsatisfiable);
    }

    #[test]
    fn where_a_range_begins_is_known_without_a_length() {
        for (header, expected) in
            [("bytes=0-", 0), ("bytes=7-", 7), ("bytes=7-9", 7), ("bytes=1-2,5-6", 0), ("", 0), ("bytes=9-7", 0)]
        {
            assert_eq!(begins(header), expected, "{header}");
        }
        assert!(begins("bytes=-5") > 0);
    }

    #[test]
    fn the_range_of_a_chunk_is_read_with_and_without_unit() {
        for header in ["3-5", " 3-5 ", "bytes 3-5", "bytes=3-5", "bytes 3-5/9", "3-5/*"] {
            assert_eq!(chunk(header), Some(3..6), "{header}");
        }
        for header in ["", "5-3", "3", "-3", "3-", "a-b", "+3-5", "0-18446744073709551615"] {
            assert_eq!(chunk(header), None, "{header}");
        }
    }
}
