//! For tests: a few objects behind the API server's paths (get, and patch of a status; it checks nothing), and an endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::local::{Endpoint, LocalEndpoint};
use crate::plan::Plan;

type Hook = Box<dyn FnOnce() + Send>;

/// The objects, and what was asked. Cloning shares them.
#[derive(Clone, Default)]
pub struct Api {
    state: Arc<Mutex<State>>,
    hangs: Arc<Notify>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    requests: Vec<String>,
    hooks: BTreeMap<String, Hook>,
    failure: Option<u16>,
    /// What goes wrong with one request, counted from when requests were last forgotten.
    strike: Option<(usize, Fault)>,
}

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this status.
    Status(u16),
    /// It is neither carried out nor answered.
    Hang,
    /// It is carried out and not answered.
    ApplyThenHang,
    /// The connection breaks before it is carried out.
    Reset,
    /// It is carried out, and the connection breaks.
    ApplyThenLose,
}

impl Api {
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        kube::Client::new(service, "default")
    }

    pub fn put(&self, path: String, object: Value) {
        self.state.lock().unwrap().objects.insert(path, object);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub fn remove(&self, path: &str) {
        self.state.lock().unwrap().objects.remove(path);
    }

    /// Runs `hook` once, after the next request for `path` was answered.
    pub fn after(&self, path: String, hook: impl FnOnce() + Send + 'static) {
        self.state.lock().unwrap().hooks.insert(path, Box::new(hook));
    }

    /// Answers everything with this status from now on.
    pub fn fail(&self, code: u16) {
        self.state.lock().unwrap().failure = Some(code);
    }

    /// Lets the request of that number, counted from now, go wrong.
    pub fn strike(&self, ordinal: usize, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.strike = Some((state.requests.len() + ordinal, fault));
    }

    /// Waits until a request has come that is not answered.
    pub async fn hangs(&self) {
        self.hangs.notified().await;
    }

    /// Method and path of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    pub fn forget_requests(&self) {
        self.state.lock().unwrap().requests.clear();
    }

    async fn answer(&self, request: Request<Body>) -> io::Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let fault = {
            let state = self.state.lock().unwrap();
            state.strike.filter(|(ordinal, _)| *ordinal == state.requests.len()).map(|(_, fault)| fault)
        };
        let (answer, hook) = {
            let mut state = self.state.lock().unwrap();
            state.requests.push(format!("{} {path}", parts.method));
            let object_path = path.strip_suffix("/status").unwrap_or(&path);
            if parts.method == Method::PATCH
                && matches!(fault, None | Some(Fault::ApplyThenHang | Fault::ApplyThenLose))
                && let Some(object) = state.objects.get_mut(object_path)
            {
                let sent: Value = serde_json::from_slice(&body).unwrap();
                object["status"] = sent["status"].clone();
            }
            let refused = if let Some(Fault::Status(code)) = fault { Some(code) } else { state.failure };
            let answer = match refused {
                Some(code) => Err(code),
                None => state.objects.get(object_path).cloned().ok_or(404),
            };
            (answer, state.hooks.remove(&path))
        };
        if let Some(hook) = hook {
            hook();
        }
        match fault {
            Some(Fault::Hang | Fault::ApplyThenHang) => {
                self.hangs.notify_one();
                std::future::pending::<()>().await;
            }
            Some(Fault::Reset | Fault::ApplyThenLose) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Fault::Status(_)) | None => {}
        }
        let (code, body) = match answer {
            Ok(object) => (200, object),
            Err(code) => (code, refusal(code)),
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap()));
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        Ok(response)
    }
}

fn refusal(code: u16) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        _ => "InternalError",
    };
    json!({"kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code})
}

/// An endpoint of which nothing is real.
#[derive(Clone, Default)]
pub struct Local {
    state: Arc<Mutex<LocalState>>,
}

#[derive(Default)]
struct LocalState {
    routes: Vec<Vec<String>>,
    refused: BTreeSet<String>,
    used: BTreeSet<String>,
    noted: Vec<String>,
    verified: usize,
}

impl Local {
    /// The hosts of each time that they were set.
    pub fn routes(&self) -> Vec<Vec<String>> {
        self.state.lock().unwrap().routes.clone()
    }

    /// The hosts whose files were said to be written.
    pub fn noted(&self) -> Vec<String> {
        self.state.lock().unwrap().noted.clone()
    }

    /// How often a host was asked for.
    pub fn verified(&self) -> usize {
        self.state.lock().unwrap().verified
    }

    pub fn refuse(&self, host: &str) {
        self.state.lock().unwrap().refused.insert(host.to_owned());
    }

    pub fn allow(&self, host: &str) {
        self.state.lock().unwrap().refused.remove(host);
    }

    /// The runtime asks for something of a host.
    pub fn use_host(&self, host: &str) {
        self.state.lock().unwrap().used.insert(host.to_owned());
    }
}

impl Endpoint for Local {
    fn describe(&self) -> LocalEndpoint {
        LocalEndpoint { url: "https://127.0.0.1:17443".into(), certificate: Some("NODE".into()) }
    }

    fn route(&self, plan: &Plan) {
        self.state.lock().unwrap().routes.push(plan.hosts.keys().cloned().collect());
    }

    async fn verify(&self, host: &str) -> Result<(), String> {
        let mut state = self.state.lock().unwrap();
        state.verified += 1;
        if state.refused.contains(host) { Err(format!("{host} is away")) } else { Ok(()) }
    }

    fn note_written(&self, host: &str) {
        let mut state = self.state.lock().unwrap();
        state.noted.push(host.to_owned());
        state.used.remove(host);
    }

    fn used(&self, host: &str) -> bool {
        self.state.lock().unwrap().used.contains(host)
    }
}
