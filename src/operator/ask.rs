//! Asks pods of Wharf's own, on their operations port, what they tell of themselves.
//! It must never believe that an answer comes, ends or is what it should be: each is bounded in time and length.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks, with a connection of its own each time.
pub(super) struct Asker(Client<HttpConnector, Empty<Bytes>>);

impl Default for Asker {
    fn default() -> Self {
        Self(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http())
    }
}

impl Asker {
    /// What answers at this address and path, of at most `longest` bytes; or what is wrong, in words that do not change from one
    /// attempt to the next.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        address: IpAddr,
        port: i32,
        path: &str,
        longest: usize,
    ) -> Result<T, String> {
        let uri = match address {
            IpAddr::V4(address) => format!("http://{address}:{port}{path}"),
            IpAddr::V6(address) => format!("http://[{address}]:{port}{path}"),
        };
        let exchange = async {
            let uri = uri.parse().map_err(|_| "it has no usable address".to_owned())?;
            let answer = self.0.get(uri).await.map_err(|_| format!("port {port} does not answer"))?;
            if !answer.status().is_success() {
                return Err(format!("it answered {}", answer.status()));
            }
            let body = Limited::new(answer.into_body(), longest).collect().await;
            let body = body.map_err(|_| "its answer broke off, or is too long".to_owned())?.to_bytes();
            serde_json::from_slice(&body).map_err(|_| "its answer cannot be understood".to_owned())
        };
        // Whether it refuses or is silent may change from one attempt to the next.
        timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(format!("port {port} does not answer")))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn only_a_short_answer_that_makes_sense_is_taken() {
        let router = Router::new()
            .route("/good", get(async || "[1]"))
            .route("/long", get(async || format!("[{}]", " ".repeat(64))))
            .route("/odd", get(async || "{}"))
            .route("/bad", get(async || (StatusCode::BAD_GATEWAY, "[1]")))
            .route("/elsewhere", get(async || (StatusCode::FOUND, [("location", "/good")])));
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            let listener = TcpListener::bind((address, 0)).await.unwrap();
            let port = i32::from(listener.local_addr().unwrap().port());
            tokio::spawn(axum::serve(listener, router.clone()).into_future());
            for (path, expected) in [
                ("/good", Ok(vec![1])),
                ("/long", Err("its answer broke off, or is too long")),
                ("/odd", Err("its answer cannot be understood")),
                ("/bad", Err("it answered 502 Bad Gateway")),
                ("/elsewhere", Err("it answered 302 Found")),
            ] {
                let found = Asker::default().ask::<Vec<u8>>(address, port, path, 64).await;
                assert_eq!(found, expected.map_err(ToOwned::to_owned), "{path}");
            }
        }
    }

    #[tokio::test]
    async fn nobody_is_waited_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Time is not waited for from here on: there is nothing else to come.
        tokio::time::pause();
        let port = i32::from(address.port());
        let found = Asker::default().ask::<Vec<u8>>(address.ip(), port, "/", 64).await;
        assert_eq!(found, Err(format!("port {port} does not answer")));
        drop(listener);
        let found = Asker::default().ask::<Vec<u8>>(address.ip(), port, "/", 64).await;
        assert_eq!(found, Err(format!("port {port} does not answer")));
    }
}
