//! What neither a client nor an upstream may make a mirror do: ask whom it likes, go where it is sent, tell what it was told.

use http::{Method, StatusCode};

use super::faults::{REPOSITORY, TAG};
use super::pull::{MOST, Outcome, PATIENCE, come};
use super::served::{Mirror, entry};
use super::upstream::content::Index;
use super::upstream::faults::{Fault, Kind, Rule};
use super::upstream::{Access, Upstream};
use crate::client::Client;
use crate::operation::eventually;
use crate::process::free_address;
use crate::programs::run_command;

async fn one(access: Access) -> (Index, Upstream) {
    let index = Index::of_seed(1, &[100_000]);
    let upstream = Upstream::start(access).await;
    upstream.put(REPOSITORY, index.is_tagged(TAG));
    (index, upstream)
}

#[tokio::test]
async fn clients_choose_among_what_is_configured_and_dial_nothing() {
    let (index, upstream) = one(Access::Basic).await;
    let mirror = Mirror::of(&upstream);
    let client = Client::new(&mirror.address.to_string());
    let (address, digest) = (upstream.address, &index.images[0].config.digest);
    let manifest = format!("{REPOSITORY}/manifests/{TAG}");
    for (target, statuses) in [
        (format!("/v2/{manifest}?ns=two.example"), [404, 400]),
        (format!("/v2/{manifest}?ns={address}"), [404, 400]),
        (format!("/v2/{manifest}?ns=http://{address}"), [404, 400]),
        (format!("/v2/{manifest}?ns=127.0.0.1"), [404, 400]),
        (format!("/v2/{manifest}?ns=one.example&ns=two.example"), [400, 400]),
        (format!("/v2/{manifest}?ns=one.example&ns=one.example"), [400, 400]),
        (format!("/v2/{manifest}?ns=one.example/../two"), [404, 400]),
        (format!("/v2/{manifest}?ns=ONE.example%00"), [404, 400]),
        (format!("/v2/{manifest}?ns="), [404, 400]),
        (format!("/v2/two.example/{manifest}"), [404, 400]),
        (format!("/v2/{}/{manifest}", address.to_string().replace(':', "_")), [404, 400]),
        (format!("/v2/one.example/../{manifest}"), [404, 400]),
        (format!("/v2/one.example/%2e%2e/{manifest}"), [404, 400]),
        (format!("/v2/one.example//{manifest}"), [404, 400]),
        (format!("/v2/one.example/manifests/{TAG}"), [404, 400]),
        (format!("/v2/one.example/{REPOSITORY}/blobs/{digest}/../x"), [404, 400]),
    ] {
        let came = come(&client, Method::GET, &target, &[], PATIENCE, MOST).await.unwrap();
        assert!(statuses.contains(&came.status.as_u16()), "{target}: {came:?}");
    }
    for (method, target) in [
        (Method::POST, format!("/v2/{REPOSITORY}/blobs/uploads/?ns=one.example")),
        (Method::POST, format!("/v2/one.example/{REPOSITORY}/blobs/uploads/")),
        (Method::PUT, format!("/v2/one.example/{REPOSITORY}/manifests/x")),
        (Method::PUT, format!("/v2/{REPOSITORY}/manifests/x?ns=one.example")),
        (Method::DELETE, format!("/v2/{REPOSITORY}/manifests/{TAG}?ns=one.example")),
        (Method::DELETE, format!("/v2/one.example/{REPOSITORY}/blobs/{digest}")),
    ] {
        let came = come(&client, method.clone(), &target, &[], PATIENCE, MOST).await.unwrap();
        assert!(came.status.is_client_error() && came.status != 429, "{method} {target}: {came:?}");
    }
    assert_eq!(upstream.asked(), []);
    // A local repository of that name is none.
    assert_eq!(client.push_blob("team/app", b"x").await.unwrap().status, StatusCode::CREATED);
    assert_ne!(client.push_blob("one.example/app", b"x").await.unwrap().status, StatusCode::CREATED);
    assert_eq!(mirror.puller().pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
}

#[tokio::test]
async fn several_ranges_are_one_answer_and_several_headers_are_none() {
    let (index, upstream) = one(Access::Basic).await;
    let mirror = Mirror::of(&upstream);
    let (puller, blob) = (mirror.puller(), &index.images[0].layers[0]);
    let rest = format!("{REPOSITORY}/blobs/{}", blob.digest);
    for _ in 0..2 {
        for (range, status) in [("bytes=0-1,5-6", 200), ("bytes=9999999-", 416), ("lines=1-2", 200), ("bytes=5-1", 416)]
        {
            let came = puller.ask(Method::GET, &rest, &[("range", range)]).await;
            // Of one that has not come, nobody can know the length.
            assert!(came.status == status || (status == 416 && came.status == 200), "{range}: {came:?}");
            assert!(came.status != 200 || came.bytes == blob.bytes, "{range}");
        }
        let came = puller.ask(Method::GET, &rest, &[("range", "bytes=0-1"), ("range", "bytes=2-3")]).await;
        assert_eq!(came.status, 400);
        assert_eq!(puller.blob(REPOSITORY, blob).await, Outcome::Right);
    }
}

#[tokio::test]
async fn a_realm_that_points_elsewhere_gets_no_credential_unless_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, "mirror:mirror-secret\n").unwrap();
    let (index, upstream) = one(Access::Tokens).await;
    let other = Upstream::start(Access::Tokens).await;
    upstream.set_realm(&format!("http://{}/token", other.address));
    let own = format!(", credentials: \"{}\", privateImages: Shared", file.display());
    let mirror = Mirror::start(&entry("one.example", &upstream, &own), "");
    let outcome = mirror.puller().pull(REPOSITORY, TAG, &index, 0).await;
    assert!(matches!(outcome, Outcome::Failed(_)));
    // A client's is as precious as the mirror's own.
    let outcome = mirror.puller().with("alice").pull(REPOSITORY, TAG, &index, 0).await;
    assert!(matches!(outcome, Outcome::Failed(_)));
    assert!(other.seen().iter().all(|seen| !seen.headers.contains_key("authorization")), "{:?}", other.seen());
    let log = mirror.log();
    assert!(log.contains(&other.address.to_string()) && !log.contains("-secret"), "{log}");
    for realm in ["file:///etc/passwd", "http://169.254.169.254/token", "//x", "", "http://a:b@127.0.0.1/token"] {
        upstream.set_realm(realm);
        let outcome = mirror.puller().pull(REPOSITORY, TAG, &index, 0).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{realm}");
    }

    // Here it is named. It gives tokens that this upstream does not know.
    upstream.set_realm(&format!("http://{}/token", other.address));
    let named = format!("{own}, tokenRealms: [\"{}\"]", other.address);
    let mirror = Mirror::start(&entry("one.example", &upstream, &named), "");
    let outcome = mirror.puller().pull(REPOSITORY, TAG, &index, 0).await;
    assert!(matches!(outcome, Outcome::Failed(_)) && other.count(Kind::Token) > 0, "{outcome:?}");
}

#[tokio::test]
async fn redirects_lead_nowhere_but_to_public_addresses_and_those_that_are_named() {
    let (index, upstream) = one(Access::Basic).await;
    upstream.redirect_blobs(true);
    let blob = &index.images[0].config;
    let mirror = Mirror::of(&upstream);
    assert!(matches!(mirror.puller().blob(REPOSITORY, blob).await, Outcome::Failed(_)));
    assert_eq!(upstream.count(Kind::Storage), 0);

    let named = Mirror::start(&entry("one.example", &upstream, ", redirectHosts: [\"127.0.0.1\"]"), "");
    assert_eq!(named.puller().pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    assert!(upstream.count(Kind::Storage) > 0 && upstream.problems().is_empty(), "{:?}", upstream.problems());

    let port = upstream.storage.port();
    let blob = &index.images[1].config;
    for place in [
        format!("http://localhost:{port}/blob/{}", blob.digest),
        format!("http://[::1]:{port}/blob/{}", blob.digest),
        format!("http://[::ffff:127.0.0.1]:{port}/blob/{}", blob.digest),
        format!("http://127.0.0.2:{port}/blob/{}", blob.digest),
        format!("http://0.0.0.0:{port}/blob/{}", blob.digest),
        format!("http://2130706433:{port}/blob/{}", blob.digest),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://alice:alice-secret@127.0.0.1/".to_owned(),
        String::new(),
    ] {
        upstream.forget_seen();
        upstream.rule(Rule::always(Kind::GetBlob, Fault::Elsewhere(place.clone())).of(&blob.digest));
        // Another way to write a named address names it.
        let may = place.contains("2130706433");
        for mirror in [&mirror, &named].into_iter().take(if may { 1 } else { 2 }) {
            let outcome = mirror.puller().blob(REPOSITORY, blob).await;
            assert!(matches!(outcome, Outcome::Failed(_)), "{place}: {outcome:?}");
            assert_eq!(upstream.count(Kind::Storage), 0, "{place}");
        }
        upstream.heal();
    }
    for mirror in [mirror, named] {
        assert!(!mirror.log().contains("-secret") && !mirror.log().contains("signature="), "{}", mirror.log());
    }
}

#[tokio::test]
async fn bodies_without_end_cost_no_memory_and_no_disk() {
    let (index, upstream) = one(Access::Basic).await;
    for kind in [Kind::GetManifest, Kind::GetTag, Kind::GetBlob] {
        upstream.rule(Rule::always(kind, Fault::Endless));
    }
    let mirror = Mirror::of(&upstream);
    let puller = mirror.puller();
    let image = &index.images[0];
    for _ in 0..3 {
        assert!(matches!(puller.blob(REPOSITORY, &image.config).await, Outcome::Failed(_)));
        assert!(matches!(puller.image(REPOSITORY, image).await, Outcome::Failed(_)));
        assert!(matches!(puller.clone().podman().pull(REPOSITORY, TAG, &index, 0).await, Outcome::Failed(_)));
    }
    eventually(async || super::served::bytes_below(&mirror.root().join("wharf")) < 1024 * 1024).await;
    let most = mirror.memory("VmHWM:");
    assert!(most < 128 * 1024, "{most} KiB");
}

#[test]
fn credentials_in_addresses_are_refused_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("serve.yaml");
    for place in ["https://user:secret@registry.example.com", "https://secret@registry.example.com"] {
        let text = format!("root: /data\nmirrors:\n- {{host: one.example, endpoints: [\"{place}\"]}}\n");
        std::fs::write(&file, text).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wharf"));
        let output = command.args(["config", "check", file.to_str().unwrap()]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("endpoint") && !text.contains("secret"), "{text}");
    }
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wharf"));
    let text = run_command(command.args(["config", "schema"]));
    assert!(text.contains("mirrors"), "{text}");
}

#[tokio::test]
async fn a_mirror_of_itself_ends_the_circle() {
    let address = free_address();
    let config = format!("mirrors:\n- {{host: one.example, endpoints: [\"http://{address}\"], default: true}}\n");
    let mirror = Mirror::start_at(address, &config);
    let client = Client::new(&address.to_string());
    let came = come(&client, Method::GET, "/v2/a/manifests/1?ns=one.example", &[], PATIENCE, MOST).await.unwrap();
    assert!(came.status == 508 || came.status == 503, "{came:?}");
    // Two of them are a circle too.
    let addresses = [free_address(), free_address()];
    let circle: Vec<Mirror> = (0..2)
        .map(|number| {
            let next = addresses[1 - number];
            let config = format!("mirrors:\n- {{host: one.example, endpoints: [\"http://{next}\"], default: true}}\n");
            Mirror::start_at(addresses[number], &config)
        })
        .collect();
    let client = Client::new(&circle[0].address.to_string());
    let came = come(&client, Method::GET, "/v2/a/manifests/1?ns=one.example", &[], PATIENCE, MOST).await.unwrap();
    assert!(came.status == 508 || came.status == 503, "{came:?}");
    drop(mirror);
}

#[tokio::test]
async fn a_mirror_of_a_mirror_is_one() {
    let (index, upstream) = one(Access::Basic).await;
    let near = Mirror::start(&entry("one.example", &upstream, ", default: true"), "");
    let config = format!("- {{host: one.example, endpoints: [\"http://{}\"]}}\n", near.address);
    let far = Mirror::start(&config, "");
    for _ in 0..2 {
        assert_eq!(far.puller().pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    }
    assert_eq!(upstream.count(Kind::GetBlob), 2);
}
