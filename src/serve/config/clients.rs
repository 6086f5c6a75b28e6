//! The part of the configuration about who may ask for what other registries have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may ask for what other registries have, besides what `access` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Clients {
    /// Only the agents of a cluster's nodes; without it, everybody.
    #[serde(default)]
    pub agents: Option<Agents>,
}

/// How agents are known. The API server of the cluster is asked, with the account that this process has there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agents {
    /// The user name that the API server gives them: `system:serviceaccount:NAMESPACE:NAME`.
    pub service_account: String,
    /// The audience that their tokens are meant for.
    pub audience: String,
}

impl Clients {
    /// What cannot be meant by it.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let agents = self.agents.as_ref()?;
        let name = agents.service_account.strip_prefix("system:serviceaccount:").unwrap_or_default();
        let is_account = name.split(':').count() == 2 && name.split(':').all(|part| !part.is_empty());
        if !is_account {
            return Some("clients.agents.serviceAccount is not of the form system:serviceaccount:NAMESPACE:NAME");
        }
        agents.audience.is_empty().then_some("clients.agents.audience is empty: any token of the cluster would do")
    }
}
