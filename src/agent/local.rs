//! What the rest of the agent knows of the node's own endpoint, and asks of it.

use crate::api::reason;
use crate::plan::Plan;

/// The endpoint, once it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Where the container runtime finds it: `https://127.0.0.1:17443`.
    pub url: String,
    /// Its certificate in PEM, to be pinned; none where it speaks plain HTTP.
    pub certificate: Option<String>,
}

impl LocalEndpoint {
    /// Its address with the port, without the scheme.
    #[must_use]
    pub fn address(&self) -> &str {
        self.url.split_once("://").map_or(self.url.as_str(), |(_, address)| address)
    }
}

/// How the endpoint is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// It has been bound.
    Serving(LocalEndpoint),
    /// It is turned off.
    Disabled,
    /// Something else has its port.
    PortInUse(String),
    /// It could not be started for another cause.
    Failed(String),
}

impl Local {
    /// The endpoint, if it serves.
    #[must_use]
    pub fn endpoint(&self) -> Option<&LocalEndpoint> {
        match self {
            Self::Serving(endpoint) => Some(endpoint),
            Self::Disabled | Self::PortInUse(_) | Self::Failed(_) => None,
        }
    }

    /// The documented reason for how it is doing, and the message.
    #[must_use]
    pub fn finding(&self) -> (&'static str, String) {
        match self {
            Self::Serving(endpoint) => (reason::SERVING, format!("The node's endpoint serves at {}", endpoint.url)),
            Self::Disabled => {
                let message =
                    "The node's endpoint is turned off by --local-port=0, and there is no Mirror's entry without it";
                (reason::DISABLED, message.to_owned())
            }
            Self::PortInUse(why) => (reason::PORT_IN_USE, why.clone()),
            Self::Failed(why) => (reason::ENDPOINT_FAILED, why.clone()),
        }
    }
}

/// What the agent asks of the endpoint itself.
pub trait Endpoint: Clone + Send + Sync + 'static {
    /// Where it is found.
    fn describe(&self) -> LocalEndpoint;
    /// Lets it serve these hosts and no others from now on.
    fn route(&self, plan: &Plan);
    /// Fetches what serves a host's canary through the endpoint, as the container runtime would.
    fn verify(&self, host: &str) -> impl Future<Output = Result<(), String>> + Send;
    /// The files of a host were written: from now on, what the runtime asks for counts as use.
    fn note_written(&self, host: &str);
    /// Whether the runtime has asked for something of this host.
    fn used(&self, host: &str) -> bool;
}
