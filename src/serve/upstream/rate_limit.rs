//! What a registry says of how often it may still be asked. It must never decide anything by it.

use std::time::Duration;

use hyper::header::HeaderMap;

/// How often a registry may be asked, as it last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How often within the window, where it was said.
    pub limit: Option<u64>,
    /// How often still.
    pub remaining: u64,
    /// The window, or until when, where it was said.
    pub window: Option<Duration>,
}

impl RateLimit {
    /// Reads the headers of an answer: those of Docker (`ratelimit-limit: 100;w=21600`), or `RateLimit` of the HTTP API
    /// working group in both of its forms.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(remaining) = header("ratelimit-remaining") {
            let limit = header("ratelimit-limit");
            let window = limit.and_then(|limit| parameter(limit, "w")).or_else(|| parameter(remaining, "w"));
            return Some(Self {
                limit: limit.and_then(first),
                remaining: first(remaining)?,
                window: window.map(Duration::from_secs),
            });
        }
        let both = header("ratelimit")?;
        let any = |names: [&str; 2]| names.into_iter().find_map(|name| parameter(both, name));
        Some(Self {
            limit: parameter(both, "limit"),
            remaining: any(["r", "remaining"])?,
            window: any(["t", "reset"]).map(Duration::from_secs),
        })
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split([';', ',']).map(str::trim)
}

fn first(text: &str) -> Option<u64> {
    parts(text).next()?.parse().ok()
}

fn parameter(text: &str, name: &str) -> Option<u64> {
    parts(text).find_map(|part| part.split_once('=').filter(|(found, _)| *found == name)?.1.parse().ok())
}

/// When a server wants to be asked again: in so many seconds. A date is not read, for the two clocks may differ.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(hyper::header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::header::HeaderMap;

    use super::{RateLimit, retry_after};

    #[test]
    fn limits_are_read_in_the_forms_that_registries_write() {
        let docker = RateLimit { limit: Some(100), remaining: 76, window: Some(Duration::from_secs(21600)) };
        for (headers, expected) in [
            (vec![("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "76;w=21600")], Some(docker)),
            (vec![("ratelimit-remaining", "76")], Some(RateLimit { limit: None, remaining: 76, window: None })),
            (vec![("ratelimit", "limit=100, remaining=76, reset=21600")], Some(docker)),
            (vec![("ratelimit", "\"default\";r=76;t=21600")], Some(RateLimit { limit: None, ..docker })),
            (vec![("ratelimit-limit", "100")], None),
            (vec![("ratelimit-remaining", "many")], None),
            (vec![("ratelimit-remaining", "-1")], None),
            (vec![("ratelimit", "\"default\"")], None),
            (vec![], None),
        ] {
            let map: HeaderMap =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            assert_eq!(RateLimit::read(&map), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_wait_is_read_in_seconds() {
        for (value, expected) in
            [("7", Some(7)), (" 0 ", Some(0)), ("-1", None), ("Fri, 31 Dec 1999 23:59:59 GMT", None)]
        {
            let map: HeaderMap = [(hyper::header::RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
            assert_eq!(retry_after(&map), expected.map(Duration::from_secs), "{value}");
        }
    }
}
