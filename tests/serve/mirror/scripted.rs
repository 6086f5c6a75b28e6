//! The scripted upstream by itself, as a plain client sees it: a fault that it does not have proves nothing of a mirror.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio_util::sync::CancellationToken;

use super::upstream::content::{INDEX, Index};
use super::upstream::faults::{Fault, Kind, Place, Rule};
use super::upstream::{Access, Upstream};
use crate::client::{Client, IMAGE, digest};
use crate::mirror::pull::{Came, come};

const TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

async fn get(upstream: &Upstream, target: &str, headers: &[(&str, &str)]) -> Option<Came> {
    let client = Client::new(&upstream.address.to_string());
    come(&client, Method::GET, target, headers, Duration::from_millis(500), 1_000_000).await
}

async fn blob_with(fault: Fault, headers: &[(&str, &str)]) -> (Bytes, Option<Came>) {
    let index = Index::of_seed(1, &[40_000]);
    let upstream = Upstream::with([("a/b", index.is_tagged("1"))]).await;
    let blob = &index.images[0].layers[0];
    upstream.rule(Rule::first(Kind::GetBlob, fault));
    let target = format!("/v2/a/b/blobs/{}", blob.digest);
    let came = get(&upstream, &target, headers).await;
    // One is enough.
    let after = get(&upstream, &target, &[]).await.unwrap();
    assert!(after.status == 200 && after.whole && after.bytes == blob.bytes);
    assert_eq!(upstream.problems(), Vec::<String>::new());
    (blob.bytes.clone(), came)
}

#[tokio::test]
async fn while_nothing_is_said_it_is_a_registry() {
    let index = Index::of_seed(1, &[40_000, 10]);
    let upstream = Upstream::with([("a/b", index.is_tagged("1"))]).await;
    let image = &index.images[1];
    let came = get(&upstream, "/v2/a/b/manifests/1", &[("accept", TYPES)]).await.unwrap();
    assert_eq!((came.status.as_u16(), &came.bytes[..]), (200, &index.manifest.bytes[..]));
    assert_eq!((came.headers["content-type"].to_str().unwrap(), digest(&came.bytes)), (INDEX, index.manifest.digest));
    let target = format!("/v2/a/b/manifests/{}", image.manifest.digest);
    assert_eq!(get(&upstream, &target, &[("accept", TYPES)]).await.unwrap().headers["content-type"], IMAGE);
    for blob in image.blobs() {
        let target = format!("/v2/a/b/blobs/{}", blob.digest);
        assert_eq!(get(&upstream, &target, &[]).await.unwrap().bytes, blob.bytes);
    }
    assert_eq!(upstream.problems(), Vec::<String>::new());
    for (target, status) in [("/v2/a/b/blobs/x", 404), ("/v2/a/manifests/1", 404), ("/x", 404), ("/v2/", 200)] {
        assert_eq!(get(&upstream, target, &[("accept", TYPES)]).await.unwrap().status, status, "{target}");
    }
    // Older clients would be given something else under the same name.
    assert_eq!(get(&upstream, "/v2/a/b/manifests/1", &[("accept", IMAGE)]).await.unwrap().status, 404);
    assert_eq!(upstream.problems().len(), 2);
    let layer = &image.layers[0];
    let target = format!("/v2/a/b/blobs/{}", layer.digest);
    upstream.forget_seen();
    let part = get(&upstream, &target, &[("range", "bytes=100-199")]).await.unwrap();
    assert_eq!((part.status.as_u16(), &part.bytes[..]), (206, &layer.bytes[100..200]));
    let tag = part.headers["etag"].to_str().unwrap();
    assert_eq!(get(&upstream, &target, &[("range", "bytes=150-"), ("if-range", tag)]).await.unwrap().status, 206);
    assert_eq!(get(&upstream, &target, &[("range", "bytes=0-"), ("if-range", "\"x\"")]).await.unwrap().status, 200);
    assert_eq!(get(&upstream, &target, &[("range", "bytes=99999-")]).await.unwrap().status, 416);
    let length = layer.bytes.len() as u64;
    assert_eq!(upstream.sent(&layer.digest), [100..200, 150..length, 0..length]);
    assert_eq!(upstream.sent_again(&layer.digest), 100 + length - 150);
}

#[tokio::test]
async fn tokens_are_for_one_service_one_repository_and_end() {
    let index = Index::of_seed(1, &[10]);
    let upstream = Upstream::start(Access::Tokens).await;
    upstream.put("open", index.is_tagged("1"));
    upstream.put("own", index.is_tagged("1").only_for("alice"));
    let token = async |query: &str, headers: &[(&str, &str)]| {
        let came = get(&upstream, &format!("/token?{query}"), headers).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&came.bytes).unwrap_or_default();
        (came.status.as_u16(), format!("Bearer {}", body["token"].as_str().unwrap_or_default()))
    };
    let manifest = async |name: &str, authorization: &str| {
        let headers = [("accept", TYPES), ("authorization", authorization)];
        get(&upstream, &format!("/v2/{name}/manifests/1"), &headers).await.unwrap().status.as_u16()
    };
    let basic = |user: &str, password: &str| {
        use base64::Engine as _;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
    };
    let refused = get(&upstream, "/v2/open/manifests/1", &[("accept", TYPES)]).await.unwrap();
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"scripted\"", upstream.address);
    let challenge = format!("{realm},scope=\"repository:open:pull\"");
    assert_eq!((refused.status.as_u16(), refused.headers["www-authenticate"].to_str().unwrap()), (401, &challenge[..]));
    let [own, open] = ["own", "open"].map(|name| format!("service=scripted&scope=repository%3A{name}%3Apull"));
    let (right, wrong) = (basic("alice", "alice-secret"), basic("alice", "guess"));
    assert_eq!(token(&own, &[("authorization", &wrong)]).await.0, 401);
    assert_eq!(token("scope=repository:own:pull", &[]).await.0, 400);
    let (anonymous, of_alice) = (token(&open, &[]).await.1, token(&own, &[("authorization", &right)]).await.1);
    let less = token(&own, &[]).await;
    assert_eq!((less.0, manifest("own", &less.1).await), (200, 401));
    assert_eq!((manifest("open", &anonymous).await, manifest("own", &anonymous).await), (200, 401));
    assert_eq!((manifest("own", &of_alice).await, manifest("open", &of_alice).await), (200, 401));
    assert_eq!(manifest("own", &right).await, 401);
    upstream.expire_tokens();
    assert_eq!(manifest("own", &of_alice).await, 401);
}

#[tokio::test]
async fn the_storage_wants_a_signature_and_no_credential() {
    let index = Index::of_seed(1, &[10]);
    let upstream = Upstream::with([("a", index.is_tagged("1"))]).await;
    upstream.redirect_blobs(true);
    let blob = &index.images[0].config;
    let moved = get(&upstream, &format!("/v2/a/blobs/{}", blob.digest), &[]).await.unwrap();
    assert_eq!(moved.status, 307);
    let location = moved.headers["location"].to_str().unwrap();
    let found = get(&upstream, location, &[]).await.unwrap();
    assert!(found.status == 200 && found.bytes == blob.bytes);
    assert_eq!(get(&upstream, location, &[("authorization", "Basic eDp5")]).await.unwrap().status, 400);
    assert_eq!(get(&upstream, location.split('?').next().unwrap(), &[]).await.unwrap().status, 403);
    assert_eq!((upstream.problems().len(), upstream.count(Kind::Storage)), (2, 3));
}

#[tokio::test]
async fn each_fault_is_one() {
    for fault in Fault::all() {
        let ranged = matches!(fault, Fault::IgnoredRange);
        let headers: &[_] = if ranged { &[("range", "bytes=10-")] } else { &[] };
        let (bytes, came) = blob_with(fault.clone(), headers).await;
        let Some(came) = came else {
            assert!(matches!(fault, Fault::Silent | Fault::Dropped), "{fault:?}");
            continue;
        };
        let (half, length) = (bytes.len() / 2, bytes.len());
        let is = match &fault {
            Fault::Unauthorized => came.status == 401 && came.headers.contains_key("www-authenticate"),
            Fault::Forbidden => came.status == 403,
            Fault::NotFound => came.status == 404,
            Fault::TooMany => came.status == 429 && came.headers["retry-after"] == "1",
            Fault::Internal => came.status == 500,
            Fault::Unavailable => came.status == 503,
            Fault::Redirect | Fault::Circle => came.status == 307,
            Fault::HangInBody | Fault::CutInBody => !came.whole && came.bytes == bytes[..half],
            Fault::WrongBytes(place) => {
                let at = came.bytes.iter().zip(&bytes).position(|(one, other)| one != other).unwrap();
                came.whole
                    && at
                        == [0, half, length - 1][[Place::First, Place::Middle, Place::Last]
                            .iter()
                            .position(|known| known == place)
                            .unwrap()]
            }
            Fault::IgnoredRange => came.status == 200 && came.bytes == bytes,
            Fault::OtherRange => came.status == 206 && came.bytes == bytes[1..],
            Fault::Drip(..) => came.whole && came.bytes == bytes,
            Fault::ShortLength => came.whole && came.bytes == bytes[..half],
            Fault::LongLength => !came.whole && came.bytes == bytes,
            Fault::NoLength => came.whole && came.bytes == bytes && !came.headers.contains_key("content-length"),
            Fault::LyingDigest => came.headers["docker-content-digest"] != digest(&bytes),
            Fault::NoDigest => !came.headers.contains_key("docker-content-digest"),
            Fault::WrongType | Fault::Schema1 => came.headers["content-type"] != "application/octet-stream",
            Fault::Endless => !came.whole && came.bytes.len() > length,
            Fault::Empty => came.status == 200 && came.whole && came.bytes.is_empty(),
            Fault::Encoded => came.headers["content-encoding"] == "gzip",
            _ => false,
        };
        assert!(is, "{fault:?}: {} {:?}", came.status, came.headers);
    }
}

#[tokio::test]
async fn it_can_be_away_silent_and_back_and_hold_a_body() {
    let index = Index::of_seed(1, &[40_000]);
    let upstream = Upstream::with([("a", index.is_tagged("1"))]).await;
    let blob = &index.images[0].layers[0];
    let target = format!("/v2/a/blobs/{}", blob.digest);
    upstream.leave().await;
    assert!(get(&upstream, &target, &[]).await.is_none());
    upstream.come_back().await;
    assert_eq!(get(&upstream, &target, &[]).await.unwrap().bytes, blob.bytes);
    upstream.fall_silent(true);
    assert!(get(&upstream, &target, &[]).await.is_none());
    upstream.fall_silent(false);
    let gate = CancellationToken::new();
    upstream.rule(Rule::first(Kind::GetBlob, Fault::Gate(gate.clone())));
    let got = async { get(&upstream, &target, &[]).await.unwrap() };
    let opened = async {
        let half = blob.bytes.len() as u64 / 2;
        while upstream.sent(&blob.digest).last().is_none_or(|part| part.end != half) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gate.cancel();
    };
    let (came, ()) = tokio::join!(got, opened);
    assert!(came.whole && came.bytes == blob.bytes);
}

#[tokio::test]
async fn it_sends_no_faster_than_it_is_told_and_knows_who_asks() {
    let index = Index::of_seed(1, &[400_000]);
    let upstream = Upstream::with([("a", index.is_tagged("1"))]).await;
    let blob = &index.images[0].layers[0];
    upstream.limit(1_000_000);
    let began = std::time::Instant::now();
    let target = format!("/v2/a/blobs/{}", blob.digest);
    let client = Client::new(&upstream.address.to_string());
    let got = || come(&client, Method::GET, &target, &[], Duration::from_secs(20), 1_000_000);
    // Two share what there is.
    let (one, other) = tokio::join!(got(), got());
    assert!(one.unwrap().bytes == blob.bytes && other.unwrap().bytes == blob.bytes);
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    assert!(upstream.seen().iter().all(|seen| seen.from == upstream.address.ip()));
}
