//! A client that pulls as runtimes do: the manifest by its tag, and then each blob, one after the other, on connections that
//! stay. It must never count half a pull for one.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::client::{Answer, Client};
use crate::support::content::Image;
use crate::upstream::{TOKEN, Upstream};

/// How long is waited for the next bytes: runtimes give up after that.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a pull took.
pub struct Pulled {
    /// From asking for the largest blob until the head of its answer.
    pub headers: f64,
    pub seconds: f64,
}

pub struct Puller {
    registry: Client,
    address: SocketAddr,
    /// Where it is redirected to.
    storage: Option<(SocketAddr, Option<Client>)>,
    repository: &'static str,
}

impl Puller {
    /// Of a server that gives everything itself.
    pub fn of(address: SocketAddr, repository: &'static str) -> Self {
        let registry = Client::new(address);
        registry.wait_at_most(PATIENCE);
        Self { registry, address, storage: None, repository }
    }

    /// Of the upstream, whatever it wants.
    pub fn direct(upstream: &Upstream, repository: &'static str) -> Self {
        Self { storage: Some((upstream.storage, None)), ..Self::of(upstream.address, repository) }
    }

    pub fn pull(&mut self, tag: &str, image: &Image) -> io::Result<Pulled> {
        let started = Instant::now();
        self.get("manifests", tag, image.manifest.bytes.len())?;
        let (mut largest, mut headers) = (0, 0.0);
        for blob in &image.blobs {
            let (asked, length) = (Instant::now(), blob.bytes.len());
            let answer = self.get("blobs", &blob.digest, length)?;
            if length > largest {
                (largest, headers) = (length, (answer.at - asked).as_secs_f64());
            }
        }
        Ok(Pulled { headers, seconds: started.elapsed().as_secs_f64() })
    }

    fn get(&mut self, kind: &str, reference: &str, length: usize) -> io::Result<Answer> {
        let path = format!("/v2/{}/{kind}/{reference}", self.repository);
        let mut answer = self.registry.get(&path)?;
        if answer.status == 401 && self.registry.token.is_none() {
            self.registry.get("/token?service=bench&scope=repository:bench/app:pull")?;
            self.registry.token = Some(TOKEN);
            answer = self.registry.get(&path)?;
        }
        if let (307, Some((address, storage))) = (answer.status, &mut self.storage) {
            let storage = storage.get_or_insert_with(|| Client::new(*address));
            let path = answer.location.strip_prefix(&format!("http://{address}"));
            answer = storage.get(path.unwrap_or_else(|| panic!("redirected to {}", answer.location)))?;
        }
        assert_eq!((answer.status, answer.length), (200, length as u64), "{path} of {}", self.address);
        Ok(answer)
    }
}
