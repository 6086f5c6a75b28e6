//! The server certificate of a Mirror's pods: for every name and address of its Services. Pure but for the key that is made.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;

use super::names::Names;
use super::observe::Observed;
use crate::operator::authority::Authority;
use crate::operator::certificate::CertificateError;
use crate::operator::found::Found;
use crate::operator::registry::leaf::{Leaf, Rule, keep_or_issue, stored};
use crate::operator::registry::mint::service_addresses;
use crate::operator::settings::Settings;

/// What is stored, or another one where that has to be; `None` until every Service has an address.
///
/// # Errors
/// When none can be issued.
pub fn certificate(
    names: &Names,
    uid: &str,
    observed: &Observed,
    settings: &Settings,
    authority: &Authority,
    now: Timestamp,
) -> Result<Option<Leaf>, CertificateError> {
    let services = std::iter::once((names.object(), &observed.service));
    let replicas = (0..).zip(&observed.replicas).map(|(ordinal, found)| (names.replica(ordinal), found));
    let Some(subjects) = subjects(services.chain(replicas), names.namespace(), &settings.cluster_domain) else {
        return Ok(None);
    };
    let rule = Rule { names: &subjects, uid, authority, overlap: settings.certificate_overlap };
    keep_or_issue(observed.certificate.ours().and_then(stored), &rule, now).map(Some)
}

fn subjects<'a>(
    services: impl Iterator<Item = (String, &'a Found<Service>)>,
    namespace: &str,
    domain: &str,
) -> Option<BTreeSet<String>> {
    let mut subjects: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for (name, found) in services {
        let addresses = service_addresses(found);
        if addresses.is_empty() {
            return None;
        }
        subjects.extend(addresses);
        let address = format!("{name}.{namespace}.svc");
        subjects.extend([format!("{address}.{domain}"), address, format!("{name}.{namespace}"), name]);
    }
    Some(subjects)
}
