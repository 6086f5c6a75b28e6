//! The connection of one process to the server: where requests come in, and where faults happen to them.

use std::io;
use std::sync::PoisonError;
use std::time::Duration;

use axum::body::Body;
use futures::{StreamExt, stream};
use http::{Request, Response};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::call::Call;
use super::refusal::{self, Refusal, refuse};
use super::selection::Watch;
use super::{EventFault, Fault, Server};

/// The connection of one process to the server.
#[derive(Clone)]
pub struct Connection {
    server: Server,
    crashed: watch::Sender<bool>,
}

impl Connection {
    pub(super) fn new(server: Server) -> Self {
        Self { server, crashed: watch::Sender::new(false) }
    }

    /// A client over this connection.
    pub fn client(&self) -> Client {
        let connection = self.clone();
        Client::new(tower::service_fn(move |request| connection.clone().answer(request)), "default")
    }

    /// Ends the process: requests and watches fail from now on.
    pub fn crash(&self) {
        self.crashed.send_replace(true);
    }

    /// Waits until the process is to be considered dead.
    pub async fn crashed(&self) {
        // Waiting fails only without a sender, and `self` is one.
        let _ = self.crashed.subscribe().wait_for(|crashed| *crashed).await;
    }

    async fn answer(self, request: Request<kube::client::Body>) -> io::Result<Response<Body>> {
        let lost = || io::Error::from(io::ErrorKind::ConnectionReset);
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.map_err(io::Error::other)?;
        if *self.crashed.borrow() {
            return Err(lost());
        }
        let call = Call::read(&self.server.store().served(), &parts, &body);
        let record = self.server.record(&call);
        let hook = self.server.hook.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The hook runs without any lock, so that it can act as another client just before the request.
        let fault = hook.and_then(|hook| hook(&record));
        match &fault {
            Some(Fault::Hang) => self.crashed().await,
            Some(Fault::CrashBefore) => self.crash(),
            _ => {}
        }
        if matches!(fault, Some(Fault::Reset)) || *self.crashed.borrow() {
            return Err(lost());
        }
        if let (None, "watch", Ok(_)) = (&fault, call.verb, call.kind()) {
            return Ok(self.watch(call, record.ordinal));
        }
        let mut store = self.server.store();
        let version = store.version;
        let result = match fault {
            Some(Fault::Status { code, reason, retry_after }) => {
                let mut refusal = refuse(code, reason, "injected by the test");
                refusal::details(&mut refusal).retry_after_seconds = retry_after.unwrap_or_default();
                Err(refusal)
            }
            _ => call.execute(&mut store),
        };
        let wrote = store.version != version;
        let response = respond(result);
        let request = &mut store.requests[record.ordinal];
        request.wrote = wrote;
        match fault {
            Some(Fault::ApplyThenLose) => return Err(lost()),
            Some(Fault::CrashAfter) => {
                self.crash();
                return Err(lost());
            }
            _ => request.outcome = Some(response.status().as_u16()),
        }
        Ok(response)
    }

    fn watch(self, call: Call, ordinal: usize) -> Response<Body> {
        let timeout = Duration::from_secs(call.parameter("timeoutSeconds").parse().unwrap_or(290));
        let mut store = self.server.store();
        let watch = match Watch::start(call, &store) {
            Ok(watch) => watch,
            Err(refusal) => return respond(Err(refusal)),
        };
        store.requests[ordinal].outcome = Some(200);
        let (mut cut, changed) = (self.server.cut.subscribe(), store.changed.subscribe());
        let server = self.server.clone();
        let lines = stream::unfold((watch, changed), move |(mut watch, mut changed)| {
            let server = server.clone();
            async move {
                loop {
                    changed.mark_unchanged();
                    let line = watch.next(&server.store());
                    let Some(line) = line else {
                        changed.changed().await.ok()?;
                        continue;
                    };
                    match server.fault_of(&line) {
                        None => return Some((Ok::<_, io::Error>(line), (watch, changed))),
                        Some(EventFault::Lose) => {}
                        Some(EventFault::Cut) => return None,
                        Some(EventFault::Expire) => return Some((Ok(watch.expire()), (watch, changed))),
                    }
                }
            }
        });
        drop(store);
        let end = async move {
            tokio::select! {
                () = self.crashed() => {}
                _ = cut.changed() => {}
                () = tokio::time::sleep(timeout) => {}
            }
        };
        Response::new(Body::from_stream(lines.take_until(Box::pin(end))))
    }
}

fn respond(result: Result<(u16, Value), Refusal>) -> Response<Body> {
    let (code, body, retry_after) = match result {
        Ok((code, body)) => (code, body, 0),
        Err(refusal) => {
            let mut body = json!(refusal);
            (body["apiVersion"], body["kind"], body["metadata"]) = (json!("v1"), json!("Status"), json!({}));
            (refusal.code, body, refusal.details.map_or(0, |details| details.retry_after_seconds))
        }
    };
    let mut response = Response::builder().status(code).header("content-type", "application/json");
    if retry_after > 0 {
        response = response.header("retry-after", retry_after);
    }
    response.body(Body::from(body.to_string())).expect("a response of constants and numbers")
}
