//! A server that does what its script says, a client, and an endpoint between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::endpoint::metrics::Metrics;
use crate::agent::endpoint::{Endpoint, Settings};
use crate::plan::{Entry, Owner, OwnerKind, Plan};

pub const HOST: &str = "docker.io";
pub const RUNTIME: &str = "containerd/v2.3.4";

/// One step of an answer.
#[derive(Clone)]
pub enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Waits for so many milliseconds.
    Wait(u64),
    /// Closes the connection.
    Cut,
    /// Keeps the connection and sends nothing more.
    Silence,
}

/// What a server answers to the head of a request.
pub type Script = Arc<dyn Fn(&str) -> Vec<Step> + Send + Sync>;

/// A server on a port of its own.
pub struct Server {
    pub address: SocketAddr,
    /// The heads of the requests that came, without those that only ask whether it is alive.
    pub heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    probes: Arc<AtomicUsize>,
    accepting: AbortHandle,
    killed: CancellationToken,
}

impl Server {
    pub async fn start(script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), script).await
    }

    pub async fn at(address: SocketAddr, script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (connections, probes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let killed = CancellationToken::new();
        let script: Script = Arc::new(script);
        let (seen, opened, asked, ends) = (heads.clone(), connections.clone(), probes.clone(), killed.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::Relaxed);
                let (conversation, ends) =
                    (converse(stream, script.clone(), seen.clone(), asked.clone()), ends.clone());
                tokio::spawn(async move { ends.run_until_cancelled(conversation).await });
            }
        });
        Self { address, heads, connections, probes, accepting: accepting.abort_handle(), killed }
    }

    /// How many connections it was given.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How often it was asked whether it is alive.
    pub fn probes(&self) -> usize {
        self.probes.load(Ordering::Relaxed)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Its port is refused from now on; connections that stand go on.
    pub fn stop(&self) {
        self.accepting.abort();
    }

    /// Its port is refused when this returns, and its connections end.
    pub async fn kill(&self) {
        self.stop();
        self.killed.cancel();
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

async fn converse(mut stream: TcpStream, script: Script, heads: Arc<Mutex<Vec<String>>>, probes: Arc<AtomicUsize>) {
    while let Some(head) = head(&mut stream).await {
        if head.starts_with("GET /v2/ ") {
            probes.fetch_add(1, Ordering::Relaxed);
        } else {
            heads.lock().unwrap().push(head.clone());
        }
        for step in script(&head) {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Step::Wait(milliseconds) => tokio::time::sleep(std::time::Duration::from_millis(milliseconds)).await,
                Step::Cut => return,
                Step::Silence => std::future::pending().await,
            }
        }
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap().to_lowercase().replacen("get ", "GET ", 1).replacen("head ", "HEAD ", 1))
}

/// An answer with its length.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<Step> {
    vec![Step::Send(head_of(status, headers, body.len())), Step::Send(body.to_vec())]
}

pub fn head_of(status: u16, headers: &[(&str, &str)], length: usize) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        text = format!("{text}{name}: {value}\r\n");
    }
    format!("{text}\r\n").into_bytes()
}

/// Alive, and nothing else.
pub fn alive(head: &str) -> Option<Vec<Step>> {
    head.starts_with("GET /v2/ ").then(|| answer(200, &[], b"{}"))
}

/// The value of a header in the head of a request.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A plan in which these servers have [`HOST`].
pub fn plan(kind: OwnerKind, backends: &[String], authority: &str) -> Plan {
    let owner = Owner { kind, namespace: String::new(), name: "m".into(), uid: "u".into() };
    let entry = Entry { backends: backends.to_vec(), owner, nodes: None, since: 1 };
    let hosts = BTreeMap::from([(HOST.to_owned(), entry)]);
    Plan { revision: 1, authority: authority.into(), authority_since: 1, hosts }
}

/// An endpoint on a free port.
pub struct Node {
    pub endpoint: Endpoint,
    _folder: TempDir,
}

impl Node {
    pub async fn start(plain_http: bool) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "the-token\n").unwrap();
        let settings = Settings {
            port: 0,
            plain_http,
            state_folder: folder.path().join("state"),
            token_file: folder.path().join("token"),
            longest_stall: Duration::from_secs(4),
        };
        let endpoint = Endpoint::start(settings, Metrics::default()).await.unwrap();
        Self { endpoint, _folder: folder }
    }

    /// In front of these servers, as replicas of a Mirror.
    pub async fn before(servers: &[&Server]) -> Self {
        let node = Self::start(true).await;
        let urls: Vec<String> = servers.iter().map(|server| server.url()).collect();
        node.endpoint.route(&plan(OwnerKind::Mirror, &urls, ""));
        node
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint.url())
    }

    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let client = reqwest::Client::builder().no_proxy().user_agent(RUNTIME).build().unwrap();
        let mut request = client.get(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }
}
