//! Mirrors of real registries: CNCF distribution, also with tokens; a CDN behind redirects; and Wharf itself. Run by
//! `dev/test-engines`, which builds or installs the programs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use super::faults::{REPOSITORY, TAG};
use super::pull::{Outcome, Puller};
use super::served::Mirror;
use super::upstream::content::{INDEX, Image, Index};
use crate::client::{Client, IMAGE};
use crate::engines::{distribution, distribution_with};
use crate::process::{Process, free_address};
use crate::programs::tool;

const SIZES: [usize; 2] = [20_000, 3_000_000];

/// Pushes an index with all that it names.
async fn push(client: &Client, index: &Index) {
    for image in &index.images {
        for blob in image.blobs() {
            assert_eq!(client.push_blob(REPOSITORY, &blob.bytes).await.unwrap().status, 201);
        }
        put(client, &image.manifest.digest, IMAGE, &image.manifest.bytes).await;
    }
    put(client, TAG, INDEX, &index.manifest.bytes).await;
}

async fn put(client: &Client, reference: &str, media_type: &str, bytes: &bytes::Bytes) {
    let target = format!("/v2/{REPOSITORY}/manifests/{reference}");
    let answer = client.send(http::Method::PUT, &target, &[("content-type", media_type)], bytes.clone()).await;
    assert_eq!(answer.unwrap().status, 201);
}

fn mirror_of(address: SocketAddr, more: &str) -> Mirror {
    Mirror::start(&format!("- {{host: one.example, endpoints: [\"http://{address}\"]{more}}}\n"), "")
}

/// Both platforms, for clients of both kinds, cold and from what is kept.
async fn pulls_well(mirror: &Mirror, puller: &Puller, index: &Index) {
    for puller in [puller.clone(), puller.clone().podman()] {
        for platform in 0..2 {
            let outcome = puller.pull(REPOSITORY, TAG, index, platform).await;
            assert_eq!(outcome, Outcome::Right, "{}", mirror.log());
        }
    }
}

#[tokio::test]
#[ignore = "needs the registry program: dev/test-engines"]
async fn distribution_is_mirrored() {
    let (folder, index) = (tempfile::tempdir().unwrap(), Index::of_seed(1, &SIZES));
    let (registry, _) = distribution(folder.path(), &folder.path().join("registry"));
    push(&registry.client(), &index).await;
    let mirror = mirror_of(registry.address, "");
    let puller = mirror.puller();
    pulls_well(&mirror, &puller, &index).await;
    let layer = &index.images[0].layers[1];
    assert_eq!(puller.part(REPOSITORY, layer, 1_000_000, None).await, Outcome::Right);
    let tags = puller.get(&format!("{REPOSITORY}/tags/list")).await;
    let tags: serde_json::Value = serde_json::from_slice(&tags.bytes).unwrap();
    assert_eq!(tags["tags"], json!([TAG]));
    registry.stop();
    assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
}

/// Gives tokens for a registry, to anybody for `library/…`, and for everything to alice.
struct TokenServer {
    address: SocketAddr,
    certificate: String,
}

const ISSUER: &str = "the issuer";
const SERVICE: &str = "the registry";

impl TokenServer {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["issuer.example".to_owned()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let key = ring::signature::EcdsaKeyPair::from_pkcs8(
            &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &made.signing_key.serialize_der(),
            &ring::rand::SystemRandom::new(),
        );
        let (key, chain) = (Arc::new(key.unwrap()), STANDARD.encode(made.cert.der()));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (key, chain) = (key.clone(), chain.clone());
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let query = request.uri().query().unwrap_or_default().to_owned();
                    let alice = format!("Basic {}", STANDARD.encode("alice:alice-secret"));
                    let knows = request.headers().get("authorization").is_some_and(|value| *value == *alice);
                    let body = json!({"token": sign(&key, &chain, &query, knows), "expires_in": 300}).to_string();
                    async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(bytes::Bytes::from(body)))) }
                });
                let serving = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move { serving.serve_connection(TokioIo::new(stream), service).await });
            }
        });
        Self { address, certificate: made.cert.pem() }
    }
}

/// A token for the repository of a query, as far as its user may read it.
fn sign(key: &ring::signature::EcdsaKeyPair, chain: &str, query: &str, all: bool) -> String {
    let query = query.replace("%3A", ":").replace("%2F", "/");
    let scope = query.split('&').find_map(|pair| pair.strip_prefix("scope=repository:")).unwrap();
    let (name, _) = scope.split_once(':').unwrap();
    let actions: &[&str] = if all || name.starts_with("library/") { &["pull"] } else { &[] };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": "", "iat": now, "nbf": now - 10, "exp": now + 300, "jti": "1",
        "access": [{"type": "repository", "name": name, "actions": actions}],
    });
    let head = json!({"alg": "ES256", "typ": "JWT", "x5c": [chain]});
    let text = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = key.sign(&ring::rand::SystemRandom::new(), text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the registry program: dev/test-engines"]
async fn distribution_is_mirrored_by_tokens() {
    let (folder, index) = (tempfile::tempdir().unwrap(), Index::of_seed(2, &SIZES));
    let (open, _) = distribution(folder.path(), &folder.path().join("registry"));
    push(&open.client(), &index).await;
    open.stop();
    // Where a private repository has the same.
    let blobs: Vec<&[u8]> = index.images[0].blobs().map(|blob| &blob.bytes[..]).collect();
    let (open, _) = distribution(folder.path(), &folder.path().join("registry"));
    open.client().push_image("private/app", TAG, &blobs).await;
    open.stop();

    let tokens = TokenServer::start().await;
    let bundle = folder.path().join("bundle.pem");
    std::fs::write(&bundle, &tokens.certificate).unwrap();
    let realm = format!("http://{}/token", tokens.address);
    let auth = format!(
        "auth:\n  token: {{realm: \"{realm}\", service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {}}}\n",
        bundle.display()
    );
    let (registry, _) = distribution_with(folder.path(), &folder.path().join("registry"), &auth);
    let mirror = mirror_of(registry.address, &format!(", tokenRealms: [\"{}\"]", tokens.address));
    let puller = mirror.puller();
    pulls_well(&mirror, &puller, &index).await;
    let private = format!("private/app/blobs/{}", index.images[0].layers[0].digest);
    let alice = puller.clone().with("alice");
    assert_eq!(alice.get(&private).await.status, 200, "{}", mirror.log());
    for stranger in [puller.clone(), puller.with("bob")] {
        assert!(matches!(stranger.get(&private).await.status.as_u16(), 401 | 403 | 404));
    }
}

/// nginx in front of a registry, sending clients to another of its servers for blobs, as registries with a CDN do.
fn content_network(folder: &Path, registry: SocketAddr, root: &Path) -> (Process, SocketAddr) {
    let [front, network] = [free_address(), free_address()];
    let config = folder.join("nginx.conf");
    let at = folder.display();
    let text = format!(
        "daemon off;\nuser root;\npid {at}/nginx.pid;\nerror_log {at}/nginx.log;\nevents {{}}\nhttp {{\n\
         access_log off;\nclient_body_temp_path {at}/body;\nproxy_temp_path {at}/proxy;\n\
         fastcgi_temp_path {at}/fastcgi;\nuwsgi_temp_path {at}/uwsgi;\nscgi_temp_path {at}/scgi;\n\
         server {{\n  listen {front};\n  location / {{ proxy_pass http://{registry}; proxy_set_header Host $http_host; }}\n\
         location ~ ^/v2/.*/blobs/sha256:(..)(.*)$ {{\n\
         return 307 http://{network}/docker/registry/v2/blobs/sha256/$1/$1$2/data?signature=x;\n  }}\n}}\n\
         server {{\n  listen {network};\n  root {};\n  if ($http_authorization) {{ return 400; }}\n}}\n}}\n",
        root.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("/usr/sbin/nginx");
    (Process::start(command.arg("-p").arg(folder).arg("-c").arg(&config), front), network)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the registry program and nginx: dev/test-engines"]
async fn a_registry_with_a_content_network_is_mirrored() {
    let (folder, index) = (tempfile::tempdir().unwrap(), Index::of_seed(3, &SIZES));
    let root = folder.path().join("registry");
    let (registry, _) = distribution(folder.path(), &root);
    push(&registry.client(), &index).await;
    let (front, network) = content_network(folder.path(), registry.address, &root);
    let mirror = mirror_of(front.address, &format!(", redirectHosts: [\"{}\"]", network.ip()));
    let puller = mirror.puller();
    pulls_well(&mirror, &puller, &index).await;
    front.stop();
    assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the conformance program: dev/test-engines"]
async fn the_conformance_program_reads_from_a_mirror() {
    let (folder, index) = (tempfile::tempdir().unwrap(), Index::of_seed(4, &SIZES));
    let origin = Process::serve(&folder.path().join("origin"));
    push(&origin.client(), &index).await;
    let mirror = mirror_of(origin.address, "");
    let blobs: Vec<_> = index.images.iter().flat_map(Image::blobs).map(|blob| blob.digest.clone()).collect();
    let manifests: Vec<_> = index.images.iter().map(|image| image.manifest.digest.clone()).collect();
    let mut command = Command::new(tool("conformance"));
    command.current_dir(folder.path()).env("OCI_RESULTS_DIR", folder.path());
    for (name, value) in [
        ("OCI_VERSION", "dev"),
        ("OCI_REGISTRY", &mirror.address.to_string()),
        ("OCI_REPO1", &format!("one.example/{REPOSITORY}")),
        ("OCI_TLS", "disabled"),
        ("OCI_API_PUSH", "false"),
        ("OCI_API_BLOBS_DELETE", "false"),
        ("OCI_API_MANIFESTS_DELETE", "false"),
        ("OCI_API_TAGS_DELETE", "false"),
        // In this form the program looks at no header of a manifest's, and would miss the digest's.
        ("OCI_API_MANIFESTS_DIGEST_HEADER", "false"),
        ("OCI_API_BLOBS_DIGEST_HEADER", "true"),
        ("OCI_RO_DATA_TAGS", TAG),
        ("OCI_RO_DATA_MANIFESTS", &manifests.join(" ")),
        ("OCI_RO_DATA_BLOBS", &blobs.join(" ")),
        ("OCI_RO_DATA_REFERRERS", &index.manifest.digest),
    ] {
        command.env(name, value);
    }
    // It fails to write its report in this form, after it has printed all of it.
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let count = |verdict: &str| {
        let checks = text.lines().filter(|line| line.trim_start().starts_with("OCI Conformance Test/"));
        checks.filter(|line| line.ends_with(verdict)).count()
    };
    let [passed, failed, broken, skipped] = [": Pass", ": FAIL", ": Error", ": Skip"].map(count);
    println!("{passed} passed, {failed} failed, {broken} broken, {skipped} skipped");
    assert!(passed > 20 && failed + broken + skipped == 0, "{text}");
}
