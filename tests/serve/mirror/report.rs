//! What a mirror tells the operator of itself.

use std::net::SocketAddr;

use wharf::mirror_report::{MirrorReport, PATH, State, UpstreamReport};

use super::faults::{REPOSITORY, TAG};
use super::pull::Outcome;
use super::served::{Mirror, entry};
use super::upstream::content::Index;
use super::upstream::faults::{Fault, Kind, Rule};
use super::upstream::{Access, Upstream};
use crate::client::Client;
use crate::operation::eventually;
use crate::process::free_address;

pub async fn report(operations: SocketAddr) -> MirrorReport {
    let client = Client::new(&operations.to_string());
    let mut answer = client.get(PATH).await;
    // It says so as long as it has just begun.
    eventually(async || {
        answer = client.get(PATH).await;
        answer.status != 503
    })
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn each_registry_is_told_as_it_last_answered() {
    let operations = free_address();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, "mirror:wrong-secret\n").unwrap();
    let index = Index::of_seed(1, &[2_000, 90_000]);
    let [limited, silent, gone] = [Upstream::with([]).await, Upstream::with([]).await, Upstream::with([]).await];
    let rejecting = Upstream::start(Access::Tokens).await;
    for upstream in [&limited, &silent, &gone, &rejecting] {
        upstream.put(REPOSITORY, index.is_tagged(TAG));
    }
    let mirrors = entry("limited.example", &limited, "")
        + &entry("silent.example", &silent, "")
        + &entry("gone.example", &gone, "")
        + &entry("rejecting.example", &rejecting, &format!(", credentials: \"{}\"", file.display()));
    let rest = format!("operations: {operations}\ncache: {{tagMaxAgeSeconds: 0, size: 80000}}\n");
    let mirror = Mirror::start(&mirrors, &rest);
    let told = async |host: &str| {
        let found = report(operations).await.upstreams.into_iter().find(|upstream| upstream.host == host);
        let UpstreamReport { state, serving_stale, problem, .. } = found.unwrap();
        (state, serving_stale, problem.unwrap_or_default())
    };
    let fresh = report(operations).await;
    assert_eq!((fresh.upstreams.len(), fresh.cache.size, fresh.pins.len()), (4, 80_000, 0));
    let puller = |host: &str| super::pull::Puller::new(mirror.address, host);
    // One layer is larger than all that may be kept.
    let small = &index.images[0].layers[0];
    for host in ["limited.example", "silent.example", "gone.example"] {
        assert_eq!(told(host).await, (State::Ok, false, String::new()));
        let image = puller(host).image(REPOSITORY, &index.images[0]).await;
        assert_eq!(image, Outcome::Right, "{host}");
        assert_eq!(puller(host).get(&format!("{REPOSITORY}/manifests/{TAG}")).await.status, 200);
    }
    let cache = report(operations).await.cache;
    let large = &index.images[0].layers[1];
    assert!(cache.bytes >= small.bytes.len() as u64 && cache.bytes <= 80_000, "{cache:?}");
    assert_eq!(cache.too_large, Some(large.bytes.len() as u64));
    assert_eq!((cache.problem, cache.in_use_exceeds, cache.pins_exceed), (None, false, false));

    limited.rule(Rule::always(Kind::HeadTag, Fault::TooMany));
    silent.fall_silent(true);
    gone.leave().await;
    let tag = format!("{REPOSITORY}/manifests/{TAG}");
    for (host, state, problem) in [
        ("limited.example", State::RateLimited, "429 Too Many Requests"),
        ("silent.example", State::Failing, "does not answer"),
        ("gone.example", State::Failing, "onnect"),
    ] {
        // What is here of the image does not do without the layer that is too large.
        let came = puller(host).get(&tag).await;
        assert_eq!(came.status, 503, "{host}: {came:?}");
        eventually(async || told(host).await.0 == state).await;
        let (_, serving_stale, said) = told(host).await;
        assert!(said.contains(problem) && !said.contains(REPOSITORY) && said.starts_with("http://127"), "{said}");
        assert!(serving_stale, "{host}");
    }
    limited.heal();
    // It asked to be left alone for a while, or not.
    eventually(async || {
        let _ = puller("limited.example").get(&tag).await;
        told("limited.example").await == (State::Ok, false, String::new())
    })
    .await;
    // Its own credential is refused, and what everybody may have goes on.
    assert_eq!(puller("rejecting.example").get(&tag).await.status, 200);
    assert_eq!(puller("rejecting.example").get(&tag).await.status, 200);
    let (state, _, problem) = told("rejecting.example").await;
    assert_eq!((state, problem.as_str()), (State::CredentialsRejected, "it refuses the configured credential"));
    assert!(!mirror.log().contains("-secret"), "{}", mirror.log());
}
