//! Proofs of fronts, against real engines: what many of them leave behind, and what those do that break off in the middle.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wharf::operator::certificate::{KeyedCertificate, issue, make_authority};
use wharf::operator::front::probe::{Inside, Probe, basic};
use wharf::operator::front::trust::Trust;
use wharf::operator::front::{Front, Way};

use super::process::{Process, free_address};
use super::programs::tool;

const HOST: &str = "images.example.com";
const INSIDE: &str = "team.platform.svc";
/// What the front that breaks off lets through of a connection.
const CUT_AFTER: usize = 1_000_000;

/// A front that hands connections on, and breaks them off when they bring much.
async fn cutting(engine: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(engine).await else { return };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let up = async {
                    let (mut buffer, mut passed) = (vec![0; 16 * 1024], 0);
                    while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                        passed += read;
                        if passed > CUT_AFTER || to_server.write_all(&buffer[..read]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = up => {}
                    _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                }
            });
        }
    });
    address
}

/// The files and folders below a folder.
fn tree(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            found.insert(entry.path().strip_prefix(folder).unwrap().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

/// Proves a front of an engine so many times; the reasons that were given.
async fn prove(
    times: usize,
    front: SocketAddr,
    engine: SocketAddr,
    authority: &KeyedCertificate,
) -> BTreeSet<&'static str> {
    let trust = Trust::new(&authority.certificate, &authority.certificate);
    let front = Front {
        way: Way::Ingress,
        host: HOST.into(),
        port: front.port(),
        addresses: vec![front.ip().to_string()],
        content: String::new(),
    };
    let inside = Inside { address: engine, name: INSIDE.into() };
    let (authorization, mut unsettled, mut reasons) = (basic("wharf", "secret"), None, BTreeSet::new());
    for _ in 0..times {
        let (authorization, front, inside, trust) = (authorization.as_str(), &front, &inside, &trust);
        let outcome = Probe { front, authorization, inside, trust, unsettled }.prove().await;
        unsettled = outcome.unsettled;
        reasons.insert(outcome.verdict.reason);
    }
    // What a broken connection left to be settled later.
    if unsettled.is_some() {
        let (authorization, front, inside, trust) = (authorization.as_str(), &front, &inside, &trust);
        let outcome = Probe { front, authorization, inside, trust, unsettled }.prove().await;
        assert_eq!(outcome.unsettled, None);
    }
    reasons
}

/// An engine with TLS whose certificate is for both names.
struct Engine {
    process: Process,
    authority: KeyedCertificate,
}

/// Starts an engine with the arguments that `command` makes of the files of its certificate and key, and its address.
fn start(folder: &Path, command: impl FnOnce(&Path, &Path, SocketAddr) -> Command) -> Engine {
    let authority = make_authority(jiff::Timestamp::now()).unwrap();
    let names = BTreeSet::from([HOST.to_owned(), INSIDE.to_owned()]);
    let leaf = issue(&authority, &names, jiff::Timestamp::now()).unwrap();
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    std::fs::write(&certificate, leaf.certificate).unwrap();
    std::fs::write(&key, leaf.key).unwrap();
    let address = free_address();
    let process = Process::start(&mut command(&certificate, &key, address), address);
    Engine { process, authority }
}

/// Many proofs leave what one leaves, and those that break off leave no more.
async fn nothing_grows(engine: &Engine, root: &Path) {
    let (address, authority) = (engine.process.address, &engine.authority);
    assert_eq!(prove(1, address, address, authority).await, BTreeSet::from(["Proven"]));
    let after_one = tree(root);
    assert_eq!(prove(20, address, address, authority).await, BTreeSet::from(["Proven"]));
    assert_eq!(tree(root), after_one);
    let front = cutting(address).await;
    assert_eq!(prove(5, front, address, authority).await, BTreeSet::from(["UploadRefused"]));
    assert_eq!(tree(root), after_one);
}

#[tokio::test]
async fn many_proofs_leave_in_wharf_serve_what_one_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let config = folder.path().join("config.yaml");
    let engine = start(folder.path(), |certificate, key, address| {
        let (root, certificate, key) = (root.display(), certificate.display(), key.display());
        let text = format!("root: {root}\nlisten: {address}\ntls: {{certificate: {certificate}, key: {key}}}\n");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(["--log", "warn", "serve", "--config"]).arg(&config);
        command
    });
    nothing_grows(&engine, &root).await;
}

#[tokio::test]
#[ignore = "needs the registry program: dev/test-engines"]
async fn many_proofs_leave_in_distribution_what_one_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let config = folder.path().join("distribution.yaml");
    let engine = start(folder.path(), |certificate, key, address| {
        let (root, certificate, key) = (root.display(), certificate.display(), key.display());
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {root}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: \"{address}\", tls: {{certificate: {certificate}, key: {key}}}}}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(tool("registry"));
        // It tells of every connection that broke off.
        command.arg("serve").arg(&config).stderr(Stdio::null());
        command
    });
    nothing_grows(&engine, &root).await;
}
