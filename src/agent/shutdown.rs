//! What happens to the node's entries when the agent is told to stop. An update must keep them, or pulls would fail
//! until the next agent is there; an uninstall must take them away. The agent's own `DaemonSet` tells which it is.

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client};

use super::call::{self, limited};

/// What was learnt about the agent's own `DaemonSet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It exists, and nobody is deleting it.
    Exists,
    /// It exists and is being deleted.
    BeingDeleted,
    /// The API server answered with this status.
    Refused(u16),
    /// The API server could not be asked, or did not answer in time.
    None,
}

/// What to do with the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Leave them: another agent follows, or nobody knows.
    Keep,
    /// Leave the node as it was found.
    Restore,
}

/// Decides by what was learnt. In doubt the entries stay: a leftover is harmless, a missing one fails pulls.
#[must_use]
pub fn decide(answer: Answer) -> Decision {
    match answer {
        // 401 and 403: the agent's account, or its rights, went with the uninstall.
        Answer::BeingDeleted | Answer::Refused(401 | 403 | 404) => Decision::Restore,
        Answer::Exists | Answer::Refused(_) | Answer::None => Decision::Keep,
    }
}

/// Asks the API server about the agent's own `DaemonSet`, once.
pub async fn ask(client: Client, namespace: &str, daemon_set: &str) -> Answer {
    let api: Api<DaemonSet> = Api::namespaced(client, namespace);
    match limited(api.get_metadata(daemon_set)).await {
        Ok(found) if found.metadata.deletion_timestamp.is_some() => Answer::BeingDeleted,
        Ok(_) => Answer::Exists,
        Err(error) => {
            tracing::info!(%error, namespace, daemon_set, "the agent's own DaemonSet cannot be read");
            answer_of(&error)
        }
    }
}

fn answer_of(error: &call::Error) -> Answer {
    error.code().map_or(Answer::None, Answer::Refused)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::agent::fake::Api as Fake;

    #[test]
    fn the_decision_table() {
        for (answer, decision) in [
            (Answer::Exists, Decision::Keep),
            (Answer::BeingDeleted, Decision::Restore),
            (Answer::Refused(404), Decision::Restore),
            (Answer::Refused(401), Decision::Restore),
            (Answer::Refused(403), Decision::Restore),
            (Answer::Refused(429), Decision::Keep),
            (Answer::Refused(500), Decision::Keep),
            (Answer::Refused(503), Decision::Keep),
            (Answer::None, Decision::Keep),
        ] {
            assert_eq!(decide(answer), decision, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn the_answers_of_an_api_server() {
        let fake = Fake::default();
        let path = "/apis/apps/v1/namespaces/wharf-nodes/daemonsets/wharf-agent";
        let asked = || ask(fake.client(), "wharf-nodes", "wharf-agent");
        assert_eq!(asked().await, Answer::Refused(404));
        let metadata = json!({"name": "wharf-agent", "namespace": "wharf-nodes"});
        fake.put(path.into(), json!({"metadata": metadata}));
        assert_eq!(asked().await, Answer::Exists);
        let metadata = json!({"name": "wharf-agent", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        fake.put(path.into(), json!({"metadata": metadata}));
        assert_eq!(asked().await, Answer::BeingDeleted);
        fake.fail(403);
        assert_eq!(asked().await, Answer::Refused(403));
    }

    #[test]
    fn an_api_server_that_never_answers_says_nothing() {
        assert_eq!(answer_of(&call::Error::TimedOut), Answer::None);
    }
}
