//! Attaches pull secrets to service accounts, and takes them off again.
//! `ServiceAccount.imagePullSecrets` is one atomic list that belongs to many: it must never be overwritten. It is changed
//! by a JSON patch that first tests the version that was read, and entries of others stay where they are.
//!
//! Which entries are ours stands in an annotation of the service account, so that nothing has to be remembered: an entry
//! that the annotation names and no Registry wants is taken off, also when its Registry was deleted while no operator ran.

use std::collections::BTreeSet;

use json_patch::Patch;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::call::{Action, CallError, Target, call, read};
use super::limits::Limits;
use super::metrics::Metrics;
use super::registry::names::Names;
use super::registry::precedence::Precedence;
use super::view::{View, cached};
use crate::api::{Registry, labels};

/// How it stands with one service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// It uses the pull secrets it should.
    Attached,
    /// There is no service account of that name.
    Missing(String),
}

/// What this module works with.
pub struct Attacher<'a> {
    /// The client.
    pub client: &'a Client,
    /// The caches.
    pub view: &'a View,
    /// The metrics.
    pub metrics: &'a Metrics,
    /// What Registries may have.
    pub limits: &'a Limits,
}

impl Attacher<'_> {
    /// Makes one service account use exactly the pull secrets that the Registries of its namespace want it to.
    ///
    /// # Errors
    /// When the API server cannot be asked, or the account changed meanwhile.
    pub async fn attach(&self, namespace: &str, name: &str) -> Result<Attachment, CallError> {
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let target = Target::new("ServiceAccount", namespace, name);
        let account = match cached(&self.view.attached_accounts, namespace, name) {
            Some(account) => (*account).clone(),
            None => match read(self.metrics, target.clone(), api.get(name)).await? {
                Some(account) => account,
                None => return Ok(Attachment::Missing(name.to_owned())),
            },
        };
        let wanted = self.wanted(namespace, &account);
        if let Some(patch) = patch(&account, &wanted) {
            let parameters =
                PatchParams { field_manager: Some("wharf/pull-secret".to_owned()), ..PatchParams::default() };
            let patch = kube::api::Patch::Json::<()>(patch);
            let request = api.patch(name, &parameters, &patch);
            match call(self.metrics, Action::Patch, target, request).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => return Ok(Attachment::Missing(name.to_owned())),
                Err(error) => return Err(error),
            }
        }
        Ok(Attachment::Attached)
    }

    fn wanted(&self, namespace: &str, account: &ServiceAccount) -> BTreeSet<String> {
        let registries = self.view.live_registries_in(namespace);
        let precedence = Precedence::of(&registries, self.limits);
        let recorded = recorded(account);
        // One that is beyond the quota keeps what it had, and is given nothing.
        let counts = |registry: &&Registry| {
            let secret = Names::new(namespace, registry.name_any()).pull_secret();
            !precedence.is_beyond_quota(registry) || recorded.contains(&secret)
        };
        wanted(registries.iter().filter(counts), namespace, &account.name_any())
    }

    /// Brings every service account of a namespace that has a pull secret of ours to what is wanted now.
    ///
    /// # Errors
    /// The first failure; the others are tried all the same.
    pub async fn sweep(&self, namespace: &str) -> Result<(), CallError> {
        let mut result = Ok(());
        for account in self.view.attached_accounts.state() {
            if account.namespace().as_deref() == Some(namespace)
                && let Err(error) = self.attach(namespace, &account.name_any()).await
            {
                result = Err(error);
            }
        }
        result
    }
}

/// The pull secrets that a service account should use, by name.
#[must_use]
pub fn wanted<'a>(
    registries: impl IntoIterator<Item = &'a Registry>,
    namespace: &str,
    account: &str,
) -> BTreeSet<String> {
    registries
        .into_iter()
        .filter(|registry| registry.namespace().as_deref() == Some(namespace))
        .filter(|registry| registry.spec.pull_secrets.service_accounts.iter().any(|name| name == account))
        .map(|registry| Names::new(namespace, registry.name_any()).pull_secret())
        .collect()
}

/// The change that makes `account` use `wanted`; `None` when it already does.
#[must_use]
pub fn patch(account: &ServiceAccount, wanted: &BTreeSet<String>) -> Option<Patch> {
    let recorded = recorded(account);
    let present: Vec<String> =
        account.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()).collect();
    let kept = present.iter().filter(|name| wanted.contains(*name) || !recorded.contains(*name));
    let added = wanted.iter().filter(|name| !present.contains(*name));
    let next: Vec<String> = kept.chain(added).cloned().collect();
    // An entry that somebody else made for a secret of ours is not recorded, so that it is not taken off at the end.
    let ours: BTreeSet<String> =
        wanted.iter().filter(|name| recorded.contains(*name) || !present.contains(*name)).cloned().collect();
    let marked = account.labels().contains_key(labels::HAS_PULL_SECRETS);
    if next == present && ours == recorded && marked != ours.is_empty() {
        return None;
    }
    let version = account.metadata.resource_version.clone().unwrap_or_default();
    let mut operations = vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
    if next != present {
        let list: Vec<Value> = next.iter().map(|name| json!({"name": name})).collect();
        operations.push(if list.is_empty() {
            json!({"op": "remove", "path": "/imagePullSecrets"})
        } else {
            json!({"op": "add", "path": "/imagePullSecrets", "value": list})
        });
    }
    let joined = ours.iter().cloned().collect::<Vec<_>>().join(",");
    let record = (!ours.is_empty()).then_some(joined);
    operations.extend(entry(
        "annotations",
        account.metadata.annotations.is_some(),
        record.as_deref(),
        account.annotations().contains_key(labels::PULL_SECRETS),
        labels::PULL_SECRETS,
    ));
    let mark = (!ours.is_empty()).then_some("true");
    operations.extend(entry("labels", account.metadata.labels.is_some(), mark, marked, labels::HAS_PULL_SECRETS));
    serde_json::from_value(Value::Array(operations)).ok()
}

/// Operations that set or remove one label or annotation.
fn entry(field: &str, has_field: bool, value: Option<&str>, is_set: bool, key: &str) -> Vec<Value> {
    let path = format!("/metadata/{field}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Some(value) if has_field => vec![json!({"op": "add", "path": path, "value": value})],
        Some(value) => vec![json!({"op": "add", "path": format!("/metadata/{field}"), "value": {key: value}})],
        None if is_set => vec![json!({"op": "remove", "path": path})],
        None => Vec::new(),
    }
}

fn recorded(account: &ServiceAccount) -> BTreeSet<String> {
    let annotation = account.annotations().get(labels::PULL_SECRETS).map_or("", String::as_str);
    annotation.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
