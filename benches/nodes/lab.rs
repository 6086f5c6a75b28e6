//! An upstream, a mirror and agents, each a process of its own as it is released but for the upstream, all on loopback. It must never
//! leave a process running or a file behind.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use wharf::plan::{Entry, Owner, OwnerKind, Plan};

use crate::api::Api;
use crate::support::client::Client;
use crate::support::content::Image;
use crate::support::server::{Server, free_address};
use crate::upstream::Upstream;

pub const HOST: &str = "docker.io";
pub const REPOSITORY: &str = "bench/app";
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/dev/wharf/wharf");
/// A bound against hanging, not an expectation.
const PATIENCE: Duration = Duration::from_secs(60);

/// Something that serves images, and how it is spoken to.
pub struct Place {
    pub server: Server,
    address: SocketAddr,
    secure: Option<Arc<ClientConfig>>,
}

impl Place {
    pub fn client(&self) -> Client {
        match &self.secure {
            Some(config) => Client::over_tls(self.address, config.clone()),
            None => Client::new(self.address),
        }
    }
}

/// Gets something of the repository, as a container runtime does.
pub fn get(client: &mut Client, kind: &str, reference: &str, length: usize) {
    let path = format!("/v2/{REPOSITORY}/{kind}/{reference}?ns={HOST}");
    let answer = client.get(&path).unwrap();
    assert_eq!((answer.status, answer.length), (200, length as u64), "{path}");
}

/// A whole image, one object after the other.
pub fn pull(client: &mut Client, tag: &str, image: &Image) {
    get(client, "manifests", tag, image.manifest.bytes.len());
    for blob in &image.blobs {
        get(client, "blobs", &blob.digest, blob.bytes.len());
    }
}

/// A mirror and what believes it.
pub struct Mirror {
    pub place: Place,
    authority: String,
}

impl Mirror {
    pub fn start(folder: &Path, upstream: &Upstream, secure: bool) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let (certificate, key) = (folder.join("mirror.crt"), folder.join("mirror.key"));
        std::fs::write(&certificate, certified.cert.pem()).unwrap();
        std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
        let root = folder.join("root");
        std::fs::create_dir_all(&root).unwrap();
        let address = free_address();
        let mut configuration = json!({
            "root": root,
            "listen": address,
            "mirrors": [{
                "host": HOST,
                "endpoints": [format!("http://{}", upstream.address)],
                "redirectHosts": [upstream.address.ip()],
            }],
            "cache": {"tagMaxAgeSeconds": 600},
        });
        if secure {
            configuration["tls"] = json!({"certificate": certificate, "key": key});
        }
        // What is JSON is YAML too.
        let file = folder.join("mirror.yaml");
        std::fs::write(&file, configuration.to_string()).unwrap();
        let arguments = ["serve", "--config"].map(str::to_owned).into_iter().chain([file.display().to_string()]);
        let arguments: Vec<String> = arguments.collect();
        let server = Server::start("mirror", Path::new(PROGRAM), &arguments, folder, address, secure);
        let authority = certified.cert.pem();
        let secure = secure.then(|| believing(&authority));
        Self { place: Place { server, address, secure }, authority }
    }

    /// The plan by which agents know it.
    pub fn plan(&self) -> Plan {
        let owner =
            Owner { kind: OwnerKind::Mirror, namespace: String::new(), name: "default".into(), uid: "bench".into() };
        let backends = vec![self.place.server.url("").trim_end_matches('/').to_owned()];
        let entry = Entry { backends, owner, nodes: None, since: 1 };
        let hosts = [(HOST.to_owned(), entry)].into();
        Plan { revision: 1, authority: self.authority.clone(), authority_since: 1, hosts }
    }
}

fn believing(certificates: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(certificates.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Starts the agent of a node, and waits until it leads the node's runtime to its endpoint.
pub fn agent(folder: &Path, api: &Api, node: &str, secure: bool) -> Place {
    let folder = folder.join(node);
    let (root, state) = (folder.join("containerd"), folder.join("state"));
    for folder in [&root, &state] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let (kubeconfig, token) = (folder.join("kubeconfig"), folder.join("token"));
    api.kubeconfig(&kubeconfig);
    std::fs::write(&token, "bench").unwrap();
    let (health, address) = (free_address(), free_address());
    let mut arguments = vec![
        format!("KUBECONFIG={}", kubeconfig.display()),
        PROGRAM.to_owned(),
        "agent".to_owned(),
        format!("--node-name={node}"),
        "--namespace=wharf-system".to_owned(),
        format!("--containerd-root={}", root.display()),
        format!("--state-folder={}", state.display()),
        format!("--mirror-token={}", token.display()),
        format!("--local-port={}", address.port()),
        format!("--listen={health}"),
    ];
    if !secure {
        arguments.push("--local-plain-http".to_owned());
    }
    let server = Server::start(node, Path::new("/usr/bin/env"), &arguments, &folder, health, false);
    let hosts = root.join("certs.d").join(HOST);
    let started = Instant::now();
    while !hosts.join("hosts.toml").exists() {
        let log = folder.join(format!("{node}.log"));
        assert!(started.elapsed() < PATIENCE, "no hosts.toml: {}", std::fs::read_to_string(log).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(20));
    }
    let secure = secure.then(|| believing(&std::fs::read_to_string(hosts.join("wharf-node.crt")).unwrap()));
    Place { server, address, secure }
}
