//! The way in through a Gateway: the route from the host to the registry's Service, and the policy by which the Gateway speaks TLS
//! with it. Neither has a timeout: how long an upload takes is not known here.

use super::Inputs;
use crate::api::registry::GatewayExposure;
use crate::operator::gateway_api::{
    AuthorityReference, Backend, BackendTlsPolicy, BackendTlsPolicySpec, BackendValidation, HttpRoute, HttpRouteMatch,
    HttpRouteRule, HttpRouteSpec, PathMatch, PolicyTarget,
};
use crate::operator::registry::names::SERVICE_PORT;

/// Every request for the host. What the API would default is written out, so that a change of it by others is seen.
pub(super) fn route(inputs: &Inputs<'_>, wanted: &GatewayExposure) -> HttpRoute {
    let every = HttpRouteMatch { path: PathMatch { kind: "PathPrefix".to_owned(), value: "/".to_owned() } };
    let backend = Backend {
        group: String::new(),
        kind: "Service".to_owned(),
        name: inputs.names.service().to_owned(),
        port: SERVICE_PORT,
        weight: 1,
    };
    HttpRoute {
        metadata: inputs.owned(inputs.names.front()),
        spec: HttpRouteSpec {
            hostnames: vec![wanted.host.clone()],
            parent_refs: wanted.parent_refs.iter().map(Into::into).collect(),
            rules: vec![HttpRouteRule { matches: vec![every], backend_refs: vec![backend] }],
        },
        status: None,
    }
}

/// The certificates are in the config map that all clients use; no Gateway needs a key of ours.
pub(super) fn backend_policy(inputs: &Inputs<'_>) -> BackendTlsPolicy {
    let (core, names) = (String::new(), inputs.names);
    let target = PolicyTarget { group: core.clone(), kind: "Service".to_owned(), name: names.service().to_owned() };
    let authority = AuthorityReference { group: core, kind: "ConfigMap".to_owned(), name: names.authority() };
    BackendTlsPolicy {
        metadata: inputs.owned(names.front()),
        spec: BackendTlsPolicySpec {
            target_refs: vec![target],
            validation: BackendValidation { ca_certificate_refs: vec![authority], hostname: names.address() },
        },
        status: None,
    }
}
