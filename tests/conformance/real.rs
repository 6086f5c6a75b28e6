//! A kube-apiserver and an etcd of this test's own, on free ports of this machine, without any controller. They end with it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::{Client, Config};

/// The real server.
pub struct Real {
    pub client: Client,
    processes: Vec<Child>,
    folder: tempfile::TempDir,
}

impl Drop for Real {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start_program(name: &str, log: PathBuf, arguments: &[String]) -> Child {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/dev/bin").join(name);
    let log = std::fs::File::create(log).unwrap();
    Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {} (dev/cluster/tools kubernetes): {error}", program.display()))
}

pub async fn start() -> Real {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = |name: &str| path(name).display().to_string();
    let (etcd, peer, secure) = (free_port(), free_port(), free_port());
    let storage = format!("http://127.0.0.1:{etcd}");
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(path("accounts.key"), key.serialize_pem()).unwrap();
    std::fs::write(path("accounts.pub"), key.public_key_pem()).unwrap();
    std::fs::write(path("tokens.csv"), "secret,admin,admin,system:masters\n").unwrap();
    let etcd_arguments = [
        format!("--data-dir={}", text("etcd")),
        format!("--listen-client-urls={storage}"),
        format!("--advertise-client-urls={storage}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        "--unsafe-no-fsync".to_owned(),
    ];
    let server_arguments = [
        format!("--etcd-servers={storage}"),
        format!("--secure-port={secure}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--cert-dir={}", text("certificates")),
        format!("--token-auth-file={}", text("tokens.csv")),
        "--authorization-mode=AlwaysAllow".to_owned(),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-signing-key-file={}", text("accounts.key")),
        format!("--service-account-key-file={}", text("accounts.pub")),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
    ];
    let processes = vec![
        start_program("etcd", path("etcd.log"), &etcd_arguments),
        start_program("kube-apiserver", path("server.log"), &server_arguments),
    ];
    let mut config = Config::new(format!("https://127.0.0.1:{secure}").parse().unwrap());
    config.accept_invalid_certs = true;
    config.auth_info.token = Some("secret".to_owned().into());
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    let mut real = Real { client, processes, folder };
    for _ in 0..600 {
        let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
        if real.client.request_text(request).await.is_ok_and(|text| text == "ok") {
            return real;
        }
        let ended = real.processes.iter_mut().any(|process| process.try_wait().unwrap().is_some());
        assert!(!ended, "{}", std::fs::read_to_string(real.folder.path().join("server.log")).unwrap());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{}", std::fs::read_to_string(real.folder.path().join("server.log")).unwrap());
}
