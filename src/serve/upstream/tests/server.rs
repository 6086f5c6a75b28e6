//! A server on loopback that answers what a test says, byte by byte, so that it can lie.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn read(head: &str) -> Self {
        let mut lines = head.lines();
        let mut first = lines.next().unwrap().split(' ');
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            method: first.next().unwrap().into(),
            target: first.next().unwrap().into(),
            headers: headers.map(|(name, value)| (name.to_lowercase(), value.into())).collect(),
        }
    }
}

/// What is answered.
pub struct Reply {
    bytes: Vec<u8>,
    and_then: Then,
}

#[derive(PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
    Silence,
}

impl Reply {
    /// A whole answer; its length is said if the headers do not say one.
    pub fn new(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if !headers.iter().any(|(name, _)| ["content-length", "transfer-encoding"].contains(name)) {
            write!(head, "content-length: {}\r\n", body.len()).unwrap();
        }
        Self { bytes: [head.as_bytes(), b"\r\n", body].concat(), and_then: Then::GoOn }
    }

    /// Nothing.
    pub fn silence() -> Self {
        Self { bytes: Vec::new(), and_then: Then::Silence }
    }

    pub fn then_close(self) -> Self {
        Self { and_then: Then::Close, ..self }
    }

    pub fn then_silence(self) -> Self {
        Self { and_then: Then::Silence, ..self }
    }
}

/// Answers as its script says, and keeps what it was asked.
pub struct Server {
    pub port: u16,
    asked: Arc<Mutex<Vec<Request>>>,
    running: AbortHandle,
}

impl Server {
    pub async fn new(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::begin(None, script).await
    }

    /// With TLS, and a certificate for `localhost` that vouches for itself; that is in PEM.
    pub async fn secure(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        (Self::begin(Some(TlsAcceptor::from(Arc::new(config))), script).await, made.cert.pem())
    }

    async fn begin(tls: Option<TlsAcceptor>, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<Request>>>::default();
        let (kept, script) = (asked.clone(), Arc::new(script));
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, script, tls) = (kept.clone(), script.clone(), tls.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else { return serve(stream, &kept, &*script).await };
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, &kept, &*script).await;
                    }
                });
            }
        });
        Self { port, asked, running: running.abort_handle() }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// What was asked, a line each.
    pub fn lines(&self) -> Vec<String> {
        self.asked().iter().map(|request| format!("{} {}", request.method, request.target)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    kept: &Mutex<Vec<Request>>,
    script: &(impl Fn(&Request) -> Reply + Sync),
) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let request = Request::read(std::str::from_utf8(&head).unwrap());
        head.clear();
        kept.lock().unwrap().push(request.clone());
        let mut reply = script(&request);
        if request.method == "HEAD"
            && let Some(end) = reply.bytes.windows(4).position(|window| window == b"\r\n\r\n")
        {
            reply.bytes.truncate(end + 4);
        }
        if stream.write_all(&reply.bytes).await.is_err() || reply.and_then == Then::Close {
            return;
        }
        if reply.and_then == Then::Silence {
            // Until the client goes.
            let _ = stream.read(&mut [0]).await;
            return;
        }
    }
}
