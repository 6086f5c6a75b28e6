//! What answers with content have in common, whoever has it: entity tags, ranges, lists. It must never call content by its
//! digest that has not been proven to be of it.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, IF_RANGE, LINK, RANGE,
};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;

use super::body::Answer;
use super::error::Refusal;
use super::{CONTENT_DIGEST, answer};
use crate::oci::range::{Requested, requested};
use crate::oci::{Digest, ManifestType};
use crate::serve::store::{Content, StoreError};

pub const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// Which fill a blob comes from whose digest is not proven yet.
const FILL: HeaderName = HeaderName::from_static("wharf-fill");
/// Blobs up to this length are answered in one piece.
const ONE_PIECE: u64 = 64 * 1024;

/// What content is known by, so that two answers can be told to be of the same bytes.
#[derive(Clone, Copy, Debug)]
pub enum Mark<'a> {
    /// Its digest, which is proven.
    Proven,
    /// The fill that it comes from; nothing where it is passed through.
    Filling(Option<&'a str>),
}

impl Mark<'_> {
    /// Whether a range that is asked for under this condition is of the same bytes.
    fn holds(self, condition: &HeaderValue, etag: &str) -> bool {
        match self {
            Self::Proven => condition.as_bytes() == etag.as_bytes(),
            Self::Filling(fill) => {
                let text = condition.to_str().unwrap_or_default();
                fill.is_some_and(|fill| text.trim_matches('"') == fill)
            }
        }
    }
}

fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// Whether the client has it already.
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// An answer to a request for a blob, and which of its bytes are still to be put into it.
struct Part {
    response: Response<Answer>,
    range: Option<Range<u64>>,
}

/// How a request for a blob of known length is answered.
fn part(digest: &Digest, mark: Mark<'_>, length: u64, method: &Method, headers: &HeaderMap) -> Result<Part, Refusal> {
    let tag = etag(digest);
    let named = match mark {
        Mark::Proven => Some((ETAG, tag.as_str())),
        Mark::Filling(fill) => fill.map(|fill| (FILL, fill)),
    };
    let common = || [(CONTENT_DIGEST, digest.as_str())].into_iter().chain(named.clone());
    if matches!(mark, Mark::Proven) && is_known(headers, &tag) {
        return Ok(Part { response: answer(StatusCode::NOT_MODIFIED, common()), range: None });
    }
    let other = headers.get(IF_RANGE).is_some_and(|condition| !mark.holds(condition, &tag));
    let range = headers.get(RANGE).filter(|_| !other).and_then(|value| value.to_str().ok());
    let (status, range) = match range.map_or(Requested::Whole, |header| requested(header, length)) {
        Requested::Whole => (StatusCode::OK, 0..length),
        Requested::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Requested::Unsatisfiable => return Err(Refusal::Range(length)),
    };
    let mut response = answer(status, common());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::try_from(format!("bytes {}-{}/{length}", range.start, range.end - 1))
    {
        headers.insert(CONTENT_RANGE, value);
    }
    Ok(Part { response, range: Some(range).filter(|_| method != Method::HEAD) })
}

/// A blob, or the part of it that is asked for. `unread` is what it means when its bytes cannot be read.
pub async fn blob(
    content: Arc<dyn Content>,
    (digest, mark): (&Digest, Mark<'_>),
    method: &Method,
    headers: &HeaderMap,
    unread: impl Fn(StoreError) -> Refusal,
) -> Result<Response<Answer>, Refusal> {
    let Part { mut response, range } = part(digest, mark, content.length(), method, headers)?;
    if let Some(range) = range {
        let is_proven = matches!(mark, Mark::Proven);
        *response.body_mut() =
            if is_proven { bytes_of(content, range).await.map_err(unread)? } else { Answer::content(content, range) };
    }
    Ok(response)
}

/// A blob that is in memory and right, or the part of it that is asked for.
pub fn small_blob(
    digest: &Digest,
    bytes: &Bytes,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response<Answer>, Refusal> {
    let Part { mut response, range } = part(digest, Mark::Proven, bytes.len() as u64, method, headers)?;
    let range = range.and_then(|range| Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?));
    if let Some(range) = range.filter(|range| range.end <= bytes.len()) {
        *response.body_mut() = Answer::whole(bytes.slice(range));
    }
    Ok(response)
}

/// What is said of a blob of which the length alone is known, because nothing else was asked for.
pub fn blob_head(digest: &Digest, length: u64) -> Response<Answer> {
    let mut response = answer(StatusCode::OK, [(CONTENT_DIGEST, digest.as_str())]);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// A blob of unknown length, whole: nothing can be said of a part of it.
pub fn blob_of_unknown_length(digest: &Digest, fill: Option<&str>, body: Answer) -> Response<Answer> {
    let common = [(CONTENT_DIGEST, digest.as_str()), (CONTENT_TYPE, "application/octet-stream")];
    let mut response = answer(StatusCode::OK, common.into_iter().chain(fill.map(|fill| (FILL, fill))));
    *response.body_mut() = body;
    response
}

/// Small content is read where it is asked for; the connection reads the rest as it goes.
async fn bytes_of(content: Arc<dyn Content>, range: Range<u64>) -> Result<Answer, StoreError> {
    if range.end - range.start <= ONE_PIECE && content.length() <= ONE_PIECE {
        let bytes = content.read(range.clone(), BytesMut::new()).await?;
        if bytes.len() as u64 == range.end - range.start {
            return Ok(Answer::whole(bytes));
        }
    }
    Ok(Answer::content(content, range))
}

/// A manifest. Its bytes may be missing where they are not wanted.
pub fn manifest(
    (digest, media_type): (&Digest, ManifestType),
    length: u64,
    bytes: Option<&Bytes>,
    method: &Method,
    headers: &HeaderMap,
) -> Response<Answer> {
    let tag = etag(digest);
    let common = [(CONTENT_DIGEST, digest.as_str()), (ETAG, tag.as_str())];
    if is_known(headers, &tag) {
        return answer(StatusCode::NOT_MODIFIED, common);
    }
    let mut response = answer(StatusCode::OK, common);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type.as_str()));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(bytes) = bytes.filter(|_| method != Method::HEAD) {
        *response.body_mut() = Answer::whole(bytes.clone());
    }
    response
}

/// A list, out of what it says.
pub fn list(value: &impl Serialize, content_type: &'static str, method: &Method) -> Response<Answer> {
    // Lists of strings always serialize.
    let text = serde_json::to_string(value).unwrap_or_default();
    document(text.into(), content_type, method)
}

/// A list, as it is written.
pub fn document(bytes: Bytes, content_type: &'static str, method: &Method) -> Response<Answer> {
    let mut response = answer(StatusCode::OK, [(CONTENT_TYPE, content_type)]);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    if method != Method::HEAD {
        *response.body_mut() = Answer::whole(bytes);
    }
    response
}

/// Says where a list goes on.
pub fn goes_on(response: &mut Response<Answer>, target: &str) {
    if let Ok(value) = HeaderValue::try_from(format!("<{target}>; rel=\"next\"")) {
        response.headers_mut().insert(LINK, value);
    }
}

/// Percent-encodes what is not plain in a query.
pub fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE};
    use hyper::{HeaderMap, Method};

    use super::{FILL, Mark, Part, encode, is_known, part};
    use crate::oci::Digest;

    #[test]
    fn what_a_client_has_is_known_by_its_tag() {
        for (value, expected) in
            [("\"a\"", true), ("W/\"a\"", true), ("\"b\", \"a\"", true), ("*", true), ("\"b\"", false), ("a", false)]
        {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(value))]);
            assert_eq!(is_known(&headers, "\"a\""), expected, "{value}");
        }
        assert!(!is_known(&HeaderMap::new(), "\"a\""));
    }

    #[test]
    fn a_blob_is_answered_as_it_is_asked_for_and_known() {
        let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let etag = format!("\"{digest}\"");
        let (whole, end, filling) = (Some(0..10), Some(7..10), Mark::Filling(Some("f1")));
        let from = |start: &str| vec![(RANGE, format!("bytes={start}-"))];
        let with = |start: &str, name: HeaderName, value: &str| [from(start), vec![(name, value.to_owned())]].concat();
        for (mark, asked, status, range) in [
            (Mark::Proven, vec![], 200, &whole),
            (Mark::Proven, from("7"), 206, &end),
            (Mark::Proven, with("7", IF_RANGE, &etag), 206, &end),
            (Mark::Proven, with("7", IF_RANGE, "\"other\""), 200, &whole),
            (Mark::Proven, with("7", IF_RANGE, "f1"), 200, &whole),
            (Mark::Proven, vec![(IF_NONE_MATCH, etag.clone())], 304, &None),
            (filling, vec![], 200, &whole),
            (filling, from("7"), 206, &end),
            (filling, with("7", IF_RANGE, "f1"), 206, &end),
            (filling, with("7", IF_RANGE, "\"f1\""), 206, &end),
            // It cannot be known yet to be of its digest.
            (filling, with("7", IF_RANGE, &etag), 200, &whole),
            (filling, vec![(IF_NONE_MATCH, etag.clone())], 200, &whole),
            (Mark::Filling(None), with("7", IF_RANGE, ""), 200, &whole),
        ] {
            let headers = asked.iter().map(|(name, value)| (name.clone(), HeaderValue::try_from(value).unwrap()));
            let headers: HeaderMap = headers.collect();
            let Part { response, range: found } = part(&digest, mark, 10, &Method::GET, &headers).ok().unwrap();
            assert_eq!((response.status().as_u16(), &found), (status, range), "{mark:?} {asked:?}");
            let shown = response.headers();
            assert_eq!(shown.contains_key(ETAG), matches!(mark, Mark::Proven), "{mark:?} {asked:?}");
            assert_eq!(shown.contains_key(FILL), matches!(mark, Mark::Filling(Some(_))), "{mark:?} {asked:?}");
            assert_eq!(shown.contains_key(CONTENT_RANGE), status == 206);
            let length = range.as_ref().map(|range| HeaderValue::from(range.end - range.start));
            assert_eq!(shown.get(CONTENT_LENGTH), length.as_ref());
            assert_eq!(part(&digest, mark, 10, &Method::HEAD, &headers).ok().unwrap().range, None);
        }
        let headers =
            from("10").into_iter().map(|(name, value)| (name, HeaderValue::try_from(value).unwrap())).collect();
        assert_eq!(
            part(&digest, filling, 10, &Method::GET, &headers).err().unwrap().answer(&Method::GET).status(),
            416
        );
    }

    #[test]
    fn a_query_is_encoded() {
        assert_eq!(encode("application/vnd.a+json&x=<>"), "application/vnd.a%2Bjson%26x%3D%3C%3E");
    }
}
