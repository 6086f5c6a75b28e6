//! Clients of a mirror, which know what is right: each answer is the right one, or a clean failure that a runtime takes for one.
//! They must never take a whole answer with wrong bytes for either.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};

use super::upstream::content::{Image, Index, Named};
use crate::client::{Client, digest};

/// In this time each answer has come, however many of the server's own deadlines it takes: it has to be less than for ever.
pub const PATIENCE: Duration = Duration::from_secs(150);
/// What is read of an answer of unknown length.
pub const MOST: usize = 16 * 1024 * 1024;
/// What no honest answer of these tests has more than its content.
const TOO_MUCH: usize = 256 * 1024;

/// What came of one request.
#[derive(Debug)]
pub struct Came {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
    /// Whether the body ended where it should.
    pub whole: bool,
}

impl Came {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Asks once. None where no head came; what came by the end of the patience where a body stalls, and at most so much.
pub async fn come(
    client: &Client,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    patience: Duration,
    most: usize,
) -> Option<Came> {
    let whole = target.starts_with("http://");
    let address = if whole { target.to_owned() } else { format!("http://{}{target}", client.address) };
    let mut request = Request::builder().method(method).uri(address);
    for (name, value) in headers.iter().copied().chain(client.identity()) {
        request = request.header(name, value);
    }
    let sent = client.http.request(request.body(Full::new(Bytes::new())).unwrap());
    let (head, mut body) = tokio::time::timeout(patience, sent).await.ok()?.ok()?.into_parts();
    let mut bytes = Vec::new();
    let whole = loop {
        match tokio::time::timeout(patience, body.frame()).await {
            Ok(None) => break true,
            Ok(Some(Ok(frame))) if bytes.len() <= most => {
                bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
            }
            _ => break false,
        }
    };
    Some(Came { status: head.status, headers: head.headers, bytes: bytes.into(), whole })
}

/// Whether a client has what it wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Right,
    Failed(String),
}

/// How a client of a mirror begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// HEAD of the tag, then everything by digest, with `ns`.
    Containerd,
    /// GET of the tag, with a path prefix.
    Podman,
}

#[derive(Clone)]
pub struct Puller {
    pub client: Client,
    /// The registry's name.
    pub host: String,
    pub style: Style,
    /// What is being tried, for messages.
    pub case: String,
}

impl Puller {
    pub fn new(address: std::net::SocketAddr, host: &str) -> Self {
        let client = Client::new(&address.to_string());
        Self { client, host: host.to_owned(), style: Style::Containerd, case: host.to_owned() }
    }

    pub fn podman(self) -> Self {
        Self { style: Style::Podman, ..self }
    }

    pub fn with(mut self, user: &str) -> Self {
        use base64::Engine as _;
        let credential = format!("{user}:{user}-secret");
        let credential = base64::engine::general_purpose::STANDARD.encode(credential);
        self.client.authorization = Some(format!("Basic {credential}"));
        self
    }

    /// By way of an agent with this token.
    pub fn agent(mut self, token: &str) -> Self {
        self.client.agent_token = Some(token.to_owned());
        self
    }

    /// With its own connections.
    pub fn another(&self) -> Self {
        let Client { address, authorization, agent_token, .. } = self.client.clone();
        let client = Client { authorization, agent_token, ..Client::new(&address) };
        Self { client, ..self.clone() }
    }

    pub fn target(&self, rest: &str) -> String {
        match self.style {
            Style::Containerd => format!("/v2/{rest}?ns={}", self.host),
            Style::Podman => format!("/v2/{}/{rest}", self.host.replace(':', "_")),
        }
    }

    pub async fn get(&self, rest: &str) -> Came {
        self.ask(Method::GET, rest, &[]).await
    }

    /// An answer that has to come, whole.
    pub async fn ask(&self, method: Method, rest: &str, headers: &[(&str, &str)]) -> Came {
        let came = self.come(method, rest, headers).await;
        came.filter(|came| came.whole).unwrap_or_else(|| panic!("{}: {rest} was not answered", self.case))
    }

    pub async fn come(&self, method: Method, rest: &str, headers: &[(&str, &str)]) -> Option<Came> {
        self.come_at_most(method, rest, headers, MOST).await
    }

    async fn come_at_most(&self, method: Method, rest: &str, headers: &[(&str, &str)], most: usize) -> Option<Came> {
        come(&self.client, method, &self.target(rest), headers, PATIENCE, most).await
    }

    fn wrong(&self, what: &str, came: &dyn Debug) -> ! {
        panic!("{}: {what}: {came:?}", self.case)
    }

    /// What a failure has to be for a runtime to go on with it.
    fn failed(&self, rest: &str, came: Option<Came>) -> Outcome {
        let Some(came) = came else { return Outcome::Failed(format!("{rest}: no answer")) };
        if came.status.is_success() && !came.whole {
            return Outcome::Failed(format!("{rest}: cut after {} bytes", came.bytes.len()));
        }
        let (status, text) = (came.status.as_u16(), String::from_utf8_lossy(&came.bytes));
        if status < 400 || status == 429 || text.contains("upstream-says-so") {
            self.wrong(rest, &came);
        }
        if status == 503 && !came.headers.contains_key("retry-after") {
            self.wrong("it does not say when to come again", &came);
        }
        Outcome::Failed(format!("{rest}: {status} {text}"))
    }

    /// Gets something whose bytes are known.
    pub async fn fetch(&self, rest: &str, bytes: &Bytes) -> Outcome {
        let came = self.come_at_most(Method::GET, rest, &[], bytes.len() + TOO_MUCH).await;
        match came {
            Some(came) if came.status == StatusCode::OK && came.whole => {
                if came.bytes != bytes {
                    let came = format!("{} of {} bytes, {:?}", came.bytes.len(), bytes.len(), came.headers);
                    self.wrong(&format!("{rest} is whole, and not what it should be"), &came);
                }
                Outcome::Right
            }
            came => self.failed(rest, came),
        }
    }

    /// Gets a part of a blob.
    pub async fn part(&self, repository: &str, blob: &Named, from: usize, to: Option<usize>) -> Outcome {
        let rest = format!("{repository}/blobs/{}", blob.digest);
        let range = format!("bytes={from}-{}", to.map(|to| (to - 1).to_string()).unwrap_or_default());
        let end = to.unwrap_or(blob.bytes.len()).min(blob.bytes.len());
        let most = blob.bytes.len() + TOO_MUCH;
        let came = self.come_at_most(Method::GET, &rest, &[("range", &range)], most).await;
        match came {
            Some(came) if came.status == StatusCode::PARTIAL_CONTENT && came.whole => {
                if came.bytes == blob.bytes[from..end] {
                    return Outcome::Right;
                }
                // A part that ends before the end may be wrong: the runtime looks at the digest.
                if end == blob.bytes.len() || came.bytes.len() > end - from {
                    self.wrong(&format!("{rest} {range} is not what it should be"), &came.headers);
                }
                Outcome::Failed(format!("{rest} {range}: wrong bytes"))
            }
            Some(came) if came.status == StatusCode::OK && came.whole => {
                if came.bytes != blob.bytes {
                    self.wrong(&format!("{rest} is whole, and not what it should be"), &came.headers);
                }
                Outcome::Right
            }
            came => self.failed(&rest, came),
        }
    }

    pub async fn blob(&self, repository: &str, blob: &Named) -> Outcome {
        self.fetch(&format!("{repository}/blobs/{}", blob.digest), &blob.bytes).await
    }

    /// Pulls an image that has been found.
    pub async fn image(&self, repository: &str, image: &Image) -> Outcome {
        let rest = format!("{repository}/manifests/{}", image.manifest.digest);
        let found = self.fetch(&rest, &image.manifest.bytes).await;
        if found != Outcome::Right {
            return found;
        }
        let blobs = image.blobs().map(|blob| self.blob(repository, blob));
        let failed = futures::future::join_all(blobs).await.into_iter().find(|outcome| *outcome != Outcome::Right);
        failed.unwrap_or(Outcome::Right)
    }

    /// Pulls one of an index's images, as a runtime does.
    pub async fn pull(&self, repository: &str, tag: &str, index: &Index, platform: usize) -> Outcome {
        let by_tag = format!("{repository}/manifests/{tag}");
        let right = &index.manifest;
        let first = match self.style {
            Style::Podman => self.fetch(&by_tag, &right.bytes).await,
            Style::Containerd => match self.come(Method::HEAD, &by_tag, &[]).await {
                Some(came) if came.status == StatusCode::OK => {
                    let named = came.header("docker-content-digest").to_owned();
                    let rest = format!("{repository}/manifests/{named}");
                    if named == right.digest {
                        self.fetch(&rest, &right.bytes).await
                    } else {
                        self.follow_lie(&rest, &named).await
                    }
                }
                came => self.failed(&by_tag, came),
            },
        };
        if first == Outcome::Right { self.image(repository, &index.images[platform]).await } else { first }
    }

    /// An upstream may name a digest that is none of its own: what comes under it has it all the same.
    async fn follow_lie(&self, rest: &str, named: &str) -> Outcome {
        match self.come(Method::GET, rest, &[]).await {
            Some(came) if came.status == StatusCode::OK && came.whole => {
                if digest(&came.bytes) != named {
                    self.wrong(&format!("{rest} does not have its digest"), &came.headers);
                }
                Outcome::Failed(format!("{rest} is another one"))
            }
            came => self.failed(rest, came),
        }
    }

    /// Pulls until it succeeds, because the upstream is as it should be.
    pub async fn pull_in_the_end(&self, repository: &str, tag: &str, index: &Index, platform: usize) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let outcome = self.pull(repository, tag, index, platform).await;
            if outcome == Outcome::Right {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{}: with a good upstream: {outcome:?}", self.case);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}
