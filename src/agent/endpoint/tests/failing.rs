//! Servers that fail before they have answered: the runtime is told at once, or has the answer of another server.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::scripted::{Node, Server, Step, alive, answer};

const BLOB: &str =
    "/v2/library/x/blobs/sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa?ns=docker.io";

/// The status, and how long it took.
async fn timed(node: &Node) -> (u16, Duration) {
    let began = Instant::now();
    let status = node.get(BLOB, &[]).await.status().as_u16();
    (status, began.elapsed())
}

#[tokio::test]
async fn what_a_server_answers_is_passed_on_but_for_what_a_runtime_would_repeat() {
    for (status, headers, expected) in [
        (200, &[][..], 200),
        (401, &[("www-authenticate", "Basic")], 401),
        (403, &[], 403),
        (403, &[("wharf-refused", "agent-token")], 503),
        (404, &[], 404),
        (416, &[], 416),
        (429, &[("retry-after", "60")], 503),
        (500, &[], 503),
        (502, &[], 503),
        (503, &[("retry-after", "60")], 503),
    ] {
        let server = Server::start(move |head| alive(head).unwrap_or_else(|| answer(status, headers, b"{}"))).await;
        let node = Node::before(&[&server]).await;
        assert_eq!(timed(&node).await.0, expected, "{status}");
        // None of it means that the server is away.
        assert_eq!(timed(&node).await.0, expected, "{status}");
        assert_eq!(server.asked().len(), 2, "{status}");
    }
}

#[tokio::test]
async fn a_replica_that_fails_is_replaced_by_another() {
    for failing in [429, 500, 504] {
        let bad = Server::start(move |head| alive(head).unwrap_or_else(|| answer(failing, &[], b""))).await;
        let good = Server::start(|head| alive(head).unwrap_or_else(|| answer(200, &[], b"good"))).await;
        let node = Node::before(&[&bad, &good]).await;
        let found = node.get(BLOB, &[]).await;
        assert_eq!((found.status().as_u16(), found.text().await.unwrap().as_str()), (200, "good"), "{failing}");
    }
}

#[tokio::test]
async fn a_port_that_is_refused_costs_nothing_and_a_server_that_returns_is_asked_again() {
    let gone = Server::start(|_| Vec::new()).await;
    gone.stop();
    let node = Node::before(&[&gone]).await;
    // Until the listener is really closed.
    while tokio::net::TcpStream::connect(gone.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..3 {
        let (status, time) = timed(&node).await;
        assert!(status == 503 && time < Duration::from_millis(1200), "{status} {time:?}");
    }
    let _back = Server::at(gone.address, |head| alive(head).unwrap_or_else(|| answer(200, &[], b""))).await;
    let began = Instant::now();
    while timed(&node).await.0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_found_out_once() {
    let frozen = Server::start(|_| vec![Step::Silence]).await;
    let node = Node::before(&[&frozen]).await;
    let (status, time) = timed(&node).await;
    assert!(status == 503 && time < Duration::from_secs(8), "{status} {time:?}");
    let (status, time) = timed(&node).await;
    assert!(status == 503 && time < Duration::from_millis(1200), "{status} {time:?}");
    let good = Server::start(|head| alive(head).unwrap_or_else(|| answer(200, &[], b""))).await;
    let node = Node::before(&[&frozen, &good]).await;
    let (status, time) = timed(&node).await;
    assert!(status == 200 && time < Duration::from_secs(8), "{status} {time:?}");
}

#[tokio::test]
async fn a_server_that_is_slow_and_alive_is_waited_for() {
    let slow = Server::start(|head| {
        alive(head).unwrap_or_else(|| [vec![Step::Wait(3000)], answer(200, &[], b"late")].concat())
    })
    .await;
    let node = Node::before(&[&slow]).await;
    let (status, time) = timed(&node).await;
    assert!(status == 200 && time >= Duration::from_millis(2900), "{status} {time:?}");
    assert_eq!(slow.asked().len(), 1);
}

#[tokio::test]
async fn a_server_that_ends_without_an_answer_is_no_server() {
    let server = Server::start(|_| vec![Step::Cut]).await;
    let node = Node::before(&[&server]).await;
    let found = node.get(BLOB, &[]).await;
    assert_eq!((found.status().as_u16(), found.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    let text = found.text().await.unwrap();
    assert!(text.contains("docker.io cannot be had here now") && text.contains(&server.url()), "{text}");
}

#[tokio::test]
async fn a_client_that_has_a_manifest_and_cannot_go_elsewhere_waits_for_a_server_to_come_back() {
    let script = |head: &str| alive(head).unwrap_or_else(|| answer(200, &[], b"x"));
    let server = Server::start(script).await;
    let node = Node::before(&[&server]).await;
    let blob = BLOB.split('?').next().unwrap().replace("/v2/", "/v2/docker.io/");
    assert_eq!(node.get("/v2/docker.io/library/x/manifests/1", &[]).await.status(), 200);
    server.kill().await;
    let address = server.address;
    let returning = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Server::at(address, script).await
    });
    let began = Instant::now();
    let waiting = node.get(&blob, &[]);
    let elsewhere = async {
        // Who has no manifest of that repository, or names the registry in the query, can go elsewhere.
        for path in [&blob.replace("/x/", "/y/"), BLOB] {
            let asked = Instant::now();
            assert_eq!(node.get(path, &[]).await.status(), 503, "{path}");
            assert!(asked.elapsed() < Duration::from_secs(4), "{path}");
        }
    };
    let (found, ()) = tokio::join!(waiting, elsewhere);
    assert_eq!(found.status(), 200);
    assert!(began.elapsed() >= Duration::from_millis(1400), "{:?}", began.elapsed());
    let back = returning.await.unwrap();
    // It does not wait for ever.
    back.kill().await;
    let began = Instant::now();
    assert_eq!(node.get(&blob, &[]).await.status(), 503);
    assert!((3..20).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

/// Two replicas, of which the one that is asked first answers as `first` says, and the other as `second` does.
async fn replicas(first: Vec<Step>, second: Vec<Step>) -> (Node, Server, Server) {
    let asked = Arc::new(AtomicUsize::new(0));
    let start = || {
        let (asked, first, second) = (asked.clone(), first.clone(), second.clone());
        Server::start(move |head| {
            alive(head).unwrap_or_else(|| if asked.fetch_add(1, Relaxed) == 0 { first.clone() } else { second.clone() })
        })
    };
    let (one, other) = (start().await, start().await);
    (Node::before(&[&one, &other]).await, one, other)
}

#[tokio::test]
async fn what_one_replica_cannot_fetch_another_may_have_and_nobody_waits_for_that() {
    let away = || answer(503, &[("retry-after", "60")], b"away");
    for (second, status, text) in [
        (answer(200, &[], b"good"), 200, "good"),
        (answer(404, &[], b"none"), 503, "away"),
        (away(), 503, "away"),
        (vec![Step::Cut], 503, "away"),
        ([vec![Step::Wait(5000)], answer(200, &[], b"late")].concat(), 503, "away"),
    ] {
        let (node, one, other) = replicas(away(), second).await;
        let began = Instant::now();
        let found = node.get(BLOB, &[]).await;
        assert_eq!((found.status().as_u16(), found.text().await.unwrap().as_str()), (status, text));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        assert_eq!((one.asked().len().min(1), other.asked().len().min(1)), (1, 1));
    }
}

#[tokio::test]
async fn replicas_that_are_all_silent_are_found_out_at_the_same_time() {
    let servers = [
        Server::start(|_| vec![Step::Silence]).await,
        Server::start(|_| vec![Step::Silence]).await,
        Server::start(|_| vec![Step::Silence]).await,
    ];
    let node = Node::before(&servers.each_ref()).await;
    let (status, time) = timed(&node).await;
    // Each alone takes 1.4 s.
    assert!(status == 503 && time < Duration::from_millis(2700), "{status} {time:?}");
}

#[tokio::test]
async fn a_crowd_that_waits_asks_once_whether_the_server_is_alive() {
    let slow = Server::start(|head| {
        alive(head).unwrap_or_else(|| [vec![Step::Wait(1600)], answer(200, &[], b"late")].concat())
    })
    .await;
    let node = Node::before(&[&slow]).await;
    let crowd = (0..20).map(|_| timed(&node));
    let statuses = futures::future::join_all(crowd).await;
    assert!(statuses.iter().all(|(status, _)| *status == 200), "{statuses:?}");
    assert!((1..15).contains(&slow.probes()), "{} probes", slow.probes());
}
