//! What the authority's next step depends on, gathered from the caches. It must never write, and never take a node for
//! informed that may not be: what is unknown counts as lagging, and the step has a bound for that.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use super::state::Authority;
use super::step::Facts;
use crate::api::{NodeRuntimeStatus, condition, labels, reason};
use crate::operator::ca_bundle;
use crate::operator::certificate::{is_signed_by, read};
use crate::operator::registry::names::AUTHORITY_KEY;
use crate::operator::view::View;
use crate::plan::Plan;

/// A registry's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// The registry's namespace.
    pub(super) namespace: String,
    /// The Secret's name.
    pub(super) secret: String,
    /// The certificate.
    pub(super) certificate: String,
}

impl Leaf {
    /// When it ends; none when it cannot be read.
    pub(super) fn end(&self) -> Option<Timestamp> {
        read(&self.certificate).ok().map(|facts| facts.validity.end)
    }

    pub(super) fn place(&self) -> String {
        format!("Secret {}/{}", self.namespace, self.secret)
    }
}

/// The certificates of all registries, also of those whose Registry cannot be read: they serve all the same.
pub(super) fn leaves(view: &View) -> Vec<Leaf> {
    view.secrets.state().iter().filter_map(|secret| leaf(secret)).collect()
}

fn leaf(secret: &Secret) -> Option<Leaf> {
    secret.labels().get(labels::INSTANCE)?;
    let certificate = String::from_utf8(secret.data.as_ref()?.get("tls.crt")?.0.clone()).ok()?;
    Some(Leaf { namespace: secret.namespace().unwrap_or_default(), secret: secret.name_any(), certificate })
}

/// Gathers what the next step depends on.
pub(super) fn gather(authority: &Authority, requested: bool, leaves: &[Leaf], view: &View, plan: &Plan) -> Facts {
    let bundle = authority.bundle();
    let nodes = view.node_runtimes.state();
    let nodes = nodes.iter().filter(|runtime| {
        let status = runtime.status.as_ref();
        status.is_some_and(|status| lags(status, plan.authority_since))
    });
    let config_maps = view.config_maps.state();
    let config_maps = config_maps.iter().filter(|config_map| holds_another(config_map, &bundle));
    let mut lagging: Vec<String> = nodes.map(|runtime| format!("node {}", runtime.name_any())).collect();
    lagging.extend(config_maps.map(|config_map| place_of(config_map)));
    lagging.extend(ca_bundle::outdated(view, &bundle).map(|config_map| place_of(&config_map)));
    lagging.sort();
    let by_outgoing = authority.outgoing().map_or_else(Vec::new, |(outgoing, _)| {
        let old = leaves.iter().filter(|leaf| is_signed_by(&leaf.certificate, outgoing.certificate()));
        old.map(Leaf::place).collect()
    });
    Facts { requested, in_plan: plan.authority == bundle, lagging, by_outgoing }
}

fn place_of(config_map: &ConfigMap) -> String {
    format!("ConfigMap {}/{}", config_map.namespace().unwrap_or_default(), config_map.name_any())
}

/// Whether a node's runtime may read certificates of an older revision. A node on which no agent ever reported, or whose
/// runtime reads no files of Wharf, depends on none.
fn lags(status: &NodeRuntimeStatus, revision: i64) -> bool {
    let ready = condition::find(&status.conditions, condition::READY).map(|ready| ready.reason.as_str());
    match ready {
        Some(reason::UNSUPPORTED | reason::CONFIG_PATH_UNSET) => return false,
        None | Some(reason::PENDING) => return status.plan_revision.is_some_and(|reported| reported < revision),
        Some(_) => {}
    }
    status.plan_revision.is_none_or(|reported| reported < revision)
        || status.exceptions.iter().any(|exception| exception.reason == reason::WRITE_FAILED)
}

/// Whether this is the config map of a registry with certificates other than these.
fn holds_another(config_map: &ConfigMap, bundle: &str) -> bool {
    config_map.labels().contains_key(labels::INSTANCE)
        && config_map.data.as_ref().and_then(|data| data.get(AUTHORITY_KEY)).is_some_and(|text| text != bundle)
}

#[cfg(test)]
mod tests;
