//! A client of HTTP/1.1 on one connection, that waits for each answer. It does as little as it can, so that what is measured
//! is the server. It must never take half an answer for a whole one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// How long a server may be silent: a bound against hanging, not an expectation.
const PATIENCE: Duration = Duration::from_secs(120);
const BUFFER: usize = 512 << 10;

/// The head of an answer whose body has been read.
pub struct Answer {
    pub status: u16,
    pub location: String,
    pub length: u64,
    /// When the head was there.
    pub at: Instant,
}

enum Stream {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => &stream.sock,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Secure(stream) => stream.write_all(bytes),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Secure(stream) => stream.read(buffer),
        }
    }
}

pub struct Client {
    stream: Stream,
    buffer: Vec<u8>,
    /// Sent with each request.
    pub token: Option<&'static str>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self::of(Stream::Plain(connect(address)))
    }

    /// The same over TLS, to a server of an address.
    pub fn over_tls(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let session = ClientConnection::new(config, address.ip().into()).unwrap();
        Self::of(Stream::Secure(Box::new(StreamOwned::new(session, connect(address)))))
    }

    fn of(stream: Stream) -> Self {
        Self { stream, buffer: vec![0; BUFFER], token: None }
    }

    /// How long to wait for the next bytes.
    pub fn wait_at_most(&self, duration: Duration) {
        self.stream.socket().set_read_timeout(Some(duration.max(Duration::from_millis(1)))).unwrap();
    }

    /// Sends a request without waiting for the answer.
    pub fn ask(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> io::Result<()> {
        let accept = "application/vnd.oci.image.manifest.v1+json";
        let token = self.token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nContent-Type: {kind}\r\n{token}\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write(head.as_bytes())?;
        if body.is_empty() { Ok(()) } else { self.stream.write(body) }
    }

    pub fn send(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> io::Result<Answer> {
        self.ask(method, path, kind, body)?;
        self.answer(method == "HEAD")
    }

    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, "application/octet-stream", &[])
    }

    /// Reads the answer to what was asked, and lets its body go.
    pub fn answer(&mut self, without_body: bool) -> io::Result<Answer> {
        let mut filled = 0;
        let (answer, start) = loop {
            filled += self.read_some(filled)?;
            if let Some(head) = head(&self.buffer[..filled]) {
                break head;
            }
        };
        let mut rest = if without_body { 0 } else { answer.length - (filled - start) as u64 };
        while rest > 0 {
            rest -= self.read_some(0)? as u64;
        }
        Ok(answer)
    }

    /// Lets go what comes, until nothing comes or nobody wants it any more.
    pub fn take_while(&mut self, wanted: impl Fn() -> bool) {
        while wanted() && self.read_some(0).is_ok() {}
    }

    fn read_some(&mut self, from: usize) -> io::Result<usize> {
        match self.stream.read(&mut self.buffer[from..])? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            length => Ok(length),
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What a head says, and where the body begins.
fn head(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..end]);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let header = |wanted: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
    };
    // Every answer that is measured says how long it is.
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    Some((Answer { status, location: header("location").unwrap_or_default(), length, at: Instant::now() }, end + 4))
}
