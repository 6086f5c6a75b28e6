//! The registries that the nodes know as docker.io and ghcr.io: one scripted upstream at the address that the cluster's
//! nodes and DNS have for them, with a certificate that the nodes believe.
//! It must never be reached from outside the cluster, nor outlive its test.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Runtime;
use wharf::operator::certificate::{KeyedCertificate, issue};

use super::place::within;
use super::upstream::content::{Image, Named, Readers, archive};
use super::upstream::faults::{Fault, Kind, Rule};
use super::upstream::{Access, Front, Seen, Upstream};
use crate::support::checkout;

/// As dev/cluster has it.
const ADDRESS: [u8; 4] = [44, 0, 0, 2];
const NAMES: [&str; 4] = ["registry-1.docker.io", "auth.docker.io", "production.cloudflare.docker.com", "ghcr.io"];
/// What asks for an image, in the order in which a runtime does.
pub const OF_AN_IMAGE: [Kind; 6] =
    [Kind::HeadTag, Kind::GetTag, Kind::HeadManifest, Kind::GetManifest, Kind::HeadBlob, Kind::GetBlob];

/// There is one such address.
static ONE: Mutex<()> = Mutex::new(());
/// No two images of a run are the same, nor any layers of two.
static IMAGES: AtomicU32 = AtomicU32::new(0);

pub struct Hub {
    // The order in which they go.
    pub upstream: Upstream,
    runtime: Runtime,
    away: AtomicBool,
    _one: MutexGuard<'static, ()>,
}

/// An image that the hub has.
pub struct Pushed {
    /// As a pod names it.
    pub reference: String,
    pub image: Image,
}

/// The authority that the nodes believe, as `ca.crt` and `ca.key`.
pub fn authority() -> KeyedCertificate {
    let read = |name: &str| std::fs::read_to_string(checkout().join("target/cluster/pki").join(name)).unwrap();
    KeyedCertificate { certificate: read("internet.crt"), key: read("internet.key") }
}

pub fn tls() -> tokio_rustls::TlsAcceptor {
    let names: BTreeSet<String> = NAMES.map(str::to_owned).into();
    let own = issue(&authority(), &names, jiff::Timestamp::now()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()).into()
}

impl Hub {
    pub fn start() -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let front = Front {
            bind: Box::new(|address| within("control", || TcpListener::bind(address))),
            addresses: [SocketAddr::from((ADDRESS, 443)), SocketAddr::from((ADDRESS, 8443))],
            names: Some([
                "https://auth.docker.io".to_owned(),
                "https://production.cloudflare.docker.com:8443".to_owned(),
            ]),
            tls: Some(tls()),
            // The nodes ask too.
            strict: false,
        };
        let upstream = {
            let _entered = runtime.enter();
            Upstream::behind(front, Access::Tokens)
        };
        Self { upstream, runtime, away: AtomicBool::new(false), _one: one }
    }

    /// An image that runs `sleep` and the like, with further layers of these sizes; `docker.io/library/<name>:1`.
    pub fn push(&self, name: &str, sizes: &[usize]) -> Pushed {
        self.push_for(name, sizes, Readers::Everybody)
    }

    /// The same in a repository that nobody has heard of: no cache has another image of that name to fall back on.
    pub fn push_new(&self, name: &str, sizes: &[usize]) -> Pushed {
        self.push(&format!("{name}-{}", IMAGES.load(Ordering::Relaxed)), sizes)
    }

    /// As [`Hub::push`], for these readers alone.
    pub fn push_for(&self, name: &str, sizes: &[usize], readers: Readers) -> Pushed {
        let number = IMAGES.fetch_add(1, Ordering::Relaxed);
        let mut program = std::fs::read(checkout().join("target/dev/app/busybox")).unwrap();
        // What follows a program changes nothing but its digest.
        program.extend_from_slice(format!("{name} {number} of {}", std::process::id()).as_bytes());
        let layers: Vec<Named> = std::iter::once(archive("bin/busybox", &program))
            .chain(sizes.iter().map(|size| archive("content", &random(*size))))
            .collect();
        let image = Image::new("amd64", layers);
        let mut repository = image.is_tagged("1");
        repository.readers = readers;
        self.upstream.put(&format!("library/{name}"), repository);
        Pushed { reference: format!("docker.io/library/{name}:1"), image }
    }

    /// Every request for an image gets this.
    pub fn befall(&self, fault: &Fault) {
        self.befall_first(usize::MAX, fault);
    }

    /// The first requests of each kind for an image get this.
    pub fn befall_first(&self, times: usize, fault: &Fault) {
        for kind in OF_AN_IMAGE {
            self.upstream.rule(Rule { times, ..Rule::first(kind, fault.clone()) });
        }
    }

    pub fn leave(&self) {
        self.runtime.block_on(self.upstream.leave());
        self.away.store(true, Ordering::Relaxed);
    }

    /// Where it has left.
    pub fn come_back(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            self.runtime.block_on(self.upstream.come_back());
        }
    }

    /// What was asked for by anybody but those that only ask how to ask.
    pub fn asked(&self) -> Vec<Seen> {
        let seen = self.upstream.seen().into_iter();
        seen.filter(|seen| !matches!(seen.kind, Kind::Ping | Kind::Token) && seen.status != 401).collect()
    }
}

impl Pushed {
    /// How many bytes its blobs have.
    pub fn bytes(&self) -> u64 {
        self.image.blobs().map(|blob| blob.bytes.len() as u64).sum()
    }
}

/// Whether a request came from a node itself, so that no Mirror was between.
pub fn is_node(seen: &Seen) -> bool {
    matches!(seen.from, IpAddr::V4(address) if address.octets()[..3] == [10, 99, 0])
}

fn random(size: usize) -> Vec<u8> {
    use std::io::Read as _;
    let mut bytes = vec![0; size];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}
