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
    /// The HTTP status that the API server itself answered with. A status without the API server's own word for it
    /// comes from something in between, and tells nothing about the cluster.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        let Self::Kube(kube::Error::Api(status)) = self else {
            return None;
        };
        let word = match status.code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            code => return Some(code),
        };
        (status.reason == word).then_some(status.code)
    }
}

/// Runs one call, for [`LIMIT`] at most.
///
/// # Errors
/// When the call fails or takes too long.
pub async fn limited<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    within(LIMIT, call).await
}

async fn within<T>(limit: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_is_never_answered_ends() {
        let never = std::future::pending::<kube::Result<()>>();
        assert!(matches!(within(Duration::from_millis(1), never).await, Err(Error::TimedOut)));
        assert_eq!(within(LIMIT, async { Ok(1) }).await.unwrap(), 1);
    }

    #[test]
    fn only_the_api_servers_own_refusals_count() {
        let answer = |code: u16, reason: &str| {
            let status = serde_json::json!({"status": "Failure", "message": "", "reason": reason, "code": code});
            let status = serde_json::from_value(status).unwrap();
            Error::Kube(kube::Error::Api(Box::new(status))).code()
        };
        for (code, reason, expected) in [
            (404, "NotFound", Some(404)),
            (403, "Forbidden", Some(403)),
            (401, "Unauthorized", Some(401)),
            (503, "ServiceUnavailable", Some(503)),
            (404, "Failed to parse error data", None),
            (403, "", None),
            (401, "", None),
        ] {
            assert_eq!(answer(code, reason), expected, "{code} {reason}");
        }
        assert_eq!(Error::TimedOut.code(), None);
    }
}
