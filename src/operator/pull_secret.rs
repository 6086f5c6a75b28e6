//! Attaches pull secrets to service accounts, and takes them off again.
//! `ServiceAccount.imagePullSecrets` is one atomic list that belongs to many: it must never be overwritten. It is changed
//! by a JSON patch that first tests the version that was read, and entries of others stay where they are.
//!
//! Which entries are ours stands in an annotation of the service account, so that nothing has to be remembered: an entry
//! that the annotation names and no Registry wants is taken off, also when its Registry was deleted while no operator ran.
//!
//! A Secret of somebody else must never become the pull secret of every pod of a namespace: only one that Wharf made for a
//! Registry is attached. Nor is there a fight: an account that another writer keeps setting back is left alone after three
//! rounds, as every other object.

use std::collections::BTreeSet;

use json_patch::Patch;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::apply::{Contest, Contests, Verdict};
use super::call::{Action, CallError, Target, call, read};
use super::metrics::Metrics;
use super::registry::names::Names;
use super::registry::observe::is_owned_by;
use super::view::{View, cached};
use crate::api::{Registry, labels};

/// The field manager of what is changed in service accounts.
const MANAGER: &str = "wharf/pull-secret";

/// How it stands with one service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// It uses the pull secrets it should.
    Attached,
    /// There is no service account of that name.
    Missing(String),
    /// Another writer keeps taking them off.
    Contested(Contest),
}

/// What this module works with.
pub struct Attacher<'a> {
    /// The client.
    pub client: &'a Client,
    /// The caches.
    pub view: &'a View,
    /// The metrics.
    pub metrics: &'a Metrics,
    /// What was written before.
    pub contests: &'a Contests,
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
        let Some(change) = patch(&account, &wanted) else {
            return Ok(Attachment::Attached);
        };
        let uid = account.uid().unwrap_or_default();
        if !self.contests.has_written(&target, &uid, &joined(&wanted)) {
            return self.write(&api, target, &uid, &wanted, change).await;
        }
        // This very list was written to this very account: either the cache is behind, or somebody set it back.
        let Some(fresh) = read(self.metrics, target.clone(), api.get(name)).await? else {
            return Ok(Attachment::Missing(name.to_owned()));
        };
        let Some(change) = patch(&fresh, &wanted) else {
            return Ok(Attachment::Attached);
        };
        match self.contests.undone(&target, Instant::now().into_std()) {
            Verdict::Write => self.write(&api, target, &fresh.uid().unwrap_or_default(), &wanted, change).await,
            Verdict::Stand => Ok(Attachment::Contested(contest(&target, &fresh))),
        }
    }

    async fn write(
        &self,
        api: &Api<ServiceAccount>,
        target: Target,
        uid: &str,
        wanted: &BTreeSet<String>,
        change: Patch,
    ) -> Result<Attachment, CallError> {
        let name = target.name.clone();
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let change = kube::api::Patch::Json::<()>(change);
        match call(self.metrics, Action::Patch, target.clone(), api.patch(&name, &parameters, &change)).await {
            Ok(_) => {
                self.contests.wrote(&target, uid, &joined(wanted), Instant::now().into_std());
                Ok(Attachment::Attached)
            }
            Err(error) if error.is_not_found() => Ok(Attachment::Missing(name)),
            Err(error) => Err(error),
        }
    }

    fn wanted(&self, namespace: &str, account: &ServiceAccount) -> BTreeSet<String> {
        let registries = self.view.live_registries_in(namespace);
        let recorded = recorded(account);
        // One that is attached already stays while its Secret is about to be made again.
        let counts = |registry: &&Registry| {
            let secret = Names::new(namespace, registry.name_any()).pull_secret();
            let made = cached(&self.view.secrets, namespace, &secret);
            recorded.contains(&secret) || made.is_some_and(|made| is_owned_by(made.as_ref(), *registry))
        };
        wanted(registries.iter().filter(counts), namespace, &account.name_any())
    }

    /// Brings every service account of a namespace that has a pull secret of ours to what is wanted now. Returns what is in
    /// dispute.
    ///
    /// # Errors
    /// The last failure; the others are tried all the same.
    pub async fn sweep(&self, namespace: &str) -> Result<Vec<Contest>, CallError> {
        let mut result = Ok(Vec::new());
        for account in self.view.attached_accounts.state() {
            if account.namespace().as_deref() != Some(namespace) {
                continue;
            }
            match (self.attach(namespace, &account.name_any()).await, &mut result) {
                (Ok(Attachment::Contested(contest)), Ok(contests)) => contests.push(contest),
                (Ok(_), _) => {}
                (Err(error), _) => result = Err(error),
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
    let record = (!ours.is_empty()).then(|| joined(&ours));
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

fn joined(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// Who takes the entries of ours off.
fn contest(target: &Target, account: &ServiceAccount) -> Contest {
    let live = serde_json::to_value(account).unwrap_or_default();
    Contest::over(target, &[vec!["imagePullSecrets".to_owned()]], &live, MANAGER)
}

fn recorded(account: &ServiceAccount) -> BTreeSet<String> {
    let annotation = account.annotations().get(labels::PULL_SECRETS).map_or("", String::as_str);
    annotation.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
