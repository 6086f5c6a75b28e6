//! Whether an image can be pushed from beyond the cluster, and where. It must never say so before an upload went through.

mod gateway;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use self::gateway::by_gateway;
use super::{Outcome, is_available, reason_of};
use crate::api::condition::{self, EXPOSED, Finding, Status};
use crate::api::reason;
use crate::api::registry::{ExposeTls, IngressExposure, ServiceExposure, ServiceType};
use crate::operator::call::CallError;
use crate::operator::front::{Way, balanced, node_port};
use crate::operator::registry::names::Names;
use crate::operator::registry::observe::{Found, IngressClassFact};
use crate::operator::volume::Level;

/// Reasons that only a proof gives. After a restart they stand until the next proof, as long as nothing else is asked for.
const PROOFS: [&str; 7] = [
    reason::PROVEN,
    reason::ADDRESS_PENDING,
    reason::FRONT_UNREACHABLE,
    reason::CERTIFICATE_NOT_TRUSTED,
    reason::NOT_ROUTED,
    reason::BACKEND_UNREACHABLE,
    reason::UPLOAD_REFUSED,
];

/// The condition; `None` when nothing is asked for.
pub(super) fn finding(outcome: &Outcome<'_>) -> Option<Finding> {
    let expose = outcome.registry.spec.expose.as_ref()?;
    if outcome.registry.spec.suspend {
        let message = "spec.suspend is true: the registry's pod is stopped";
        return Some(Finding::new(EXPOSED, Status::False, reason::SUSPENDED, message));
    }
    if let Some(contest) = outcome.problems.iter().find(|problem| problem.condition == EXPOSED) {
        return Some(no(contest.reason, contest.message.clone()));
    }
    let ingress = expose.ingress.as_ref().map(|wanted| by_ingress(outcome, wanted, expose.tls.as_ref()));
    let gateway = expose.gateway.as_ref().map(|wanted| by_gateway(outcome, wanted));
    let service = expose.service.as_ref().map(|wanted| by_service(outcome, wanted));
    let ways: Vec<Finding> = [ingress, gateway, service].into_iter().flatten().collect();
    let failing: Vec<&Finding> = ways.iter().filter(|way| way.status == Status::False).collect();
    if let Some(first) = failing.first() {
        return Some(no(first.reason, all_of(failing.iter().copied())));
    }
    if let Some(way) = ways.iter().find(|way| way.status == Status::Unknown) {
        return Some(kept(outcome).unwrap_or_else(|| way.clone()));
    }
    Some(Finding::new(EXPOSED, Status::True, reason::PROVEN, all_of(&ways)))
}

/// What is to be said of several ways in.
fn all_of<'a>(ways: impl IntoIterator<Item = &'a Finding>) -> String {
    ways.into_iter().map(|way| way.message.as_str()).collect::<Vec<_>>().join("; ")
}

/// The addresses by which clients beyond the cluster call.
pub(super) fn addresses(outcome: &Outcome<'_>) -> Vec<String> {
    let Some(expose) = &outcome.registry.spec.expose else {
        return Vec::new();
    };
    let observed = &outcome.observed.exposure;
    let ingress = expose.ingress.as_ref().filter(|_| observed.ingress.ours().is_some());
    let gateway = expose.gateway.as_ref().filter(|_| observed.route.ours().is_some());
    let mut addresses: Vec<String> = ingress.map(|ingress| ingress.host.clone()).into_iter().collect();
    // Both may lead in by the same name.
    addresses.extend(gateway.map(|gateway| gateway.host.clone()).filter(|host| !addresses.contains(host)));
    if expose.service.is_some() {
        addresses.extend(observed.service.ours().map(balanced).unwrap_or_default());
    }
    addresses
}

/// Whether a request that failed was about a way in: then the registry itself is none the worse for it.
pub(super) fn concerns(names: &Names, failure: &CallError) -> bool {
    Way::of_child(names, &failure.target).is_some()
}

fn by_ingress(outcome: &Outcome<'_>, wanted: &IngressExposure, tls: Option<&ExposeTls>) -> Finding {
    let observed = &outcome.observed.exposure;
    let taken = [
        taken("Ingress", &outcome.names.front(), &observed.ingress),
        taken("Secret", &outcome.names.front_authority(), &observed.authority),
    ];
    if let Some(finding) = taken.into_iter().flatten().next() {
        return finding;
    }
    if let Some(who) = &observed.host_taken_by {
        return host_taken("ingress", &wanted.host, who);
    }
    let exists = observed.ingress.ours().is_some();
    let proof = judged(outcome, Way::Ingress, exists, &format!("{} (Ingress)", wanted.host));
    // Without a controller nothing answers; which one was meant is the better thing to say.
    match (&observed.class, proof.status) {
        (IngressClassFact::Missing(names), Status::False | Status::Unknown) if is_about_the_front(proof.reason) => {
            let wanted = wanted.class_name.clone().unwrap_or_default();
            no(
                reason::INGRESS_CLASS_MISSING,
                format!("there is no IngressClass {wanted} ({}); {}", existing(names), proof.message),
            )
        }
        (IngressClassFact::NoDefault(names), Status::False | Status::Unknown) if is_about_the_front(proof.reason) => {
            no(
                reason::INGRESS_CLASS_MISSING,
                format!(
                    "spec.expose.ingress.className is not set and the cluster has no default IngressClass ({}); {}",
                    existing(names),
                    proof.message
                ),
            )
        }
        _ => without_certificate(outcome, tls, proof),
    }
}

/// A certificate that cert-manager was asked for never comes where there is no cert-manager. One that is there all the same
/// will do.
fn without_certificate(outcome: &Outcome<'_>, tls: Option<&ExposeTls>, proof: Finding) -> Finding {
    let issuer = tls.and_then(|tls| tls.issuer_ref.as_ref());
    let may_lack_it = is_about_the_front(proof.reason) || proof.reason == reason::CERTIFICATE_NOT_TRUSTED;
    match issuer {
        Some(issuer) if !outcome.observed.exposure.apis.cert_manager && may_lack_it => no(
            reason::CERT_MANAGER_MISSING,
            format!(
                "spec.expose.tls.issuerRef names {} {}, and the cluster does not serve the API cert-manager.io: install \
                 cert-manager, or give a certificate by spec.expose.tls.secretRef; {}",
                issuer.kind, issuer.name, proof.message
            ),
        ),
        _ => proof,
    }
}

fn by_service(outcome: &Outcome<'_>, wanted: &ServiceExposure) -> Finding {
    let (observed, name) = (&outcome.observed.exposure, outcome.names.external_service());
    if let Some(finding) = taken("Service", &name, &observed.service) {
        return finding;
    }
    let service = observed.service.ours();
    let pending = |service: &Service| match wanted.service_type {
        ServiceType::LoadBalancer => balanced(service).is_empty(),
        ServiceType::NodePort => node_port(service).is_none(),
    };
    if service.is_some_and(pending) && refusal(outcome, Way::Service).is_none() {
        let message = format!(
            "Service {name} has no address yet. If this stays, the cluster has nothing that gives out addresses for Services of \
             type {}: kubectl describe service {name}",
            wanted.service_type.as_str()
        );
        return no(reason::ADDRESS_PENDING, message);
    }
    let place = match (wanted.service_type, service) {
        (ServiceType::NodePort, Some(service)) => {
            format!("port {} of every node", node_port(service).unwrap_or_default())
        }
        (ServiceType::LoadBalancer, Some(service)) => balanced(service).join(", "),
        (_, None) => name,
    };
    judged(outcome, Way::Service, service.is_some(), &format!("{place} (Service)"))
}

/// What a failed request, or else the last proof, says of a way in.
fn judged(outcome: &Outcome<'_>, way: Way, exists: bool, place: &str) -> Finding {
    if let Some(finding) = refusal(outcome, way) {
        return finding;
    }
    let unknown = |message: String| Finding::new(EXPOSED, Status::Unknown, reason::PROGRESSING, message);
    if !exists {
        return unknown(format!("{place} is being made"));
    }
    if !outcome.observed.deployment.ours().is_some_and(is_available) {
        return no(reason::PROGRESSING, format!("{place}: the registry does not answer; see condition Available"));
    }
    match outcome.observed.exposure.verdict(way) {
        Some(verdict) if verdict.is_proven() => {
            Finding::new(EXPOSED, Status::True, verdict.reason, format!("{place}: {}", verdict.message))
        }
        Some(verdict) => no(verdict.reason, format!("{place}: {}", verdict.message)),
        None if outcome.observed.volume.is_some_and(|volume| volume.level == Level::Full) => {
            unknown(format!("{place}: the volume is full; an upload is tried when there is room"))
        }
        None => unknown(format!("{place}: an upload is about to be tried")),
    }
}

fn refusal(outcome: &Outcome<'_>, way: Way) -> Option<Finding> {
    let failure = outcome.failures.iter().find(|failure| Way::of_child(outcome.names, &failure.target) == Some(way))?;
    Some(no(reason_of(failure), failure.to_string()))
}

fn taken<K>(kind: &str, name: &str, found: &Found<K>) -> Option<Finding> {
    let Found::Foreign(whose) = found else {
        return None;
    };
    let message = format!(
        "{kind} {name} exists and is not this Registry's ({whose}). Remove or rename it, or choose another name for the \
         Registry; nothing was changed"
    );
    Some(no(reason::NAME_TAKEN, message))
}

fn host_taken(way: &str, host: &str, who: &str) -> Finding {
    let message = format!(
        "host {host} of spec.expose.{way} is had by {who}, which came first; nothing was changed. Choose another host, or take it \
         off there"
    );
    no(reason::HOST_TAKEN, message)
}

/// What the status said, if it is about the same spec.
fn kept(outcome: &Outcome<'_>) -> Option<Finding> {
    let generation = outcome.registry.metadata.generation;
    let conditions = &outcome.registry.status.as_ref()?.conditions;
    let old: &Condition = condition::find(conditions, EXPOSED).filter(|old| old.observed_generation == generation)?;
    let reason = PROOFS.into_iter().find(|reason| *reason == old.reason)?;
    let status = if old.status == "True" { Status::True } else { Status::False };
    Some(Finding::new(EXPOSED, status, reason, old.message.clone()))
}

fn is_about_the_front(why: &str) -> bool {
    matches!(why, reason::PROGRESSING | reason::ADDRESS_PENDING | reason::FRONT_UNREACHABLE | reason::NOT_ROUTED)
}

fn existing(names: &[String]) -> String {
    if names.is_empty() { "there is none".to_owned() } else { format!("existing classes: {}", names.join(", ")) }
}

fn no(reason: &'static str, message: impl Into<String>) -> Finding {
    Finding::new(EXPOSED, Status::False, reason, message)
}
