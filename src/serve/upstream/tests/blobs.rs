//! Blobs: going on where an answer ended, and answers that cannot be true.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;

use super::server::{Reply, Request, Server};
use super::{BLOB, blob, read, repository, settings, upstream, upstream_of};
use crate::serve::upstream::{Failure, Identity, Source};

fn source(server: &Server) -> Box<dyn Source> {
    upstream(server).blob(&repository(), &blob(), &Identity::Own)
}

/// What comes before it breaks.
async fn broken(source: &mut dyn Source, offset: u64) -> (Vec<u8>, Failure) {
    let mut arriving = source.open(offset).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(part) = arriving.bytes.next().await {
        match part {
            Ok(part) => bytes.extend_from_slice(&part),
            Err(failure) => {
                assert!(arriving.bytes.next().await.is_none());
                return (bytes, failure);
            }
        }
    }
    panic!("all came: {bytes:?}");
}

/// The end of the blob, from where a request wants it.
fn rest(request: &Request, tag: &[(&str, &str)]) -> Reply {
    let from = request.header("range").unwrap().trim_start_matches("bytes=").trim_end_matches('-').to_owned();
    let range = format!("bytes {from}-9/10");
    Reply::new(206, &[&[("content-range", &*range)], tag].concat(), &BLOB[from.parse().unwrap()..])
}

#[tokio::test]
async fn it_goes_on_with_the_same_content() {
    for (tag, sent) in [(Some("\"x\""), Some("\"x\"")), (Some("W/\"x\""), None), (None, None)] {
        let tags = move || tag.map(|tag| ("etag", tag)).into_iter().collect::<Vec<_>>();
        let server = Server::new(move |request| match request.header("range") {
            None => Reply::new(200, &[tags(), vec![("content-length", "10")]].concat(), &BLOB[..4]).then_close(),
            Some(_) => rest(request, &tags()),
        });
        let server = server.await;
        let mut source = source(&server);
        let (bytes, failure) = broken(&mut *source, 0).await;
        assert_eq!(bytes, &BLOB[..4]);
        assert!(matches!(failure, Failure::Away { .. }), "{failure}");
        assert_eq!(read(&mut *source, 4).await.unwrap(), (Some(10), Bytes::from_static(&BLOB[4..])));
        let asked = server.asked();
        assert_eq!((asked[0].header("range"), asked[0].header("if-range")), (None, None));
        assert_eq!((asked[1].header("range"), asked[1].header("if-range")), (Some("bytes=4-"), sent));
    }
}

#[tokio::test]
async fn it_can_begin_anywhere_also_where_ranges_are_not_understood() {
    let server = Server::new(|request| rest(request, &[])).await;
    assert_eq!(read(&mut *source(&server), 7).await.unwrap(), (Some(10), Bytes::from_static(b"789")));
    let server = Server::new(|_| Reply::new(200, &[], BLOB)).await;
    assert_eq!(read(&mut *source(&server), 7).await.unwrap(), (Some(10), Bytes::from_static(b"789")));
    let chunked = || Reply::new(200, &[("transfer-encoding", "chunked")], b"4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n");
    let server = Server::new(move |_| chunked()).await;
    assert_eq!(read(&mut *source(&server), 3).await.unwrap(), (None, Bytes::from_static(b"3456789")));
}

#[tokio::test]
async fn it_stays_with_the_endpoint_that_began() {
    let asked = AtomicUsize::new(0);
    let first = Server::new(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::new(503, &[], b""),
        _ => Reply::new(200, &[], BLOB),
    });
    let (first, second) = (
        first.await,
        Server::new(|request| match request.header("range") {
            None => Reply::new(200, &[], BLOB),
            Some(_) => Reply::new(503, &[], b""),
        })
        .await,
    );
    let upstream = upstream_of(settings(&[first.url(), second.url()]));
    let mut source = upstream.blob(&repository(), &blob(), &Identity::Own);
    assert!(read(&mut *source, 0).await.is_ok());
    assert!(matches!(source.open(4).await, Err(Failure::Away { .. })));
    assert_eq!((first.lines().len(), second.lines().len()), (1, 2));
    // Another reader is free.
    let mut other = upstream.blob(&repository(), &blob(), &Identity::Own);
    assert!(read(&mut *other, 0).await.is_ok());
    assert_eq!(first.lines().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_true_is_not_passed_on() {
    for headers in [
        [("content-length", "9223372036854775808"), ("x", "y")],
        [("content-range", "bytes 3-9/10"), ("content-length", "6")],
        [("content-range", "bytes 4-9/99"), ("content-length", "6")],
        [("content-range", "bytes 4-9/10"), ("content-length", "7")],
    ] {
        let status = if headers[1].0 == "x" { 200 } else { 206 };
        let server = Server::new(move |_| Reply::new(status, &headers, b"").then_close()).await;
        assert!(matches!(source(&server).open(4).await, Err(Failure::Wrong { .. })), "{headers:?}");
    }
    // Its length is said by its range alone.
    for (body, is_long) in [("3\r\n456\r\n0\r\n\r\n", false), ("9\r\n456789xxx\r\n0\r\n\r\n", true)] {
        let headers = [("content-range", "bytes 4-9/10"), ("transfer-encoding", "chunked")];
        let server = Server::new(move |_| Reply::new(206, &headers, body.as_bytes())).await;
        let (_, failure) = broken(&mut *source(&server), 4).await;
        assert_eq!(matches!(failure, Failure::Wrong { .. }), is_long, "{failure}");
        assert_eq!(matches!(failure, Failure::Away { .. }), !is_long, "{failure}");
    }
}
