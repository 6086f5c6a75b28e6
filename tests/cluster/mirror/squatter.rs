//! While the agent is away, another process of the node takes its port and answers everything, with images and challenges of
//! its own: no byte of it is used, and no credential reaches it.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::json;

use super::hub::tls;
use super::place::within;
use super::pulls::{Way, forget_everywhere, pull, pull_as};
use super::stage::Stage;
use super::upstream::content::Readers;
use super::upstream::{Access, Front, Upstream};
use crate::processes::kill_agent;
use crate::support::{attempt, eventually, get, run};
use crate::turn::Alone;

const PORT: u16 = 17443;

/// A kubelet that brings nothing back, until this is dropped.
struct Paused;

impl Paused {
    fn new() -> Self {
        run("dev/cluster/kill", &["kubelet1", "STOP"]);
        Self
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let _ = attempt("dev/cluster/kill", &["kubelet1", "CONT"], "");
    }
}

/// Listens where the agent did.
fn squat(with_tls: bool) -> Upstream {
    let bind = |address: SocketAddr| {
        let until = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            match within("node1", || TcpListener::bind(address)) {
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && std::time::Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                result => return result,
            }
        }
    };
    let front = Front {
        bind: Box::new(bind),
        addresses: [SocketAddr::from(([127, 0, 0, 1], PORT)), SocketAddr::from(([127, 0, 0, 1], 0))],
        tls: with_tls.then(tls),
        ..Front::default()
    };
    Upstream::behind(front, Access::Basic)
}

#[test]
#[ignore = "needs cluster"]
fn whoever_takes_the_agents_port_gets_no_request_and_no_credential() {
    let _alone = Alone::new();
    let stage = Stage::new("squatted", &json!({}));
    stage.serves_all_nodes();
    let hub = &stage.hub;
    let public = hub.push("public", &[]);
    let private = hub.push_for("secret", &[], Readers::Only(vec!["alice".to_owned()]));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let paused = Paused::new();
    assert!(kill_agent(1));
    let mut squatter = None;
    // With a certificate that the node believes otherwise, and without any.
    for with_tls in [true, false] {
        drop(squatter.take());
        let theirs = squat(with_tls);
        let evil =
            super::upstream::content::Image::new("amd64", vec![super::upstream::content::archive("evil", b"evil")]);
        for name in ["library/public", "library/secret"] {
            theirs.put(name, evil.is_tagged("1").only_for("alice"));
        }
        for (reference, user) in [(&public.reference, None), (&private.reference, Some("alice:alice-secret"))] {
            let pulled = pull_as(1, Way::Configured, reference, user, 20);
            assert!(pulled.problem.is_none(), "{pulled:?}");
            assert!(pulled.took < Duration::from_secs(2), "{pulled:?}");
        }
        forget_everywhere();
        assert!(theirs.seen().is_empty(), "{:?}", theirs.seen());
        assert!(theirs.problems().is_empty(), "{:?}", theirs.problems());
        squatter = Some(theirs);
    }
    // The agent is back, and says why it cannot be of use.
    drop(paused);
    eventually("the node says that the port is in use", || {
        let runtime = get(&["noderuntime", "node1"])?;
        runtime["status"].to_string().contains("PortInUse").then_some(())
    });
    let pulled = pull(1, Way::Configured, &public.reference, 20);
    assert!(pulled.problem.is_none(), "{pulled:?}");
    assert!(squatter.as_ref().unwrap().seen().is_empty());
    drop(squatter);
    stage.wait_for("NodesConfigured", "True/AllNodes");
    stage.serves_all_nodes();
}
