//! Servers that fail in the middle of a body.

use std::time::{Duration, Instant};

use super::scripted::{Node, Server, Step, alive, answer, head_of, header};

const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const BODY: &[u8] = b"0123456789";

fn blob() -> String {
    format!("/v2/library/x/blobs/{DIGEST}?ns=docker.io")
}

/// Half of the body, then this.
fn half(headers: &[(&str, &str)], then: Step) -> Vec<Step> {
    vec![Step::Send(head_of(200, headers, BODY.len())), Step::Send(BODY[..5].to_vec()), Step::Wait(50), then]
}

/// The second half, marked with these headers.
fn rest(headers: &[(&str, &str)]) -> Vec<Step> {
    let headers: Vec<(&str, &str)> = headers.iter().copied().chain([("content-range", "bytes 5-9/10")]).collect();
    answer(206, &headers, &BODY[5..])
}

/// A server that begins with `first` and answers requests for the rest with `second`.
async fn server(first: Vec<Step>, second: Vec<Step>) -> Server {
    Server::start(move |head| {
        let steps = if header(head, "range").is_some() { second.clone() } else { first.clone() };
        alive(head).unwrap_or(steps)
    })
    .await
}

/// What the client got: the whole body, or how much came before the cut.
async fn body(node: &Node, path: &str) -> Result<Vec<u8>, usize> {
    let mut found = node.get(path, &[]).await;
    assert_eq!(found.status(), 200);
    let mut bytes = Vec::new();
    loop {
        match found.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(bytes),
            Err(_) => return Err(bytes.len()),
        }
    }
}

#[tokio::test]
async fn what_is_proven_goes_on_from_a_server_with_the_same_proof_and_from_no_other() {
    let etag = format!("\"{DIGEST}\"");
    let proof = [("etag", etag.as_str())];
    for (second, expected) in [
        (rest(&proof), Ok(BODY.to_vec())),
        (rest(&[("etag", "\"other\"")]), Err(5)),
        (rest(&[]), Err(5)),
        (answer(200, &proof, BODY), Err(5)),
        (answer(206, &[("etag", etag.as_str()), ("content-range", "bytes 4-9/10")], &BODY[4..]), Err(5)),
        (answer(206, &[("etag", etag.as_str()), ("content-range", "bytes 5-9/11")], &BODY[5..]), Err(5)),
        (answer(412, &[], b""), Err(5)),
    ] {
        let server = server(half(&proof, Step::Cut), second).await;
        let node = Node::before(&[&server]).await;
        let began = Instant::now();
        assert_eq!(body(&node, &blob()).await, expected);
        assert!(began.elapsed() < Duration::from_secs(15));
        let asked = server.asked();
        assert_eq!(header(&asked[1], "range"), Some("bytes=5-9"));
        assert_eq!(header(&asked[1], "if-range"), Some(etag.as_str()));
    }
}

#[tokio::test]
async fn what_is_still_being_fetched_goes_on_within_the_same_fill_only() {
    for (second, expected) in
        [(rest(&[("wharf-fill", "7")]), Ok(BODY.to_vec())), (rest(&[("wharf-fill", "8")]), Err(5)), (rest(&[]), Err(5))]
    {
        let server = server(half(&[("wharf-fill", "7")], Step::Cut), second).await;
        let node = Node::before(&[&server]).await;
        assert_eq!(body(&node, &blob()).await, expected);
    }
}

#[tokio::test]
async fn after_a_cut_the_rest_is_left_to_the_registry_and_the_whole_is_not() {
    let server = server(half(&[], Step::Cut), rest(&[])).await;
    let node = Node::before(&[&server]).await;
    assert_eq!(body(&node, &blob()).await, Err(5));
    assert_eq!(node.get(&blob(), &[("range", "bytes=5-")]).await.status(), 503);
    assert_eq!(server.asked().len(), 1);
    assert_eq!(node.get(&blob(), &[("range", "bytes=0-")]).await.status(), 206);
    // Another blob has nothing to do with it.
    let other = blob().replace("aaaa", "bbbb");
    assert_eq!(node.get(&other, &[("range", "bytes=5-")]).await.status(), 206);
}

#[tokio::test]
async fn a_client_that_cannot_resume_gets_the_rest_from_whoever_has_it() {
    let server = server(half(&[], Step::Cut), rest(&[])).await;
    let node = Node::before(&[&server]).await;
    let path = format!("/v2/docker.io/library/x/blobs/{DIGEST}");
    assert_eq!(body(&node, &path).await, Ok(BODY.to_vec()));
}

#[tokio::test]
async fn a_server_that_falls_silent_in_the_middle_is_found_out_and_one_that_is_slow_is_not() {
    // Alive no more: not even to who asks whether it is.
    let frozen =
        Server::start(
            |head| {
                if head.starts_with("GET /v2/ ") { vec![Step::Silence] } else { half(&[], Step::Silence) }
            },
        )
        .await;
    let node = Node::before(&[&frozen]).await;
    let began = Instant::now();
    assert_eq!(body(&node, &blob()).await, Err(5));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    let slow = Server::start(|head| {
        let steps = vec![
            Step::Send(head_of(200, &[], BODY.len())),
            Step::Send(BODY[..5].to_vec()),
            Step::Wait(2500),
            Step::Send(BODY[5..].to_vec()),
        ];
        alive(head).unwrap_or(steps)
    })
    .await;
    let node = Node::before(&[&slow]).await;
    assert_eq!(body(&node, &blob()).await, Ok(BODY.to_vec()));
}

#[tokio::test]
async fn a_body_that_nobody_measured_is_cut_and_never_continued() {
    let server = Server::start(|head| {
        let head_only = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\n01234\r\n".to_vec();
        alive(head).unwrap_or_else(|| vec![Step::Send(head_only.clone()), Step::Wait(50), Step::Cut])
    })
    .await;
    let node = Node::before(&[&server]).await;
    assert_eq!(body(&node, &blob()).await, Err(5));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_server_that_sends_on_is_alive_whatever_its_port_does() {
    // Its port takes connections and answers nobody new; what was begun goes on after a pause.
    let busy = Server::start(|head| {
        let steps = vec![
            Step::Send(head_of(200, &[], BODY.len())),
            Step::Send(BODY[..5].to_vec()),
            Step::Wait(700),
            Step::Send(BODY[5..7].to_vec()),
            Step::Wait(1000),
            Step::Send(BODY[7..].to_vec()),
        ];
        if head.starts_with("GET /v2/ ") { vec![Step::Silence] } else { steps }
    })
    .await;
    let node = Node::before(&[&busy]).await;
    assert_eq!(body(&node, &blob()).await, Ok(BODY.to_vec()));
}

#[tokio::test]
async fn a_connection_that_its_server_has_forgotten_is_not_waited_for_for_ever() {
    // It is alive, and of this connection nothing comes any more.
    let forgetful = Server::start(|head| alive(head).unwrap_or_else(|| half(&[], Step::Silence))).await;
    let node = Node::before(&[&forgetful]).await;
    let read = tokio::time::timeout(Duration::from_secs(30), body(&node, &blob())).await;
    assert_eq!(read.unwrap(), Err(5));
}
