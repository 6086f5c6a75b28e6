//! The token by which the agent shows a Mirror that it is one of Wharf's. It must never be logged, nor go to anything but a Mirror.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use tokio::time::Instant;

/// The header that carries it.
pub const HEADER: HeaderName = HeaderName::from_static("wharf-agent-token");
/// How long the file's content is used without another look; the kubelet renews it long before its end.
const FRESH: Duration = Duration::from_secs(10);

/// A token in a file.
pub struct Token {
    path: PathBuf,
    read: Mutex<Option<(Instant, Option<HeaderValue>)>>,
}

impl Token {
    /// The token in this file.
    pub fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::default() }
    }

    /// The header's value; none while there is no token.
    pub fn header(&self) -> Option<HeaderValue> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, value)) = &*read
            && at.elapsed() < FRESH
        {
            return value.clone();
        }
        let value = match std::fs::read_to_string(&self.path) {
            Ok(text) => HeaderValue::try_from(text.trim()).ok().filter(|value| !value.is_empty()).map(|mut value| {
                value.set_sensitive(true);
                value
            }),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the token for Mirrors cannot be read");
                None
            }
        };
        *read = Some((Instant::now(), value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_renewed_token_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = Token::new(path.clone());
        assert_eq!(token.header(), None);
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(token.header(), None);
        tokio::time::advance(FRESH).await;
        assert_eq!(token.header().unwrap(), "one");
        assert_eq!(format!("{:?}", token.header().unwrap()), "Sensitive");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(token.header().unwrap(), "one");
        tokio::time::advance(FRESH).await;
        assert_eq!(token.header().unwrap(), "two");
    }
}
