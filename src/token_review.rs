//! Asks the API server whose a token is, with this process's own account. Whoever asks judges the answer. It must never show a
//! token, nor wait for an answer without an end.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::OnceCell;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(3);

/// What the API server says of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whose it is; none where it is nobody's.
    pub user: Option<String>,
    /// Those of the asked audiences that it is for.
    pub audiences: Vec<String>,
}

/// The API server of the cluster in which this process runs.
#[derive(Default)]
pub struct TokenReviews(OnceCell<Client>);

impl TokenReviews {
    /// Finds out how the API server is reached, which asks nobody. Without this, the first question does.
    ///
    /// # Errors
    /// When this process has no cluster to ask.
    pub async fn prepare(&self) -> Result<(), String> {
        self.client().await.map(drop)
    }

    async fn client(&self) -> Result<&Client, String> {
        let client = self.0.get_or_try_init(Client::try_default).await;
        client.map_err(|error| format!("there is no cluster whose API server could be asked: {error}"))
    }

    /// Whose a token is, that is meant for this audience.
    ///
    /// # Errors
    /// When the API server cannot be asked, with what to do about it where that is known.
    pub async fn ask(&self, token: &str, audience: &str) -> Result<Answer, String> {
        let reviews = Api::<TokenReview>::all(self.client().await?.clone());
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![audience.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let parameters = PostParams::default();
        let answer = tokio::time::timeout(LIMIT, reviews.create(&parameters, &review)).await;
        let answer = answer.map_err(|_| format!("the API server did not answer within {} s", LIMIT.as_secs()))?;
        let status = answer.map_err(|error| problem(&error))?.status.unwrap_or_default();
        let user = status.user.and_then(|user| user.username).filter(|_| status.authenticated == Some(true));
        Ok(Answer { user, audiences: status.audiences.unwrap_or_default() })
    }
}

fn problem(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            "the API server does not let this account ask whose a token is: it needs a ClusterRole with the verb create on \
             tokenreviews of authentication.k8s.io"
                .to_owned()
        }
        error => format!("the API server cannot be asked whose a token is: {error}"),
    }
}
