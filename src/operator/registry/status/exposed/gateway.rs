//! What is to be said of the way in through a Gateway: whether the cluster has the Gateway API, what controllers say of the route
//! and the policy, and what the last proof came to. It must never repeat what a controller said of an older route.

use super::{host_taken, is_about_the_front, judged, no, refusal, taken};
use crate::api::condition::{Finding, Status};
use crate::api::reason;
use crate::api::registry::GatewayExposure;
use crate::operator::apis::Apis;
use crate::operator::front::Way;
use crate::operator::gateway_api::{self, BackendTlsPolicy};
use crate::operator::registry::names::Names;
use crate::operator::registry::status::Outcome;

pub(super) fn by_gateway(outcome: &Outcome<'_>, wanted: &GatewayExposure) -> Finding {
    let (observed, name) = (&outcome.observed.exposure, outcome.names.front());
    if !observed.apis.has_gateway_api() {
        return no(reason::GATEWAY_API_MISSING, missing(observed.apis));
    }
    let taken =
        [taken("HTTPRoute", &name, &observed.route), taken("BackendTLSPolicy", &name, &observed.backend_policy)];
    if let Some(finding) = taken.into_iter().flatten().next() {
        return finding;
    }
    if let Some(who) = &observed.route_host_taken_by {
        return host_taken("gateway", &wanted.host, who);
    }
    if let Some(finding) = refusal(outcome, Way::Gateway) {
        return finding;
    }
    let (route, policy) = (observed.route.ours(), observed.backend_policy.ours());
    let objections: Vec<String> = (route.into_iter().flat_map(gateway_api::objections_to_route))
        .chain(policy.into_iter().flat_map(gateway_api::objections_to_policy))
        .collect();
    if !objections.is_empty() {
        return no(reason::ROUTE_NOT_ACCEPTED, objections.join("; "));
    }
    let proof = judged(outcome, Way::Gateway, route.is_some(), &format!("{} (Gateway)", wanted.host));
    if proof.status != Status::False {
        return proof;
    }
    let nobody = route.is_some_and(|route| gateway_api::accepted(route).is_empty());
    if nobody && proof.reason != reason::PROGRESSING && is_about_the_front(proof.reason) {
        return no(reason::ROUTE_NOT_ACCEPTED, format!("{}; {}", not_taken(outcome.names, wanted), proof.message));
    }
    if proof.reason == reason::BACKEND_UNREACHABLE && policy.is_some_and(is_ignored) {
        let message = format!(
            "{}. No controller says anything of BackendTLSPolicy {name}: look whether that of the Gateway knows this kind",
            proof.message
        );
        return no(reason::BACKEND_UNREACHABLE, message);
    }
    proof
}

fn missing(apis: Apis) -> String {
    let kinds = match (apis.http_routes, apis.backend_tls_policies) {
        (true, _) => "BackendTLSPolicy",
        (_, true) => "HTTPRoute",
        _ => "HTTPRoute and BackendTLSPolicy",
    };
    format!(
        "the cluster does not serve {kinds} of {}/{}: install the Gateway API, version 1.4 or later, and a controller for it. Wharf \
         goes on by itself within a minute",
        gateway_api::GROUP,
        gateway_api::VERSION
    )
}

fn not_taken(names: &Names, wanted: &GatewayExposure) -> String {
    let gateways: Vec<String> =
        wanted.parent_refs.iter().map(|parent| gateway_api::Parent::from(parent).to_string()).collect();
    format!(
        "no controller has accepted HTTPRoute {} yet: look whether {} exists, whether its class has a controller, and whether a \
         listener of it serves {} and allows routes of namespace {}",
        names.front(),
        gateways.join(", "),
        wanted.host,
        names.namespace()
    )
}

fn is_ignored(policy: &BackendTlsPolicy) -> bool {
    policy.status.as_ref().is_none_or(|status| status.ancestors.is_empty())
}
