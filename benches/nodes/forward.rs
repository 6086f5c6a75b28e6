//! A way to the API server that counts what goes over it, TLS and all. It must never hold bytes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes since the start.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub to_agents: u64,
    pub from_agents: u64,
}

/// A forwarded port.
pub struct Forward {
    pub address: SocketAddr,
    to_agents: Arc<AtomicU64>,
    from_agents: Arc<AtomicU64>,
}

impl Forward {
    /// Forwards a port of its own to a target, for as long as the runtime lives.
    pub async fn to(target: String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let forward =
            Self { address: listener.local_addr().unwrap(), to_agents: Arc::default(), from_agents: Arc::default() };
        let (to, from) = (forward.to_agents.clone(), forward.from_agents.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (target, to, from) = (target.clone(), to.clone(), from.clone());
                tokio::spawn(async move {
                    let other = TcpStream::connect(target).await.unwrap();
                    for stream in [&stream, &other] {
                        let _ = stream.set_nodelay(true);
                    }
                    let ((from_agent, to_agent), (from_server, to_server)) = (stream.into_split(), other.into_split());
                    tokio::join!(pass(from_agent, to_server, from), pass(from_server, to_agent, to));
                });
            }
        });
        forward
    }

    pub fn counted(&self) -> Counted {
        Counted {
            to_agents: self.to_agents.load(Ordering::Relaxed),
            from_agents: self.from_agents.load(Ordering::Relaxed),
        }
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, counter: Arc<AtomicU64>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        counter.fetch_add(length as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
