//! An ingress controller in small: nginx on the network of node 1, configured from the Ingresses of one namespace by what their
//! annotations say, as ingress-nginx does, and the address in their status. It must never know more of Wharf than an Ingress
//! tells, and never pass over an annotation that it does not know.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use wharf::oci::{Algorithm, Digest};
use wharf::operator::certificate::{KeyedCertificate, issue, make_authority};

use crate::support::{apply, attempt, checkout, decoded, program};

/// The address of node 1, where nginx listens.
pub const ADDRESS: &str = "10.99.0.11";
/// The address of node 2, where nobody does.
pub const OTHER_ADDRESS: &str = "10.99.0.12";
/// The class of the Ingresses that it serves.
pub const CLASS: &str = "nginx";
const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Its address, its class and the certificates that the administrator trusts are there once in the cluster.
static ONE: Mutex<()> = Mutex::new(());

/// Runs until it is dropped.
pub struct Edge {
    folder: tempfile::TempDir,
    company: KeyedCertificate,
    address: Arc<Mutex<Option<String>>>,
    stop: Arc<AtomicBool>,
    controller: Option<JoinHandle<()>>,
    _one: MutexGuard<'static, ()>,
}

impl Edge {
    /// Starts to serve the Ingresses of a namespace.
    pub fn start(namespace: &str) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        apply(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: {CLASS}}}\nspec: {{controller: \
             k8s.io/ingress-nginx}}\n"
        ));
        let folder = tempfile::tempdir().unwrap();
        let company = make_authority(jiff::Timestamp::now()).unwrap();
        std::fs::write(folder.path().join("company.crt"), &company.certificate).unwrap();
        let address = Arc::new(Mutex::new(Some(ADDRESS.to_owned())));
        let stop = Arc::new(AtomicBool::new(false));
        let controller = Controller {
            namespace: namespace.to_owned(),
            folder: folder.path().to_owned(),
            address: address.clone(),
            configuration: String::new(),
            nginx: None,
        };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || controller.run(&stopped));
        Self { folder, company, address, stop, controller: Some(thread), _one: one }
    }

    /// The certificate of the authority that the clients of the company trust.
    pub fn company(&self) -> String {
        self.folder.path().join("company.crt").display().to_string()
    }

    /// Has Wharf trust that authority.
    pub fn trust_company(&self) {
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "wharf-trusted-certificates", "namespace": "wharf-system"},
            "data": {"ca.crt": self.company.certificate},
        });
        apply(&map.to_string());
    }

    /// A certificate for a host by that authority.
    pub fn certificate(&self, host: &str) -> KeyedCertificate {
        issue(&self.company, &BTreeSet::from([host.to_owned()]), jiff::Timestamp::now()).unwrap()
    }

    /// The address that goes into the status of Ingresses.
    pub fn announce(&self, address: Option<&str>) {
        *self.address.lock().unwrap() = address.map(str::to_owned);
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(controller) = self.controller.take() {
            let failed = controller.join().is_err();
            assert!(!failed || std::thread::panicking(), "the ingress controller failed; see above");
        }
        let _ = attempt("kubectl", &["delete", "ingressclass", CLASS, "--ignore-not-found"], "");
        let map = ["configmap", "wharf-trusted-certificates", "-n", "wharf-system"];
        let _ = attempt("kubectl", &[&["delete", "--ignore-not-found"], &map[..]].concat(), "");
    }
}

struct Controller {
    namespace: String,
    folder: PathBuf,
    address: Arc<Mutex<Option<String>>>,
    configuration: String,
    nginx: Option<Child>,
}

impl Controller {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.round();
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn round(&mut self) {
        let arguments = ["get", "ingresses,services,secrets", "-n", &self.namespace, "-o", "json"];
        // Whatever goes wrong is gone at the next look.
        let Ok(text) = attempt("kubectl", &arguments, "") else { return };
        let found: Value = serde_json::from_str(&text).unwrap();
        let objects = found["items"].as_array().unwrap();
        let ingresses: Vec<&Value> = objects
            .iter()
            .filter(|object| object["kind"] == "Ingress" && object["spec"]["ingressClassName"] == CLASS)
            .collect();
        let servers: Vec<String> =
            ingresses.iter().filter_map(|ingress| server(ingress, objects, &self.folder)).collect();
        self.serve(&servers);
        let address = self.address.lock().unwrap().clone();
        let status: Vec<Value> = address.iter().map(|address| json!({"ip": address})).collect();
        for ingress in ingresses {
            let told = &ingress["status"]["loadBalancer"]["ingress"];
            if told.as_array().map_or(&[][..], Vec::as_slice) != status {
                let patch = json!({"status": {"loadBalancer": {"ingress": status}}}).to_string();
                let name = ingress["metadata"]["name"].as_str().unwrap();
                // It may have been deleted just now.
                let arguments =
                    ["patch", "ingress", name, "-n", &self.namespace, "--subresource=status", "--type=merge"];
                let _ = attempt("kubectl", &[&arguments[..], &["-p", &patch]].concat(), "");
            }
        }
    }

    /// Has nginx serve so.
    fn serve(&mut self, servers: &[String]) {
        let folder = self.folder.display();
        let mut text = format!(
            "user root;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\n\
             access_log off;\n"
        );
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(text, "{kind}_temp_path {folder}/{kind};").unwrap();
        }
        writeln!(text, "{}}}", servers.concat()).unwrap();
        // One that has not written its process id yet would be ended by the signal.
        let starting = self.nginx.is_some() && !self.folder.join("nginx.pid").exists();
        if text == self.configuration || starting {
            return;
        }
        let file = self.folder.join("nginx.conf");
        std::fs::write(&file, &text).unwrap();
        self.configuration = text;
        if let Some(nginx) = &self.nginx {
            let id = rustix::process::Pid::from_child(nginx);
            rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
        } else if !servers.is_empty() {
            let mut command = program("dev/cluster/client");
            command.args(["/usr/sbin/nginx", "-g", "daemon off;", "-c"]).arg(&file).current_dir(checkout());
            self.nginx = Some(command.stdin(Stdio::null()).spawn().unwrap());
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if let Some(mut nginx) = self.nginx.take() {
            let id = rustix::process::Pid::from_child(&nginx);
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
            let _ = nginx.wait();
        }
    }
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

/// A key of a Secret as a file.
fn file(folder: &Path, objects: &[Value], secret: &str, key: &str) -> Option<String> {
    let content = decoded(named(objects, "Secret", secret)?["data"][key].as_str()?);
    // Named by its content, so that another content is another configuration.
    let path = folder.join(Digest::of(Algorithm::Sha256, &content).hex());
    std::fs::write(&path, content).unwrap();
    Some(path.display().to_string())
}

/// What the annotations of an Ingress mean for nginx; `None` while something that it names is not there.
fn server(ingress: &Value, objects: &[Value], folder: &Path) -> Option<String> {
    let rule = &ingress["spec"]["rules"][0];
    let host = rule["host"].as_str().unwrap();
    let path = &rule["http"]["paths"][0];
    let backend = &path["backend"]["service"];
    let service = named(objects, "Service", backend["name"].as_str().unwrap())?;
    let (address, port) = (service["spec"]["clusterIP"].as_str()?, &backend["port"]["number"]);
    let tls = &ingress["spec"]["tls"][0];
    assert_eq!(tls["hosts"], json!([host]));
    let secret = tls["secretName"].as_str()?;
    let (certificate, key) = (file(folder, objects, secret, "tls.crt")?, file(folder, objects, secret, "tls.key")?);

    // What ingress-nginx does where it is told nothing else.
    let (mut protocol, mut limit) = ("http", "1m");
    let mut settings = String::new();
    for (name, value) in ingress["metadata"]["annotations"].as_object().into_iter().flatten() {
        let Some(name) = name.strip_prefix(PREFIX) else { continue };
        let value = value.as_str().unwrap();
        match name {
            "backend-protocol" => protocol = if value == "HTTPS" { "https" } else { "http" },
            "proxy-body-size" => limit = value,
            "proxy-request-buffering"
            | "proxy-buffering"
            | "proxy-ssl-verify"
            | "proxy-ssl-name"
            | "proxy-ssl-server-name" => writeln!(settings, "{} {value};", name.replace('-', "_")).unwrap(),
            "proxy-read-timeout" | "proxy-send-timeout" => {
                writeln!(settings, "{} {value}s;", name.replace('-', "_")).unwrap();
            }
            "proxy-ssl-secret" => {
                let authority = file(folder, objects, value.split_once('/').unwrap().1, "ca.crt")?;
                writeln!(settings, "proxy_ssl_trusted_certificate {authority};").unwrap();
            }
            other => panic!("annotation {other} of an Ingress is not known here"),
        }
    }
    Some(format!(
        "server {{\nlisten {ADDRESS}:443 ssl;\nserver_name {host};\nssl_certificate {certificate};\nssl_certificate_key {key};\n\
         location {} {{\nclient_max_body_size {limit};\n{settings}proxy_http_version 1.1;\nproxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-Proto https;\nproxy_set_header X-Forwarded-For $remote_addr;\n\
         proxy_pass {protocol}://{address}:{port};\n}}\n}}\n",
        path["path"].as_str().unwrap()
    ))
}
