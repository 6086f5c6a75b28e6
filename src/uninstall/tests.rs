use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// Mirrors behind the API server's paths, and what was asked.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    mirrors: Vec<Value>,
    requests: Vec<String>,
    /// How many lists after its deletion a Mirror stays; nobody lifts the finalizer where there is none.
    lists_until_gone: Option<usize>,
    /// How many requests are answered with 503 from now on.
    failures: usize,
}

impl Cluster {
    fn with(names: &[&str], lists_until_gone: Option<usize>) -> Self {
        let mirrors =
            names.iter().map(|name| json!({"metadata": {"name": name, "uid": format!("uid-of-{name}")}})).collect();
        Self(Arc::new(Mutex::new(State { mirrors, lists_until_gone, ..State::default() })))
    }

    fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let (code, answer) = cluster.answer(&format!("{} {}", parts.method, parts.uri.path()), &body);
                let body = Body::from(answer.to_string().into_bytes());
                Response::builder().status(code).body(body).map_err(Box::<dyn std::error::Error + Send + Sync>::from)
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &str, body: &[u8]) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        state.requests.push(request.to_owned());
        if state.failures > 0 {
            state.failures -= 1;
            return failure(503, "ServiceUnavailable");
        }
        match request.strip_prefix("DELETE /apis/wharf.dev/v1alpha1/mirrors/") {
            Some(name) => state.delete(name, &serde_json::from_slice(body).unwrap()),
            None if request == "GET /apis/wharf.dev/v1alpha1/mirrors" => {
                let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {},
                    "items": state.mirrors});
                if let Some(left) = state.lists_until_gone.as_mut() {
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        state.mirrors.retain(|mirror| mirror["metadata"]["deletionTimestamp"].is_null());
                    }
                }
                (200, list)
            }
            None => failure(404, "NotFound"),
        }
    }

    fn requests(&self) -> Vec<String> {
        self.0.lock().unwrap().requests.clone()
    }
}

impl State {
    fn delete(&mut self, name: &str, options: &Value) -> (u16, Value) {
        let Some(mirror) = self.mirrors.iter_mut().find(|mirror| mirror["metadata"]["name"] == name) else {
            return failure(404, "NotFound");
        };
        assert_eq!(options["preconditions"]["uid"], mirror["metadata"]["uid"], "a Mirror made anew is another");
        mirror["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        (200, json!({"apiVersion": "v1", "kind": "Status", "status": "Success"}))
    }
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code}))
}

const LIST: &str = "GET /apis/wharf.dev/v1alpha1/mirrors";
const WAIT: Duration = Duration::from_secs(90);

#[tokio::test(start_paused = true)]
async fn all_are_deleted_once_and_waited_for() {
    let cluster = Cluster::with(&["default", "other"], Some(4));
    delete_all(cluster.client(), WAIT).await.unwrap();
    let deletes: Vec<String> = cluster.requests().into_iter().filter(|request| request.starts_with("DELETE")).collect();
    assert_eq!(
        deletes,
        ["DELETE /apis/wharf.dev/v1alpha1/mirrors/default", "DELETE /apis/wharf.dev/v1alpha1/mirrors/other"]
    );
    assert_eq!(cluster.requests().iter().filter(|request| *request == LIST).count(), 5);
}

#[tokio::test(start_paused = true)]
async fn without_any_it_only_looks() {
    let cluster = Cluster::with(&[], None);
    delete_all(cluster.client(), WAIT).await.unwrap();
    assert_eq!(cluster.requests(), [LIST]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_lets_go_of_is_named_with_what_to_do() {
    let cluster = Cluster::with(&["default", "other"], None);
    let began = Instant::now();
    let error = delete_all(cluster.client(), WAIT).await.unwrap_err();
    assert!(began.elapsed() >= WAIT && began.elapsed() < WAIT + Duration::from_secs(2), "{:?}", began.elapsed());
    let text = error.to_string();
    assert!(text.starts_with("Mirrors default, other are not gone after 90 s. The operator"), "{text}");
    assert!(text.contains("helm uninstall --no-hooks"), "{text}");
    assert!(text.contains(r#"{"metadata":{"finalizers":null}}"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_for_a_while_is_asked_again() {
    let cluster = Cluster::with(&["default"], Some(6));
    cluster.0.lock().unwrap().failures = 3;
    delete_all(cluster.client(), WAIT).await.unwrap();

    let cluster = Cluster::with(&["default"], Some(1));
    cluster.0.lock().unwrap().failures = usize::MAX;
    let error = delete_all(cluster.client(), Duration::from_secs(5)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("cannot tell after 5 s which Mirrors there are: "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_know_mirrors_has_none() {
    let service = tower::service_fn(|_: Request<Body>| async {
        let (code, answer) = failure(404, "NotFound");
        Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()))
    });
    delete_all(Client::new(service, "default"), WAIT).await.unwrap();
}
