//! The limit of what a mirror can do on this machine: one loop that receives, hashes, writes and sends. It must never do more
//! than that, and serves one request after the other.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use ring::digest::{Context, SHA256};

const BUFFER: usize = 256 << 10;

/// The loop; it ends after one answer.
pub struct Plain {
    pub address: SocketAddr,
    looping: JoinHandle<io::Result<()>>,
}

impl Plain {
    /// In front of an upstream, for a body of so many bytes, which goes to a file.
    pub fn start(upstream: SocketAddr, length: usize, file: PathBuf) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let looping = std::thread::spawn(move || {
            let given = give(&listener.accept()?.0, &TcpStream::connect(upstream)?, length, &File::create(&file)?);
            std::fs::remove_file(file)?;
            given
        });
        Self { address, looping }
    }

    pub fn join(self) {
        self.looping.join().unwrap().unwrap();
    }
}

fn give(mut client: &TcpStream, mut upstream: &TcpStream, length: usize, mut file: &File) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER];
    let asked = client.read(&mut buffer)?;
    upstream.write_all(&buffer[..asked])?;
    let mut filled = 0;
    let body = loop {
        filled += upstream.read(&mut buffer[filled..])?;
        if let Some(end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    client.write_all(&buffer[..body])?;
    let (mut hash, mut there, mut piece) = (Context::new(&SHA256), 0, body..filled);
    loop {
        let bytes = &buffer[piece];
        hash.update(bytes);
        file.write_all(bytes)?;
        client.write_all(bytes)?;
        there += bytes.len();
        if there >= length {
            break;
        }
        piece = 0..upstream.read(&mut buffer)?;
        assert!(!piece.is_empty(), "the upstream gives all");
    }
    assert_eq!(hash.finish().as_ref().len(), 32);
    Ok(())
}
