//! Endpoints that fail, are silent or say that they cannot, and what is asked after that.

use std::fmt::Debug;
use std::time::Duration;

use super::server::{Reply, Server};
use super::{PATIENT, blob, content, is_away, is_wrong, manifest, repository, settings, tag, upstream, upstream_of};
use crate::serve::upstream::transport::{Limits, Proxies};
use crate::serve::upstream::{BreakerState, Failure, Identity, Object, Upstream};

const SHORT: Duration = Duration::from_millis(50);

fn limited(servers: &[&Server], limits: Limits) -> Upstream {
    let endpoints: Vec<String> = servers.iter().map(|server| server.url()).collect();
    Upstream::with(settings(&endpoints), "wharf-test", Proxies::None, limits).unwrap()
}

/// Why an upstream is said to be away.
fn problem<T: Debug>(found: Result<T, Failure>) -> String {
    match found.unwrap_err() {
        Failure::Away { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_next_endpoint_is_asked_where_one_does_not_help() {
    for reply in [
        || Reply::new(503, &[], b"no"),
        || Reply::new(429, &[("retry-after", "7")], b"no"),
        || Reply::new(508, &[], b"no"),
        || Reply::new(418, &[], b"no"),
        || Reply::new(200, &[], b"no"),
        || Reply::new(200, &[], b"").then_close(),
        || Reply::new(302, &[("location", "ftp://nowhere")], b""),
    ] {
        let (one, other) = (Server::new(move |_| reply()).await, Server::new(content).await);
        let upstream = limited(&[&one, &other], PATIENT);
        assert_eq!(tag(&upstream, &Identity::Own).await, Ok(manifest()));
        assert_eq!((one.lines().len(), other.lines().len()), (1, 1));
        assert!(!upstream.is_away());
    }
    // Nobody listens where this one did.
    let gone = Server::new(content).await.url();
    let other = Server::new(content).await;
    let upstream = upstream_of(settings(&[gone, other.url()]));
    assert_eq!(tag(&upstream, &Identity::Own).await, Ok(manifest()));
}

#[tokio::test]
async fn the_first_endpoint_that_knows_is_believed() {
    for status in [404, 410, 401, 403, 451] {
        let (one, other) = (Server::new(move |_| Reply::new(status, &[], b"")).await, Server::new(content).await);
        let found = tag(&limited(&[&one, &other], PATIENT), &Identity::Own).await;
        let is_believed = match status {
            404 | 410 => matches!(found, Err(Failure::NotFound(_))),
            _ => matches!(found, Err(Failure::Denied(_))),
        };
        assert!(is_believed, "{status} {found:?}");
        assert_eq!(other.lines().len(), 0);
    }
}

#[tokio::test]
async fn where_none_helps_each_is_named_without_what_it_says() {
    let (one, other) =
        (Server::new(|_| Reply::new(503, &[], b"words")).await, Server::new(|_| Reply::new(500, &[], b"words")).await);
    let failure = tag(&limited(&[&one, &other], PATIENT), &Identity::Own).await.unwrap_err().to_string();
    for (server, status) in [(&one, "503"), (&other, "500")] {
        let part = format!("GET {}/v2/a/b/manifests/latest: {status}", server.url());
        assert!(failure.contains(&part), "{failure}");
    }
    assert!(!failure.contains("words"), "{failure}");
}

#[tokio::test]
async fn who_wants_to_be_left_alone_is_not_asked() {
    let server = Server::new(|_| Reply::new(429, &[("retry-after", "100")], b"")).await;
    let upstream = upstream(&server);
    for _ in 0..3 {
        let found = tag(&upstream, &Identity::Own).await;
        let wait = match found {
            Err(Failure::Away { retry_after, .. }) => retry_after.unwrap(),
            other => panic!("{other:?}"),
        };
        assert!(wait <= Duration::from_secs(100), "{wait:?}");
    }
    assert_eq!(server.lines().len(), 1);
    assert!(upstream.is_away());
    let health = &upstream.health().endpoints[0];
    assert_eq!((health.breaker, health.figures.away, health.figures.not_asked), (BreakerState::Open, 1, 2));
    assert!(health.problem.as_deref().unwrap().contains("429"));
}

#[tokio::test]
async fn silence_has_an_end_and_opens_the_breaker() {
    let server = Server::new(|_| Reply::silence()).await;
    let upstream = limited(&[&server], Limits { head: SHORT, ..PATIENT });
    let problem = problem(tag(&upstream, &Identity::Own).await);
    assert!(problem.ends_with("no answer within 50 ms"), "{problem}");
    assert_ne!(upstream.health().endpoints[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_connection_that_is_not_made_has_an_end() {
    // Linux leaves a connection unanswered while nobody accepts those that are there.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(0).unwrap();
    let address = full.local_addr().unwrap();
    let _there = tokio::net::TcpStream::connect(address).await.unwrap();
    let settings = settings(&[format!("http://{address}")]);
    let upstream = Upstream::with(settings, "wharf-test", Proxies::None, Limits { connect: SHORT, ..PATIENT });
    let problem = problem(tag(&upstream.unwrap(), &Identity::Own).await);
    // The system gives up a connection too, but later, and then it is the system's error. Two layers of the client have the
    // deadline, and either may be the one that tells of it.
    assert!(problem.contains("(Connect)") && !problem.contains("os error"), "{problem}");
}

#[tokio::test]
async fn all_endpoints_together_have_an_end_and_who_was_not_reached_is_not_blamed() {
    let (one, other) = (Server::new(|_| Reply::silence()).await, Server::new(content).await);
    let upstream = limited(&[&one, &other], Limits { all: SHORT, ..PATIENT });
    assert!(is_away(&tag(&upstream, &Identity::Own).await));
    assert_eq!(other.lines().len(), 0);
    assert_eq!(upstream.health().endpoints[1].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_body_that_stops_coming_has_an_end() {
    let server = Server::new(|_| Reply::new(200, &[("content-length", "99")], b"{").then_silence()).await;
    let upstream = limited(&[&server], Limits { progress: SHORT, ..PATIENT });
    let of_a_manifest = problem(tag(&upstream, &Identity::Own).await);
    assert!(of_a_manifest.ends_with("nothing more came for 50 ms"), "{of_a_manifest}");
    // Another, for silence opened its breaker.
    let upstream = limited(&[&server], Limits { progress: SHORT, ..PATIENT });
    let mut source = upstream.blob(&repository(), &blob(), &Identity::Own);
    let of_a_blob = problem(super::read(&mut *source, 0).await);
    assert!(of_a_blob.ends_with("nothing more came for 50 ms"), "{of_a_blob}");
}

#[tokio::test]
async fn an_asker_that_goes_leaves_no_mark() {
    let server = Server::new(|_| Reply::silence()).await;
    let upstream = upstream(&server);
    let me = &Identity::Own;
    let mut asking = Box::pin(tag(&upstream, me));
    while server.lines().is_empty() {
        assert!(futures::poll!(asking.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    drop(asking);
    assert_eq!(upstream.health().endpoints[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_loop_is_called_one_and_the_way_of_a_request_is_passed_on() {
    let server = Server::new(|_| Reply::new(508, &[], b"")).await;
    let upstream = upstream(&server);
    for (received, expected) in [
        ("", "1.1 wharf-test"),
        ("1.1 wharf-other, 1.0 cache (x)", "1.1 wharf-other, 1.0 cache (x), 1.1 wharf-test"),
        ("1.1 a\nb", "1.1 wharf-test"),
    ] {
        let found = tag(&upstream.behind(received), &Identity::Own).await;
        assert!(matches!(found, Err(Failure::Loop(_))), "{found:?}");
        assert_eq!(server.asked().pop().unwrap().header("via"), Some(expected));
    }
}

#[tokio::test]
async fn an_answer_to_head_that_says_nothing_is_not_a_refusal() {
    for status in [405, 501] {
        let server = Server::new(move |_| Reply::new(status, &[], b"")).await;
        let object = Object::Manifest(repository(), "latest".parse().unwrap());
        let found = upstream(&server).head(&object, &Identity::Own).await;
        assert!(is_wrong(&found.map(|_| manifest()), "HEAD"), "{status}");
    }
}

#[tokio::test]
async fn limits_are_taken_note_of() {
    let server = Server::new(|_| {
        let limit = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "7;w=21600")];
        Reply::new(404, &limit, b"")
    });
    let server = server.await;
    let upstream = upstream(&server);
    assert!(tag(&upstream, &Identity::Own).await.is_err());
    let limit = upstream.health().endpoints[0].rate_limit.unwrap();
    assert_eq!((limit.limit, limit.remaining), (Some(100), 7));
}
