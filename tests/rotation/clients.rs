//! What stands outside the operator: engines, one of which reads its certificate only when its pod starts; clients, which trust
//! what they read some time ago; nodes, which apply the plan late. A handshake is a real one, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use serde_json::{Value, json};

use crate::apiserver::Server;
use crate::world::{Process, everybody_else, now, set_now};

pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a server shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub certificate: String,
    key: String,
}

#[derive(Debug)]
struct Clock(Timestamp);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.as_second().try_into().unwrap())))
    }
}

/// Whether a client that trusts `bundle` gets through to a server.
pub fn handshake(bundle: &str, shown: &Shown, name: &str, time: Timestamp) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_details(provider.clone(), Arc::new(Clock(time)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let chain = vec![CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut sent = Vec::new();
        client.write_tls(&mut sent).unwrap();
        server.read_tls(&mut Cursor::new(sent)).unwrap();
        server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        let mut sent = Vec::new();
        server.write_tls(&mut sent).unwrap();
        client.read_tls(&mut Cursor::new(sent)).unwrap();
        client.process_new_packets().map_err(|error| format!("client: {error}"))?;
    }
    Ok(())
}

/// A text in a Secret.
pub fn secret_text(secret: &Value, key: &str) -> String {
    let encoded = secret["data"][key].as_str().unwrap_or_default();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).unwrap()).unwrap()
}

pub fn authority(server: &Server) -> Value {
    server.get("Secret", "wharf-system", "wharf-authority").expect("there is an authority")
}

/// Asks for a rotation, as a person does.
pub fn ask_for_rotation(server: &Server) {
    server.set("Secret", "wharf-system", "wharf-authority", |secret| {
        secret["metadata"]["annotations"]["wharf.dev/rotate"] = json!("");
    });
}

/// The step of the rotation, empty at rest.
pub fn step(server: &Server) -> String {
    let annotation = authority(server)["metadata"]["annotations"]["wharf.dev/rotation"].clone();
    annotation.as_str().and_then(|text| text.split(' ').next()).unwrap_or_default().to_owned()
}

/// Everybody's habits.
#[derive(Clone, Copy)]
pub struct Habits {
    /// For how long a client goes on with the certificates that it read.
    pub reads_every: Duration,
    /// How late the node `b` applies the plan.
    pub node_late: Duration,
    /// How late a pod with a new certificate starts, or the one that runs takes it up; the old one is shown until then.
    pub pod_late: Duration,
}

pub const PROMPT: Habits = Habits { reads_every: DAY, node_late: Duration::ZERO, pod_late: Duration::ZERO };

/// A cluster's servers and clients.
pub struct Outside {
    habits: Habits,
    /// By registry: what its pod shows, and what it will show from when on.
    pods: BTreeMap<String, (Shown, VecDeque<(Timestamp, Shown)>)>,
    /// By registry: the content of its pod's template.
    contents: BTreeMap<String, String>,
    /// By registry: the published certificates, and when they were seen first.
    published: BTreeMap<String, Vec<(Timestamp, String)>>,
    /// Revision and certificates of the plan, and when they were seen first.
    plans: Vec<(Timestamp, i64, String)>,
    /// How many pods started, by registry.
    pub starts: BTreeMap<String, usize>,
}

impl Outside {
    pub fn new(habits: Habits) -> Self {
        let (pods, contents, published, starts) = Default::default();
        Self { habits, pods, contents, published, plans: Vec::new(), starts }
    }

    /// Everybody does what is due at this time, and every client calls every server.
    pub fn act(&mut self, server: &Server) {
        everybody_else(server);
        self.start_pods(server);
        self.read(server);
        self.call_all();
        self.check_signer(server);
    }

    /// Whether a pod still shows another certificate than its Secret holds.
    pub fn is_moving(&self) -> bool {
        self.pods.values().any(|(_, coming)| !coming.is_empty())
    }

    fn start_pods(&mut self, server: &Server) {
        for secret in server.list("Secret") {
            let Some(registry) = secret["metadata"]["name"].as_str().unwrap().strip_suffix("-registry-tls") else {
                continue;
            };
            let Some(deployment) = server.get("Deployment", "platform", &format!("{registry}-registry")) else {
                continue;
            };
            let shown = Shown { certificate: secret_text(&secret, "tls.crt"), key: secret_text(&secret, "tls.key") };
            let content = deployment["spec"]["template"]["metadata"]["annotations"]["wharf.dev/content"].to_string();
            let (present, coming) =
                self.pods.entry(registry.to_owned()).or_insert_with(|| (shown.clone(), VecDeque::new()));
            let latest = coming.back().map_or(&*present, |(_, shown)| shown);
            if *latest != shown {
                coming.push_back((now() + self.habits.pod_late, shown));
            }
            if self.contents.insert(registry.to_owned(), content.clone()).is_some_and(|before| before != content) {
                *self.starts.entry(registry.to_owned()).or_default() += 1;
            }
            while coming.front().is_some_and(|(time, _)| *time <= now()) {
                *present = coming.pop_front().unwrap().1;
            }
        }
    }

    fn read(&mut self, server: &Server) {
        for config_map in server.list("ConfigMap") {
            let name = config_map["metadata"]["name"].as_str().unwrap();
            if let Some(registry) = name.strip_suffix("-ca") {
                let bundle = config_map["data"]["ca.crt"].as_str().unwrap().to_owned();
                let seen = self.published.entry(registry.to_owned()).or_default();
                if seen.last().is_none_or(|(_, last)| *last != bundle) {
                    seen.push((now(), bundle));
                }
            }
        }
        let Some(index) = server.get("ConfigMap", "wharf-nodes", "wharf-node-plan") else { return };
        let index: Value = serde_json::from_str(index["data"]["index.json"].as_str().unwrap()).unwrap();
        let (revision, bundle) = (index["revision"].as_i64().unwrap(), index["authority"].as_str().unwrap());
        if self.plans.last().is_none_or(|(_, last, _)| *last != revision) {
            self.plans.push((now(), revision, bundle.to_owned()));
        }
        let late = self.habits.node_late;
        if late > Duration::ZERO && server.get("NodeRuntime", "", "b").is_some() {
            let (_, revision, _) = as_of(&self.plans, now() - late, |(time, ..)| *time);
            server.set("NodeRuntime", "", "b", |runtime| runtime["status"]["planRevision"] = json!(revision));
        }
    }

    fn call_all(&self) {
        for (registry, (shown, _)) in &self.pods {
            let name = format!("{registry}.platform.svc");
            let oldest = now() - self.habits.reads_every;
            // Whatever a client may have read last within its habit, the oldest first.
            let seen = &self.published[registry];
            let first = seen.iter().rposition(|(time, _)| *time <= oldest).unwrap_or(0);
            for (time, bundle) in &seen[first..] {
                handshake(bundle, shown, &name, now())
                    .unwrap_or_else(|error| panic!("{}: a client that read {registry}'s at {time}: {error}", now()));
            }
            if let Some(first) = self.plans.first()
                && first.0 <= now()
            {
                let (time, _, bundle) = as_of(&self.plans, now() - self.habits.node_late, |(time, ..)| *time);
                handshake(bundle, shown, &name, now())
                    .unwrap_or_else(|error| panic!("{}: a node with the plan of {time}: {error}", now()));
            }
        }
    }

    /// Who signs is in every published bundle.
    fn check_signer(&self, server: &Server) {
        let signer = secret_text(&authority(server), "tls.crt");
        for (registry, seen) in &self.published {
            let (_, bundle) = seen.last().unwrap();
            assert!(bundle.contains(signer.trim()), "{}: {registry}'s bundle lacks the signer", now());
        }
    }

    /// All certificates that were ever published.
    pub fn ever_published(&self) -> std::collections::BTreeSet<String> {
        let texts = self.published.values().flatten().map(|(_, bundle)| bundle);
        texts
            .flat_map(|bundle| bundle.split_inclusive("-----END CERTIFICATE-----").map(|text| text.trim().to_owned()))
            .filter(|text| !text.is_empty())
            .collect()
    }
}

/// The last entry that was seen by then, or the first of all.
fn as_of<T>(entries: &[T], time: Timestamp, time_of: impl Fn(&T) -> Timestamp) -> &T {
    entries.iter().rfind(|entry| time_of(entry) <= time).unwrap_or(&entries[0])
}

/// One step of time for the operator and everybody else.
pub async fn live(server: &Server, process: &Process, outside: &mut Outside, step: Duration) {
    set_now(now() + step);
    process.round().await;
    outside.act(server);
}
