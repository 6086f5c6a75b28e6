//! What the tests do as a user would: run a program, wait until something holds, make a namespace and clean it up.
//! It must never hide a failure: every program's output is in the panic.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::turn::Turn;

/// How long anything may take before a test gives up, 120 s or `WHARF_TEST_PATIENCE` seconds. It is a bound against
/// hanging, not an expectation.
fn patience() -> Duration {
    let seconds = std::env::var("WHARF_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(120))
}

pub fn checkout() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn program(name: &str) -> Command {
    let tools = checkout().join("target/dev/bin");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(if tools.join(name).exists() { tools.join(name) } else { name.into() });
    command.env("PATH", path).env("KUBECONFIG", checkout().join("target/cluster/kubeconfig"));
    command
}

/// How a program ended: its standard output, or everything it said.
pub type Outcome = Result<String, String>;

/// Runs a program with an input and gives back how it ended.
pub fn attempt(name: &str, arguments: &[&str], input: &str) -> Outcome {
    let mut child = program(name)
        .args(arguments)
        .current_dir(checkout())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs a program that must succeed.
pub fn run(name: &str, arguments: &[&str]) -> String {
    attempt(name, arguments, "").unwrap_or_else(|said| panic!("{name} {}:\n{said}", arguments.join(" ")))
}

pub fn kubectl(arguments: &[&str]) -> String {
    run("kubectl", arguments)
}

pub fn apply(yaml: &str) {
    attempt("kubectl", &["apply", "-f", "-"], yaml).unwrap_or_else(|said| panic!("{said}\n{yaml}"));
}

/// Says something in every run, also of a test that passes, whose output is dropped.
pub fn announce(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// What the API server says to an object it must refuse.
pub fn refusal(yaml: &str) -> String {
    match attempt("kubectl", &["apply", "--dry-run=server", "-f", "-"], yaml) {
        Ok(said) => panic!("accepted: {said}\n{yaml}"),
        Err(said) => said,
    }
}

/// The object as JSON; `None` while it does not exist.
pub fn get(arguments: &[&str]) -> Option<Value> {
    let all = [&["get", "-o", "json"], arguments].concat();
    match attempt("kubectl", &all, "") {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(said) if said.contains("NotFound") => None,
        Err(said) => panic!("kubectl {}:\n{said}", all.join(" ")),
    }
}

/// Waits until `check` gives a value; on failure the panic shows what the cluster looks like.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(started.elapsed() < patience(), "not within {} s: {what}\n{}", patience().as_secs(), picture());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The state of the cluster, for the reader of a failure.
fn picture() -> String {
    let mut text = String::new();
    for arguments in [
        &["get", "registries,mirrors,noderuntimes", "-A", "-o", "wide"][..],
        &["get", "pods,pvc", "-A", "-o", "wide"],
        &["get", "events", "-A", "--sort-by=.lastTimestamp"],
        &["logs", "-n", "wharf-system", "deployment/wharf-operator", "--tail=40"],
    ] {
        let said = attempt("kubectl", arguments, "").unwrap_or_else(|said| said);
        let tail: Vec<&str> = said.lines().rev().take(40).collect();
        writeln!(text, "$ kubectl {}", arguments.join(" ")).unwrap();
        tail.iter().rev().for_each(|line| writeln!(text, "  {line}").unwrap());
    }
    text
}

/// `status/reason` of a condition.
pub fn condition(registry: &Value, kind: &str) -> Option<String> {
    let conditions = registry.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    Some(format!("{}/{}", found["status"].as_str()?, found["reason"].as_str()?))
}

/// A namespace of the test's own, deleted at the end, and the turn that the test has on the cluster.
pub struct Namespace {
    pub name: String,
    _turn: Arc<Turn>,
}

impl Namespace {
    pub fn new(name: &str) -> Self {
        let turn = Turn::of_this_test();
        let name = format!("test-{name}");
        // A run that was killed may have left one.
        run("kubectl", &["delete", "namespace", &name, "--ignore-not-found", "--wait=true", "--timeout=120s"]);
        kubectl(&["create", "namespace", &name]);
        Self { name, _turn: turn }
    }

    /// Applies a Registry of this namespace.
    pub fn registry(&self, name: &str, spec: &str) {
        apply(&format!(
            "apiVersion: wharf.dev/v1alpha1\nkind: Registry\nmetadata: {{name: {name}, namespace: {}}}\nspec: {spec}\n",
            self.name
        ));
    }

    /// Waits until a condition of a Registry is `status/reason`.
    pub fn wait_for(&self, registry: &str, kind: &str, expected: &str) -> Value {
        eventually(&format!("Registry {}/{registry}: {kind}={expected}", self.name), || {
            let object = get(&["registry", registry, "-n", &self.name])?;
            (condition(&object, kind).as_deref() == Some(expected)).then_some(object)
        })
    }

    /// A Registry that serves and that every node can pull from.
    pub fn ready_registry(&self, name: &str, spec: &str) -> Value {
        self.registry(name, spec);
        self.wait_for(name, "Ready", "True/Ready");
        self.wait_for(name, "NodesConfigured", "True/AllNodes")
    }

    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        get(&[kind, name, "-n", &self.name])
    }

    /// Deletes an object and waits until it is gone.
    pub fn delete(&self, kind: &str, name: &str) {
        kubectl(&["delete", kind, name, "-n", &self.name, "--wait=true", "--timeout=120s"]);
    }

    /// Runs a pod from `image` on a node, by the default service account, until it runs.
    pub fn pod(&self, name: &str, image: &str, node: &str) {
        apply(&pod_manifest(&self.name, name, image, node));
        eventually(&format!("pod {name} runs {image} on {node}"), || {
            let pod = self.get("pod", name)?;
            (pod.pointer("/status/phase")? == "Running").then_some(())
        });
    }
}

pub fn pod_manifest(namespace: &str, name: &str, image: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    image: {image}\n    imagePullPolicy: Always\n    \
         command: [/bin/sleep, \"3600\"]\n"
    )
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A Registry that was left would change what later tests see; the picture of a failure was printed before.
        let _ = attempt("kubectl", &["delete", "namespace", &self.name, "--wait=false"], "");
    }
}

/// The operator's pod that leads. The lease may name a pod of before for a while; that one does not count.
pub fn leader() -> String {
    eventually("a pod that is there leads", || {
        let lease = get(&["lease", "wharf-operator", "-n", "wharf-system"])?;
        let name = lease["spec"]["holderIdentity"].as_str().filter(|name| !name.is_empty())?.to_owned();
        get(&["pod", &name, "-n", "wharf-system"]).map(|_| name)
    })
}

/// Installs Wharf from the charts, as a user does.
pub fn helm_install() {
    run("dev/install-charts", &[]);
}

pub fn helm_uninstall() {
    run("helm", &["uninstall", "wharf", "-n", "wharf-system", "--wait", "--timeout=120s"]);
    eventually("the agents are gone", || {
        let pods = get(&["pods", "-n", "wharf-system"])?;
        pods["items"].as_array()?.is_empty().then_some(())
    });
}

/// Runs a program where the cluster's Services and DNS are reachable.
pub fn client(arguments: &[&str]) -> Outcome {
    attempt("dev/cluster/client", arguments, "")
}

/// Runs a program on a node.
pub fn on_node(node: u8, arguments: &[&str]) -> String {
    run("dev/cluster/node", &[&[node.to_string().as_str()], arguments].concat())
}

/// The archive of an image that runs `sleep` and `cat`.
pub fn archive() -> String {
    format!("oci-archive:{}", checkout().join("target/dev/images/wharf.test-app-1.tar").display())
}

/// Credentials and authority of a Registry in a folder, in the forms that clients read.
pub struct Login {
    folder: tempfile::TempDir,
    registry: String,
    pub address: String,
}

impl Login {
    pub fn new(namespace: &Namespace, registry: &str) -> Self {
        Self::read(&namespace.name, registry).expect("there are a pull secret and an authority")
    }

    /// What is published of a Registry; `None` while it is not.
    pub fn read(namespace: &str, registry: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let secret = get(&["secret", &format!("{registry}-pull"), "-n", namespace])?;
        let encoded = secret.pointer("/data/.dockerconfigjson").and_then(Value::as_str)?;
        std::fs::write(folder.path().join("config.json"), decoded(encoded)).unwrap();
        let config_map = get(&["configmap", &format!("{registry}-ca"), "-n", namespace])?;
        std::fs::write(folder.path().join("ca.crt"), config_map["data"]["ca.crt"].as_str()?).unwrap();
        Some(Self { folder, registry: registry.to_owned(), address: format!("{registry}.{namespace}.svc") })
    }

    /// Reads the published certificates, as a client does from time to time.
    pub fn read_authority(&self, namespace: &Namespace) {
        let config_map = namespace.get("configmap", &format!("{}-ca", self.registry)).expect("there is an authority");
        // Whoever reads the file meanwhile sees the old one or the new one.
        let (file, new) = (self.folder.path().join("ca.crt"), self.folder.path().join("ca.new"));
        std::fs::write(&new, config_map["data"]["ca.crt"].as_str().unwrap()).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn reference(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// Pushes the test image with skopeo.
    pub fn push(&self, image: &str) {
        let target = format!("docker://{}", self.reference(image));
        let arguments = [
            "skopeo",
            "copy",
            "--quiet",
            "--authfile",
            &self.path("config.json"),
            "--dest-cert-dir",
            &self.path(""),
            &archive(),
            &target,
        ];
        client(&arguments).unwrap_or_else(|said| panic!("skopeo cannot push {target}:\n{said}"));
    }

    /// The digest of an image in the registry, by skopeo.
    pub fn digest(&self, image: &str) -> Outcome {
        let source = format!("docker://{}", self.reference(image));
        let arguments = [
            "skopeo",
            "inspect",
            "--format",
            "{{.Digest}}",
            "--authfile",
            &self.path("config.json"),
            "--cert-dir",
            &self.path(""),
            &source,
        ];
        client(&arguments).map(|text| text.trim().to_owned())
    }

    /// Runs crane with this login.
    pub fn crane(&self, arguments: &[&str]) -> Outcome {
        self.with_settings(&[&["crane"], arguments].concat())
    }

    /// Runs crane with this login for some seconds at most.
    pub fn crane_within(&self, seconds: u32, arguments: &[&str]) -> Outcome {
        self.with_settings(&[&["timeout", &seconds.to_string(), "crane"], arguments].concat())
    }

    /// Runs a script that calls crane with this login, in a folder of its own.
    pub fn shell(&self, script: &str) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("cd {}\n{script}", folder.path().display());
        self.with_settings(&["bash", "-c", &script])
    }

    fn with_settings(&self, arguments: &[&str]) -> Outcome {
        let settings = [
            "env".to_owned(),
            format!("DOCKER_CONFIG={}", self.folder.path().display()),
            format!("SSL_CERT_FILE={}", self.path("ca.crt")),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        client(&[settings.as_slice(), arguments].concat())
    }
}

pub fn decoded(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// Every file below a folder of a node with its mode and content's digest, one a line.
pub fn tree(node: u8, folder: &str) -> String {
    let script =
        format!("cd {folder} && find . -printf '%P %y %m %U:%G\\n' | sort; find . -type f | sort | xargs -r sha256sum");
    on_node(node, &["sh", "-c", &script])
}
