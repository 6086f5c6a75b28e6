//! A registry that the mirrors are measured against: it knows what it was asked and how many bytes of content it has sent, and
//! is as slow, as far away, as closed, as silent or as gone as it is told. It must never be what is slow by itself.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::support::content::{Blob, Image, MANIFEST_TYPE};

/// Who knows it may read, where tokens are wanted.
pub const TOKEN: &str = "of-the-benchmark";
/// What is sent at once.
const PIECE: usize = 256 << 10;
/// The same where the rate of a connection is limited.
const PACED_PIECE: usize = 32 << 10;

const SERVES: u8 = 0;
const SILENT: u8 = 1;
const GONE: u8 = 2;

/// How the upstream behaves.
#[derive(Clone, Copy, Default)]
pub struct Manner {
    /// Bytes a second on a connection; 0 for as many as there can be.
    pub rate: u64,
    /// How long a round trip takes: it is waited for where a connection begins and before each answer.
    pub round_trip: Duration,
    /// Whether tokens are wanted and blobs are elsewhere, as at large registries.
    pub guarded: bool,
}

struct Object {
    media_type: &'static str,
    digest: String,
    bytes: Bytes,
}

#[derive(Default)]
struct State {
    /// By tag or digest.
    objects: Mutex<BTreeMap<String, Arc<Object>>>,
    manner: Mutex<Manner>,
    mode: AtomicU8,
    requests: AtomicU64,
    sent: AtomicU64,
    /// How many bodies are being sent, and how many there were at most.
    sending: AtomicU64,
    sending_at_most: AtomicU64,
    connections: Mutex<Vec<Weak<TcpStream>>>,
}

/// What was asked and sent since a moment.
#[derive(Clone, Copy)]
pub struct Counted {
    pub requests: u64,
    pub bytes: u64,
}

/// A registry and a storage beside it, both gone with the value.
pub struct Upstream {
    pub address: SocketAddr,
    pub storage: SocketAddr,
    state: Arc<State>,
    listening: Vec<JoinHandle<()>>,
}

impl Upstream {
    pub fn start() -> Self {
        let [registry, storage] = [0, 0].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
        let (address, of_storage) = (registry.local_addr().unwrap(), storage.local_addr().unwrap());
        let mut upstream = Self { address, storage: of_storage, state: Arc::default(), listening: Vec::new() };
        upstream.listen([registry, storage]);
        upstream
    }

    fn listen(&mut self, listeners: [TcpListener; 2]) {
        self.state.mode.store(SERVES, Ordering::SeqCst);
        for listener in listeners {
            let (state, storage) = (self.state.clone(), self.storage);
            self.listening.push(std::thread::spawn(move || accept(&state, &listener, storage)));
        }
    }

    /// Has an image by a tag.
    pub fn put(&self, tag: &str, image: &Image) {
        let mut objects = self.state.objects.lock().unwrap();
        let mut put = |reference: &str, media_type, blob: &Blob| {
            let object = Object { media_type, digest: blob.digest.clone(), bytes: blob.bytes.clone() };
            objects.insert(reference.to_owned(), Arc::new(object));
        };
        put(tag, MANIFEST_TYPE, &image.manifest);
        put(&image.manifest.digest, MANIFEST_TYPE, &image.manifest);
        for blob in &image.blobs {
            put(&blob.digest, "application/octet-stream", blob);
        }
    }

    /// How it behaves from the next request on.
    pub fn behave(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    pub fn counted(&self) -> Counted {
        let State { requests, sent, .. } = &*self.state;
        Counted { requests: requests.load(Ordering::SeqCst), bytes: sent.load(Ordering::SeqCst) }
    }

    pub fn since(&self, before: Counted) -> Counted {
        let now = self.counted();
        Counted { requests: now.requests - before.requests, bytes: now.bytes - before.bytes }
    }

    /// How many bodies were sent at the same time, at most, since this was asked before.
    pub fn sending_at_most(&self) -> u64 {
        self.state.sending_at_most.swap(0, Ordering::SeqCst)
    }

    /// Takes connections and requests from now on, and says nothing.
    pub fn fall_silent(&self) {
        self.state.mode.store(SILENT, Ordering::SeqCst);
    }

    /// Nobody listens any more, and each connection ends.
    pub fn leave(&mut self) {
        self.state.mode.store(GONE, Ordering::SeqCst);
        for address in [self.address, self.storage] {
            // Whoever waits for a connection looks up.
            let _ = TcpStream::connect(address);
        }
        for listening in self.listening.drain(..) {
            listening.join().unwrap();
        }
        for connection in self.state.connections.lock().unwrap().drain(..).filter_map(|held| held.upgrade()) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Serves again, where it did before.
    pub fn come_back(&mut self) {
        self.leave();
        self.listen([self.address, self.storage].map(|address| TcpListener::bind(address).unwrap()));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.leave();
    }
}

fn accept(state: &Arc<State>, listener: &TcpListener, storage: SocketAddr) {
    while let Ok((stream, _)) = listener.accept() {
        if state.mode.load(Ordering::SeqCst) == GONE {
            return;
        }
        let stream = Arc::new(stream);
        {
            let mut connections = state.connections.lock().unwrap();
            connections.retain(|held| held.strong_count() > 0);
            connections.push(Arc::downgrade(&stream));
        }
        let state = state.clone();
        std::thread::spawn(move || {
            let _ = Connection { state, stream, storage }.serve();
        });
    }
}

struct Connection {
    state: Arc<State>,
    stream: Arc<TcpStream>,
    storage: SocketAddr,
}

impl Connection {
    fn manner(&self) -> Manner {
        *self.state.manner.lock().unwrap()
    }

    fn serve(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        std::thread::sleep(self.manner().round_trip);
        loop {
            let head = self.head()?;
            self.state.requests.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(self.manner().round_trip);
            while self.state.mode.load(Ordering::SeqCst) == SILENT {
                std::thread::sleep(Duration::from_millis(20));
            }
            self.answer(&head)?;
        }
    }

    /// The head of the next request; nobody here asks with a body, or for more before there was an answer.
    fn head(&self) -> io::Result<String> {
        let (mut head, mut piece) = (Vec::new(), [0; 4096]);
        while !head.ends_with(b"\r\n\r\n") {
            let length = (&*self.stream).read(&mut piece)?;
            if length == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            head.extend_from_slice(&piece[..length]);
        }
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    fn answer(&self, head: &str) -> io::Result<()> {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        if path == "/token" {
            return self.say("200 OK", "", &format!(r#"{{"token":"{TOKEN}","expires_in":300}}"#));
        }
        let guarded = self.manner().guarded && !path.starts_with("/storage/");
        if guarded && !head.to_ascii_lowercase().contains(&format!("authorization: bearer {TOKEN}")) {
            let realm = format!("http://{}/token", self.stream.local_addr()?);
            let scope = "repository:bench/app:pull";
            let challenge =
                format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"bench\",scope=\"{scope}\"\r\n");
            return self.say("401 Unauthorized", &challenge, "{}");
        }
        if path == "/v2/" {
            return self.say("200 OK", "", "{}");
        }
        let reference = path.rsplit('/').next().unwrap_or_default();
        let Some(object) = self.state.objects.lock().unwrap().get(reference).cloned() else {
            return self.say("404 Not Found", "", "{}");
        };
        if guarded && method == "GET" && path.contains("/blobs/") {
            let location = format!("Location: http://{}/storage/{reference}\r\n", self.storage);
            return self.say("307 Temporary Redirect", &location, "");
        }
        self.give(&object, method == "GET")
    }

    fn say(&self, status: &str, headers: &str, body: &str) -> io::Result<()> {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        (&*self.stream).write_all(answer.as_bytes())
    }

    fn give(&self, object: &Object, with_body: bool) -> io::Result<()> {
        let Object { media_type, digest, bytes } = object;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\nETag: \"{digest}\"\r\n\
             Accept-Ranges: bytes\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        (&*self.stream).write_all(head.as_bytes())?;
        if !with_body {
            return Ok(());
        }
        let sending = self.state.sending.fetch_add(1, Ordering::SeqCst) + 1;
        self.state.sending_at_most.fetch_max(sending, Ordering::SeqCst);
        let sent = self.body(bytes);
        self.state.sending.fetch_sub(1, Ordering::SeqCst);
        sent
    }

    fn body(&self, bytes: &[u8]) -> io::Result<()> {
        let (rate, started) = (self.manner().rate, Instant::now());
        let mut sent = 0;
        for piece in bytes.chunks(if rate == 0 { PIECE } else { PACED_PIECE }) {
            (&*self.stream).write_all(piece)?;
            sent += piece.len() as u64;
            self.state.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
            if rate > 0 {
                let due = started + Duration::from_secs_f64(sent as f64 / rate as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }
}
