//! An API server that says whose tokens are, and nothing else. It must never answer a question that a real one would not take.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub const AUDIENCE: &str = "wharf.dev/mirror";
pub const AGENT: &str = "system:serviceaccount:wharf-system:wharf-agent";
/// As whom the mirror asks.
const OWN: &str = "own-secret";

#[derive(Default)]
struct State {
    /// Whose each token is, and for which audience.
    tokens: BTreeMap<String, (String, String)>,
    asked: usize,
    problems: Vec<String>,
    /// It takes questions and refuses them with this.
    refuses: Option<u16>,
}

pub struct TokenReviews {
    state: Arc<Mutex<State>>,
    end: CancellationToken,
    folder: tempfile::TempDir,
}

impl TokenReviews {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": {"server": format!("http://{}", listener.local_addr().unwrap())}}],
            "users": [{"name": "x", "user": {"token": OWN}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        });
        std::fs::write(folder.path().join("kubeconfig"), config.to_string()).unwrap();
        let server = Self { state: Arc::default(), end: CancellationToken::new(), folder };
        tokio::spawn(listen(server.state.clone(), listener, server.end.clone()));
        server
    }

    /// What a mirror has in its environment to ask it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("KUBECONFIG", path(self.folder.path()))]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A token of this account for this audience, which ends in an hour.
    pub fn token(&self, user: &str, audience: &str) -> String {
        let mut state = self.state();
        let claims = json!({"exp": jiff::Timestamp::now().as_second() + 3600, "number": state.tokens.len()});
        let token = format!("head-secret.{}.sign", URL_SAFE_NO_PAD.encode(claims.to_string()));
        state.tokens.insert(token.clone(), (user.to_owned(), audience.to_owned()));
        token
    }

    /// Refuses all questions, or none.
    pub fn refuse(&self, status: Option<u16>) {
        self.state().refuses = status;
    }

    /// Nobody listens any more.
    pub fn leave(&self) {
        self.end.cancel();
    }

    pub fn asked(&self) -> usize {
        self.state().asked
    }

    /// What was asked as it may not be.
    pub fn problems(&self) -> Vec<String> {
        self.state().problems.clone()
    }
}

fn path(folder: &Path) -> String {
    folder.join("kubeconfig").display().to_string()
}

async fn listen(state: Arc<Mutex<State>>, listener: TcpListener, end: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = end.cancelled() => return,
            accepted = listener.accept() => accepted.unwrap().0,
        };
        let (state, end) = (state.clone(), end.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&state, request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = end.cancelled() => {}
                _ = connection => {}
            }
        });
    }
}

async fn answer(state: &Mutex<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
    let mut state = state.lock().unwrap();
    state.asked += 1;
    let mut problem = |is_wrong: bool, what: &str| {
        if is_wrong {
            state.problems.push(format!("{what}: {head:?} {body}"));
        }
    };
    problem(head.method != "POST", "not a POST");
    problem(head.uri.path() != "/apis/authentication.k8s.io/v1/tokenreviews", "another path");
    let own = head.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    problem(own != Some(format!("Bearer {OWN}")), "another account");
    problem(body["apiVersion"] != "authentication.k8s.io/v1" || body["kind"] != "TokenReview", "another kind");
    problem(body["spec"]["audiences"] != json!([AUDIENCE]), "other audiences");
    let token = body["spec"]["token"].as_str().unwrap_or_default().to_owned();
    problem(token.is_empty(), "no token");
    let (status, answer) = if let Some(code) = state.refuses {
        let word = if code == 403 { "Forbidden" } else { "InternalError" };
        (
            code,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": word, "code": code, "message": "no"}),
        )
    } else {
        let found = state.tokens.get(&token).filter(|(_, audience)| audience == AUDIENCE);
        let said = match found {
            Some((user, audience)) => {
                json!({"authenticated": true, "user": {"username": user, "groups": []}, "audiences": [audience]})
            }
            None => json!({"authenticated": false, "user": {}, "error": "invalid bearer token"}),
        };
        (
            201,
            json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": body["spec"], "status": said}),
        )
    };
    let response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    let response = response.header("content-type", "application/json");
    Ok(response.body(Full::new(answer.to_string().into())).unwrap())
}
