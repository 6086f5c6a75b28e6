//! Tests of the API server that the other suites run against: one for each behaviour that they rely on.
//! They must never look into the server's store where a real client could see the same.

#![allow(clippy::restriction, reason = "a test ends by panicking")]

use std::fmt::Debug;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams,
};
use kube::core::{PartialObjectMeta, Status};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;
use wharf::api::{NodeRuntime, Registry};

#[path = "../support/apiserver/mod.rs"]
mod apiserver;
mod apply;
mod cluster;
mod reads;
mod writes;

use apiserver::{Fault, Server};

const MOMENT: Duration = Duration::from_millis(50);

fn maps(server: &Server) -> Api<ConfigMap> {
    Api::namespaced(server.client(), "default")
}

fn typed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn map(name: &str, value: &str) -> ConfigMap {
    typed(json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"tier": value}}, "data": {"key": value}}))
}

fn refusal<T: Debug>(result: kube::Result<T>) -> Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("expected a refusal, not {other:?}"),
    }
}

async fn apply<K>(api: &Api<K>, manager: &str, force: bool, object: Value) -> kube::Result<K>
where
    K: Clone + DeserializeOwned + Debug,
{
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    api.patch(&name, &PatchParams { force, ..PatchParams::apply(manager) }, &Patch::Apply(object)).await
}

fn apply_map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn deployment(selector: &str, limits: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"app": selector}},
        "template": {"metadata": {"labels": {"app": selector}},
            "spec": {"containers": [{"name": "main", "image": "i", "resources": {"limits": limits}}]}}}})
}

fn registry(name: &str) -> Value {
    json!({"apiVersion": "wharf.dev/v1alpha1", "kind": "Registry",
        "metadata": {"name": name, "namespace": "default"}, "spec": {}})
}
