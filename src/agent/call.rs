//! One call to the API server with an end. Nothing in the agent calls the API server in another way, but for the watch.

use std::time::Duration;

use thiserror::Error;

/// How long one call may take. Kubernetes itself gives up most requests after a minute; a node can ask again sooner.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Why a call gave no answer.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server answered with an error, or could not be reached.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// Nothing came within [`LIMIT`].
    #[error("no answer within {} s", LIMIT.as_secs())]
    TimedOut,
}

impl Error {
    /// The HTTP status that the API server answered with, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

/// Runs one call, for [`LIMIT`] at most.
///
/// # Errors
/// When the call fails or takes too long.
pub async fn limited<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(LIMIT, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::TimedOut),
    }
}
