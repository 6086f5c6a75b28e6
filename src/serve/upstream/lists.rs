//! Lists of tags and of referrers, as an endpoint answered. They must never be passed on without being lists.

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, LINK};
use serde_json::Value;
use url::Url;

use crate::oci::ManifestType;
use crate::oci::manifest::LARGEST;

use super::exchange::{Answer, read_bounded};
use super::transport::{Deadline, Limits};
use super::trouble::Trouble;
use super::{List, Listed};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Parts that are fetched one after the other at most.
const MOST_PAGES: usize = 32;

type Query = Vec<(String, String)>;

/// Where a list is, behind the repository's name, and what is asked of it.
pub fn asked(listed: &Listed) -> (String, Query) {
    let said = |name: &str, value: Option<String>| value.map(|value| (name.to_owned(), value));
    match listed {
        Listed::Tags(last, most) => {
            let (most, last) = (said("n", most.map(|most| most.to_string())), said("last", last.clone()));
            ("tags/list".to_owned(), most.into_iter().chain(last).collect())
        }
        Listed::Referrers(subject, kind) => {
            (format!("referrers/{subject}"), said("artifactType", kind.clone()).into_iter().collect())
        }
    }
}

pub fn accepted(listed: &Listed) -> HeaderValue {
    HeaderValue::from_static(match listed {
        Listed::Tags(..) => "application/json",
        Listed::Referrers(..) => ManifestType::OciIndex.as_str(),
    })
}

/// The parts of a list that came.
#[derive(Default)]
pub struct Pages {
    bytes: Vec<Bytes>,
    more_behind: Option<String>,
    filtered: bool,
}

impl Pages {
    /// Reads what was answered when a part was asked for, and says what to ask for next: where there is more, and whoever asks
    /// could not go on from here. Referrers have no way to do that, and some registries list tags behind marks of their own.
    pub async fn add(
        &mut self,
        answer: Answer,
        listed: &Listed,
        limits: &Limits,
        deadline: Deadline,
    ) -> Result<Option<Query>, Trouble> {
        let Answer { response, what } = answer;
        let headers = response.headers().clone();
        let left = LARGEST.saturating_sub(self.bytes.iter().map(Bytes::len).sum());
        let bytes = read_bounded(response, left, limits.progress, deadline, &what).await?;
        if entries(&mut serde_json::from_slice(&bytes).unwrap_or_default(), listed).is_none() {
            return Err(Trouble::Wrong(format!("{what}: the answer is not a list")));
        }
        self.bytes.push(bytes);
        self.filtered = headers.get(FILTERS_APPLIED).is_some_and(|value| value.as_bytes().starts_with(b"artifactType"));
        let Some(next) = next(&headers) else { return Ok(None) };
        let last = next.iter().find_map(|(name, value)| (name == "last").then(|| value.clone()));
        if matches!(listed, Listed::Tags(..)) && self.bytes.len() == 1 && last.is_some() {
            self.more_behind = last;
            return Ok(None);
        }
        if self.bytes.len() == MOST_PAGES {
            return Err(Trouble::Wrong(format!("{what}: the list has more than {MOST_PAGES} parts")));
        }
        Ok(Some(next))
    }

    /// The list: as it came, if it came in one part.
    pub fn end(self, listed: &Listed) -> List {
        let Self { bytes, more_behind, filtered } = self;
        let mut bytes = bytes.into_iter();
        let mut whole = bytes.next().unwrap_or_default();
        if bytes.len() > 0 {
            let mut document = serde_json::from_slice::<Value>(&whole).unwrap_or_default();
            for part in bytes {
                let mut part = serde_json::from_slice::<Value>(&part).unwrap_or_default();
                if let (Some(all), Some(more)) = (entries(&mut document, listed), entries(&mut part, listed)) {
                    all.append(more);
                }
            }
            whole = document.to_string().into();
        }
        List { bytes: whole, more_behind, filtered }
    }
}

/// What a list has in it. Some registries write `null` for nothing.
fn entries<'a>(document: &'a mut Value, listed: &Listed) -> Option<&'a mut Vec<Value>> {
    let name = match listed {
        Listed::Tags(..) => "tags",
        Listed::Referrers(..) => "manifests",
    };
    let entries = document.get_mut(name)?;
    if entries.is_null() {
        *entries = Value::Array(Vec::new());
    }
    entries.as_array_mut()
}

/// What is to be asked for the next part of a list: `Link: </v2/a/tags/list?n=5&last=x>; rel="next"`.
fn next(headers: &HeaderMap) -> Option<Query> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(", <"));
    let next = links.filter(|link| link.split(';').skip(1).any(is_next)).find_map(|link| {
        let target = link.trim().trim_start_matches('<').split('>').next()?;
        // Only its query counts, so that it does not matter where it leads.
        Url::parse("http://registry.invalid").ok()?.join(target).ok()
    })?;
    Some(next.query_pairs().into_owned().collect())
}

fn is_next(parameter: &str) -> bool {
    let parameter = parameter.trim().trim_end_matches(',');
    parameter.strip_prefix("rel=").is_some_and(|rel| rel.trim_matches('"').eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderMap, LINK};

    use super::next;

    #[test]
    fn the_next_part_is_behind_what_its_link_says() {
        for (link, expected) in [
            (r#"</v2/a/tags/list?n=5&last=1.2>; rel="next""#, Some("n=5&last=1.2")),
            (r"<https://a.example/v2/a/tags/list?last=a%2Bb&n=5>;rel=next", Some("last=a+b&n=5")),
            (r#"<?last=x>; title="a"; rel="NEXT""#, Some("last=x")),
            (r#"</first>; rel="first", </v2/a/tags/list?last=y>; rel="next""#, Some("last=y")),
            (r#"</v2/a/tags/list?last=1.2>; rel="prev""#, None),
            (r#"</v2/a/tags/list?next_page=x>; rel="next""#, Some("next_page=x")),
            ("</v2/a/tags/list?last=1.2>", None),
            ("", None),
            ("<a>;;rel=nextly", None),
        ] {
            let headers: HeaderMap = [(LINK, link.parse().unwrap())].into_iter().collect();
            let expected = expected.map(|query| query.split('&').collect::<Vec<_>>());
            let found = next(&headers)
                .map(|query| query.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>());
            assert_eq!(found.as_ref().map(|query| query.iter().map(String::as_str).collect()), expected, "{link}");
        }
    }
}
