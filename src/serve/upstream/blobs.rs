//! The bytes of one blob, from the endpoint that began to give them. They must never be pieced together from two contents; that
//! they are those of the digest is checked by who keeps them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use hyper::Method;
use hyper::StatusCode;
use hyper::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::Response;

use crate::oci::{Digest, RepositoryName};

use super::client::{Asked, Upstream, length, number_of};
use super::exchange::{Answer, Registry};
use super::identity::Who;
use super::transport::{Deadline, causes};
use super::trouble::{Away, Tried, Trouble};
use super::{Arriving, Failure, Source};

/// A blob at an upstream.
pub struct Blob {
    upstream: Upstream,
    repository: RepositoryName,
    digest: Digest,
    who: Who,
    begun: Option<Begun>,
}

/// What the first answer said: the content that all others must be of.
#[derive(Clone)]
struct Begun {
    registry: usize,
    length: Option<u64>,
    /// A strong one only: a weak one may be of other bytes.
    tag: Option<HeaderValue>,
}

/// What the head of an answer says of its body.
#[derive(Debug, PartialEq, Eq)]
struct Described {
    /// Of the whole blob.
    length: Option<u64>,
    /// Bytes of the body before those that were asked for.
    skip: u64,
    /// Of the body.
    body: Option<u64>,
}

impl Blob {
    pub fn new(upstream: Upstream, repository: RepositoryName, digest: Digest, who: Who) -> Self {
        Self { upstream, repository, digest, who, begun: None }
    }

    async fn begin(&mut self, offset: u64) -> Result<Arriving, Failure> {
        let (deadline, number) = (self.upstream.deadline(), number_of(&(&self.repository, &self.digest)));
        let upstream = self.upstream.clone();
        let mut tried = Tried::default();
        for (at, registry) in upstream.registries().iter().enumerate() {
            // What once began goes on where it began.
            if deadline.is_over() || self.begun.as_ref().is_some_and(|begun| begun.registry != at) {
                continue;
            }
            match registry.watched.ask(number, self.ask(registry, offset, deadline)).await {
                Ok((answer, described)) => {
                    let tag = answer.response.headers().get(ETAG).filter(|tag| is_strong(tag)).cloned();
                    let length = described.length;
                    self.begun.get_or_insert(Begun { registry: at, length, tag });
                    return upstream.ended(Ok(arriving(&upstream, at, answer, &described)), &self.who);
                }
                Err(trouble) => {
                    if let Err(believed) = tried.add(trouble) {
                        return upstream.ended(Err(believed), &self.who);
                    }
                }
            }
        }
        upstream.ended(Err(tried.end()), &self.who)
    }

    async fn ask(&self, registry: &Registry, offset: u64, deadline: Deadline) -> Result<(Answer, Described), Trouble> {
        let rest = format!("blobs/{}", self.digest);
        let mut headers = self.upstream.headers(None);
        if offset > 0 {
            // Digits can always stand in a header.
            headers.extend(HeaderValue::try_from(format!("bytes={offset}-")).ok().map(|range| (RANGE, range)));
            let tag = self.begun.as_ref().and_then(|begun| begun.tag.clone());
            headers.extend(tag.map(|tag| (IF_RANGE, tag)));
        }
        let (method, repository, query) = (Method::GET, &self.repository, &[][..]);
        let asked = Asked { method, repository, rest: &rest, query, headers };
        let answer = self.upstream.ask(registry, asked, &self.who, deadline).await?;
        let described = describe(answer.response.status(), answer.response.headers(), offset, self.begun.as_ref());
        match described {
            Ok(described) => Ok((answer, described)),
            Err(problem) => Err(Trouble::Wrong(format!("{}: {problem}", answer.what))),
        }
    }
}

impl Source for Blob {
    fn open(&mut self, offset: u64) -> BoxFuture<'_, Result<Arriving, Failure>> {
        Box::pin(self.begin(offset))
    }
}

fn is_strong(tag: &HeaderValue) -> bool {
    tag.as_bytes().starts_with(b"\"") && tag.as_bytes().len() > 2
}

/// What an answer from an offset on says of itself, if it can be so and is of the content that began.
fn describe(status: StatusCode, headers: &HeaderMap, offset: u64, begun: Option<&Begun>) -> Result<Described, String> {
    let body = length(headers);
    if body.is_some_and(|length| i64::try_from(length).is_err()) {
        return Err("the length is beyond all bounds".into());
    }
    let described = match status {
        StatusCode::OK => whole(body, offset)?,
        StatusCode::PARTIAL_CONTENT if offset > 0 => part(headers, body, offset)?,
        other => return Err(format!("{other} is no answer to what was asked")),
    };
    let Some(begun) = begun else { return Ok(described) };
    let same_tag = begun.tag.as_ref().map(|tag| headers.get(ETAG) == Some(tag));
    match (begun.length, described.length) {
        (Some(first), Some(now)) if first != now => Err(format!("it was {first} bytes long, and is {now} now")),
        // An answer to `If-Range` that is not the same content is a whole one, which says so by its tag.
        _ if same_tag == Some(false) && headers.contains_key(ETAG) => Err("it is another content than it was".into()),
        (Some(_), None) if same_tag != Some(true) => Err("it does not say which content it goes on with".into()),
        (first, now) => Ok(Described { length: now.or(first), ..described }),
    }
}

/// A whole body where a part was asked for is read up to the part.
fn whole(body: Option<u64>, offset: u64) -> Result<Described, String> {
    if body.is_some_and(|length| length < offset) {
        return Err(format!("it has fewer than {offset} bytes"));
    }
    Ok(Described { length: body, skip: offset, body })
}

fn part(headers: &HeaderMap, body: Option<u64>, offset: u64) -> Result<Described, String> {
    let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (first, last, total) = content_range(text).ok_or("its Content-Range cannot be read")?;
    let is_to_the_end = total.is_none_or(|total| last.checked_add(1) == Some(total));
    let announced = (last - first).checked_add(1);
    if first != offset || !is_to_the_end || body.is_some_and(|length| announced != Some(length)) {
        return Err(format!("it gives bytes {first} to {last}, where all from {offset} on were asked for"));
    }
    if i64::try_from(total.unwrap_or(last)).is_err() {
        return Err("the length is beyond all bounds".into());
    }
    Ok(Described { length: total, skip: 0, body: announced })
}

/// First and last byte, and the whole length, of `bytes 5-9/10` or `bytes 5-9/*`.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, last, total))
}

/// The body of an answer, while it comes.
struct Coming {
    upstream: Upstream,
    registry: usize,
    response: Response,
    what: Arc<str>,
    skip: u64,
    /// What is still to come, where that was said.
    left: Option<u64>,
    progress: Duration,
}

fn arriving(upstream: &Upstream, registry: usize, answer: Answer, described: &Described) -> Arriving {
    let coming = Coming {
        upstream: upstream.clone(),
        registry,
        response: answer.response,
        what: answer.what.into(),
        skip: described.skip,
        left: described.body,
        progress: upstream.limits().progress,
    };
    let bytes = stream::unfold(Some(coming), |coming| async move {
        let mut coming = coming?;
        match coming.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(coming))),
            Ok(None) => None,
            Err(trouble) => Some((Err(trouble.of(coming.upstream.host())), None)),
        }
    });
    Arriving { length: described.length, bytes: bytes.boxed() }
}

impl Coming {
    /// The next bytes that were asked for. Only the time that it is waited for them counts, not what is done with them.
    async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            let what = &self.what;
            let Ok(chunk) = tokio::time::timeout(self.progress, self.response.chunk()).await else {
                let wait = self.progress.as_millis();
                return Err(Trouble::away(Away::Silent, format!("{what}: nothing more came for {wait} ms")));
            };
            let broken = |error: reqwest::Error| {
                let causes = causes(&error.without_url());
                Trouble::away(Away::Unreachable, format!("{what}: the answer broke off: {causes}"))
            };
            let Some(mut bytes) = chunk.map_err(broken)? else {
                return match self.left {
                    None | Some(0) => Ok(None),
                    Some(left) => {
                        let problem = format!("{what}: the answer ended {left} bytes too soon");
                        Err(Trouble::away(Away::Unreachable, problem))
                    }
                };
            };
            let length = bytes.len() as u64;
            if let Some(registry) = self.upstream.registries().get(self.registry) {
                registry.watched.bytes.add(length);
            }
            if let Some(left) = &mut self.left {
                *left = left
                    .checked_sub(length)
                    .ok_or_else(|| Trouble::Wrong(format!("{what}: the answer is longer than it was said to be")))?;
            }
            let skipped = self.skip.min(length);
            self.skip -= skipped;
            // It is not longer than the bytes are.
            let bytes = bytes.split_off(usize::try_from(skipped).unwrap_or(bytes.len()));
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue};

    use super::{Begun, Described, describe, is_strong};

    fn headers(length: &str, range: &str, tag: &str) -> HeaderMap {
        let said = [(CONTENT_LENGTH, length), (CONTENT_RANGE, range), (ETAG, tag)];
        let said = said.into_iter().filter(|(_, value)| !value.is_empty());
        said.map(|(name, value)| (name, HeaderValue::try_from(value).unwrap())).collect()
    }

    const fn found(length: Option<u64>, skip: u64, body: Option<u64>) -> Described {
        Described { length, skip, body }
    }

    #[test]
    fn a_first_answer_is_taken_if_it_can_be_true() {
        for (offset, status, length, range, expected) in [
            (0, 200, "10", "", Some(found(Some(10), 0, Some(10)))),
            (0, 200, "", "", Some(found(None, 0, None))),
            (0, 200, "9223372036854775807", "", Some(found(Some(i64::MAX as u64), 0, Some(i64::MAX as u64)))),
            (0, 200, "9223372036854775808", "", None),
            (0, 206, "10", "bytes 0-9/10", None),
            (0, 204, "", "", None),
            (4, 206, "6", "bytes 4-9/10", Some(found(Some(10), 0, Some(6)))),
            (4, 206, "", "bytes 4-9/10", Some(found(Some(10), 0, Some(6)))),
            (4, 206, "6", "bytes 4-9/*", Some(found(None, 0, Some(6)))),
            (4, 206, "5", "bytes 4-9/10", None),
            (4, 206, "5", "bytes 4-8/10", None),
            (4, 206, "6", "bytes 3-9/10", None),
            (4, 206, "6", "bytes 5-9/10", None),
            (4, 206, "6", "bytes 4-10/10", None),
            (4, 206, "6", "bytes 9-4/10", None),
            (4, 206, "6", "bytes +4-9/10", None),
            (4, 206, "6", "items 4-9/10", None),
            (4, 206, "6", "", None),
            (4, 206, "", "bytes 4-18446744073709551615/*", None),
            (4, 206, "", "bytes 4-9223372036854775807/9223372036854775808", None),
            // A range is not understood by each.
            (4, 200, "10", "", Some(found(Some(10), 4, Some(10)))),
            (4, 200, "", "", Some(found(None, 4, None))),
            (4, 200, "4", "", Some(found(Some(4), 4, Some(4)))),
            (4, 200, "3", "", None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let described = describe(status, &headers(length, range, ""), offset, None);
            assert_eq!(described.ok(), expected, "{offset} {status} {length:?} {range:?}");
        }
    }

    #[test]
    fn a_further_answer_is_taken_if_it_is_of_the_same_content() {
        let (one, other, half) = ("\"one\"", "\"other\"", "bytes 4-9/10");
        let part = || Some(found(Some(10), 0, Some(6)));
        for (first, tag, status, length, range, now, expected) in [
            (Some(10), one, 206, "6", half, one, part()),
            (Some(10), one, 206, "6", half, "", part()),
            (Some(10), one, 206, "6", half, other, None),
            (Some(10), "", 206, "6", half, other, part()),
            (Some(10), "", 206, "6", half, "", part()),
            (Some(11), "", 206, "6", half, "", None),
            (Some(11), one, 206, "6", half, one, None),
            (Some(10), "", 206, "6", "bytes 4-9/*", "", None),
            (Some(10), one, 206, "6", "bytes 4-9/*", "", None),
            (Some(10), one, 206, "6", "bytes 4-9/*", one, part()),
            (None, "", 206, "6", half, "", part()),
            (Some(10), one, 200, "10", "", one, Some(found(Some(10), 4, Some(10)))),
            (Some(10), one, 200, "10", "", other, None),
            (Some(10), "", 200, "10", "", "", Some(found(Some(10), 4, Some(10)))),
            (Some(10), "", 200, "12", "", "", None),
        ] {
            let begun = Begun {
                registry: 0,
                length: first,
                tag: Some(tag).filter(|tag| !tag.is_empty()).map(HeaderValue::from_static),
            };
            let status = StatusCode::from_u16(status).unwrap();
            let described = describe(status, &headers(length, range, now), 4, Some(&begun));
            assert_eq!(described.ok(), expected, "{first:?} {tag} {status} {length} {range} {now}");
        }
    }

    #[test]
    fn only_a_strong_tag_names_bytes() {
        for (tag, expected) in [("\"a\"", true), ("W/\"a\"", false), ("\"\"", false), ("a", false)] {
            assert_eq!(is_strong(&HeaderValue::from_static(tag)), expected, "{tag}");
        }
    }
}
