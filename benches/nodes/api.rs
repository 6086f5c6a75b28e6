//! As much of an API server as an agent needs: its node, the node plan and its report. It must never be slow, nor change by itself.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use wharf::plan::{INDEX_KEY, INDEX_NAME, Plan, SHARD_KEY, render};

/// The API server, for as long as the runtime lives.
pub struct Api {
    address: SocketAddr,
}

struct Objects {
    config_maps: BTreeMap<String, Value>,
    statuses: Mutex<BTreeMap<String, Value>>,
}

impl Api {
    /// One that holds a plan.
    pub async fn start(plan: &Plan) -> Self {
        let (index, shards) = render(plan);
        let map = |name: &str, key: &str, document: &str| {
            let metadata = json!({"name": name, "namespace": "wharf-nodes", "resourceVersion": "1", "uid": name});
            (
                name.to_owned(),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {key: document}}),
            )
        };
        let mut config_maps: BTreeMap<String, Value> =
            shards.iter().map(|(name, document)| map(name, SHARD_KEY, document)).collect();
        config_maps.extend([map(INDEX_NAME, INDEX_KEY, &serde_json::to_string(&index).unwrap())]);
        let objects = Arc::new(Objects { config_maps, statuses: Mutex::default() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(objects);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address }
    }

    /// Writes a kubeconfig that leads here.
    pub fn kubeconfig(&self, file: &Path) {
        let document = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "bench",
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "clusters": [{"name": "bench", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "bench", "user": {}}],
        });
        std::fs::write(file, document.to_string()).unwrap();
    }
}

async fn answer(State(objects): State<Arc<Objects>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().trim_start_matches('/').split('/').collect::<Vec<_>>();
    let watched = parts.uri.query().is_some_and(|query| query.contains("watch=true"));
    match (&parts.method, path.as_slice()) {
        (&Method::GET, ["api", "v1", "nodes", name]) => Json(node(name)).into_response(),
        (&Method::GET, ["api", "v1", "namespaces", _, "configmaps"]) if watched => {
            Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>()).into_response()
        }
        (&Method::GET, ["api", "v1", "namespaces", _, "configmaps"]) => Json(json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "1"},
            "items": [{"metadata": objects.config_maps[INDEX_NAME]["metadata"]}],
        }))
        .into_response(),
        (&Method::GET, ["api", "v1", "namespaces", _, "configmaps", name]) => {
            objects.config_maps.get(*name).map_or_else(missing, |map| Json(map.clone()).into_response())
        }
        (&Method::GET, ["apis", "apps", "v1", "namespaces", _, "daemonsets", name]) => {
            Json(json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name}})).into_response()
        }
        (&Method::GET, ["apis", "wharf.dev", "v1alpha1", "noderuntimes", name]) => {
            Json(objects.report(name)).into_response()
        }
        (&Method::PATCH, ["apis", "wharf.dev", "v1alpha1", "noderuntimes", name, "status"]) => {
            let said = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let mut said: Value = serde_json::from_slice(&said).unwrap();
            objects.statuses.lock().unwrap().insert((*name).to_owned(), said["status"].take());
            Json(objects.report(name)).into_response()
        }
        _ => {
            eprintln!("    the agent asked for {} {}", parts.method, parts.uri);
            missing()
        }
    }
}

impl Objects {
    fn report(&self, name: &str) -> Value {
        let metadata = json!({"name": name, "resourceVersion": "1", "uid": name, "generation": 1});
        let mut report = json!({
            "apiVersion": "wharf.dev/v1alpha1", "kind": "NodeRuntime", "metadata": metadata, "spec": {},
        });
        if let Some(status) = self.statuses.lock().unwrap().get(name) {
            report["status"] = status.clone();
        }
        report
    }
}

fn node(name: &str) -> Value {
    let info = json!({
        "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "", "operatingSystem": "linux",
        "architecture": "amd64", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "",
        "containerRuntimeVersion": "containerd://2.3.4",
    });
    let metadata = json!({"name": name, "uid": name, "labels": {"kubernetes.io/hostname": name}});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"nodeInfo": info}})
}

fn missing() -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "message": "not here", "code": 404,
    });
    (StatusCode::NOT_FOUND, Json(status)).into_response()
}
