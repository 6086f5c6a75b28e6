//! A mirror for the agents of nodes alone: who is none gets nothing of other registries, and who is one what the pull's own
//! credential gives him.

use bytes::Bytes;
use http::{Method, StatusCode};
use wharf::oci::canary;

use super::faults::{REPOSITORY, TAG};
use super::private::Shared;
use super::pull::{Came, Outcome, Puller};
use super::served::{Mirror, entry};
use super::token_reviews::{AGENT, AUDIENCE, TokenReviews};
use super::upstream::content::Index;
use super::upstream::faults::Kind;
use super::upstream::{Access, Upstream};
use crate::process::free_address;

const SIZES: [usize; 2] = [2_000, 90_000];

fn agents_only() -> String {
    format!("clients: {{agents: {{serviceAccount: '{AGENT}', audience: {AUDIENCE}}}}}\nlocalNames: [own.example]\n")
}

fn is_refused(came: &Came, what: &str) {
    assert_eq!((came.status, came.header("wharf-refused")), (StatusCode::FORBIDDEN, "agent-token"), "{what}: {came:?}");
    assert!(came.header("www-authenticate").is_empty() && came.header("etag").is_empty(), "{what}: {came:?}");
    let text = String::from_utf8_lossy(&came.bytes);
    assert!(text.is_empty() || text.contains("DENIED") && text.contains("spec.clients: Cluster"), "{what}: {text}");
}

#[tokio::test]
async fn only_agents_get_what_other_registries_have() {
    let index = Index::of_seed(1, &SIZES);
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    let reviews = TokenReviews::start().await;
    let mirror = Mirror::start_with(&entry("one.example", &upstream, ""), &agents_only(), reviews.environment());
    let [good, other, elsewhere] =
        [(AGENT, AUDIENCE), ("system:serviceaccount:default:wharf-agent", AUDIENCE), (AGENT, "https://kubernetes")]
            .map(|(user, audience)| reviews.token(user, audience));
    let stranger = mirror.puller();
    let strangers = [("none", stranger.clone()), ("podman", stranger.clone().podman())].into_iter();
    let strangers: Vec<(&str, Puller)> = strangers
        .chain(["invented", &other, &elsewhere].map(|token| ("token", stranger.clone().agent(token))))
        .collect();
    let tags = format!("{REPOSITORY}/tags/list");
    let blob = format!("{REPOSITORY}/blobs/{}", index.images[0].layers[0].digest);
    let refused = async |case: &str| {
        for (number, (kind, puller)) in strangers.iter().enumerate() {
            for rest in
                [format!("{REPOSITORY}/manifests/{TAG}"), blob.clone(), tags.clone(), "other/tags/list".to_owned()]
            {
                for method in [Method::HEAD, Method::GET] {
                    let came = puller.ask(method.clone(), &rest, &[]).await;
                    is_refused(&came, &format!("{case}: {kind} {number} {method} {rest}"));
                }
            }
        }
    };
    refused("before").await;
    assert_eq!(upstream.seen().len(), 0, "something was asked for a stranger");
    let agent = stranger.clone().agent(&good);
    for puller in [agent.clone(), agent.clone().podman()] {
        assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    }
    refused("after").await;
    assert_eq!(agent.get(&tags).await.status, 200);
    // Each token was asked for once, though the wrong ones may have been so twice in this time.
    assert!(reviews.asked() <= 8, "{}", reviews.asked());
    assert_eq!(reviews.problems(), Vec::<String>::new());
    for seen in upstream.seen() {
        assert!(!seen.headers.contains_key("wharf-agent-token"), "{seen:?}");
    }
    // What is this server's own is everybody's, and `/v2/` too.
    let client = stranger.client.clone();
    client.push_image("mine/app", "1", &[b"{}", b"mine"]).await;
    for target in ["/v2/", "/v2/?ns=one.example", "/v2/mine/app/manifests/1", "/v2/mine/app/manifests/1?ns=own.example"]
    {
        for client in [&client, &strangers[2].1.client] {
            assert_eq!(client.get(target).await.status, 200, "{target}");
        }
    }
    let twice = [("wharf-agent-token", good.as_str()), ("wharf-agent-token", other.as_str())];
    assert_eq!(stranger.ask(Method::GET, &blob, &twice).await.status, 400);
    assert!(!mirror.log().contains("secret"), "{}", mirror.log());
}

#[tokio::test]
async fn who_was_an_agent_stays_one_while_the_api_server_is_away() {
    let index = Index::of_seed(2, &SIZES);
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    let reviews = TokenReviews::start().await;
    let mirror = Mirror::start_with(&entry("one.example", &upstream, ""), &agents_only(), reviews.environment());
    let [known, unknown] = [(); 2].map(|()| reviews.token(AGENT, AUDIENCE));
    let [known, unknown] = [known, unknown].map(|token| mirror.puller().agent(&token));
    assert_eq!(known.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    let rest = format!("{REPOSITORY}/manifests/{TAG}");
    reviews.refuse(Some(403));
    let came = unknown.get(&rest).await;
    assert!(came.status == 503 && !came.header("retry-after").is_empty(), "{came:?}");
    let log = mirror.log();
    assert!(log.contains("create") && log.contains("tokenreviews"), "{log}");
    reviews.leave();
    assert_eq!(unknown.get(&rest).await.status, 503);
    for puller in [&known, &known.another()] {
        assert_eq!(puller.pull(REPOSITORY, TAG, &index, 0).await, Outcome::Right);
    }
    // Without it, nothing is known any more; and it starts all the same.
    mirror.stop_and_start();
    assert_eq!(known.another().get(&rest).await.status, 503);
    assert_eq!(mirror.puller().get("wharf/canary/manifests/latest").await.status, 200);
    assert!(!mirror.log().contains("secret"), "{}", mirror.log());
}

#[tokio::test]
async fn the_canary_is_everybody_s_whatever_is_mirrored_and_nobody_changes_it() {
    let index = Index::of_seed(3, &SIZES);
    let upstream = Upstream::with([("wharf/canary", index.is_tagged("latest"))]).await;
    let reviews = TokenReviews::start().await;
    let default = entry("one.example", &upstream, ", default: true");
    let mirror = Mirror::start_with(&default, &agents_only(), reviews.environment());
    let hash = bcrypt::hash("secret", 4).unwrap();
    let users = mirror.folder.join("users");
    std::fs::write(&users, format!("me:{hash}\n")).unwrap();
    let closed = Mirror::start(&default, &format!("access: {{users: {}}}\n", users.display()));
    let folder = tempfile::tempdir().unwrap();
    let bare = crate::operation::serve(folder.path(), "");
    let (manifest, config) = (canary::MANIFEST_DIGEST, canary::CONFIG_DIGEST);
    for (client, names) in [
        (mirror.puller().client, &["", "?ns=one.example", "?ns=own.example"][..]),
        (closed.puller().client, &["", "?ns=one.example"]),
        (bare.client(), &["", "?ns=whatever.example"]),
    ] {
        for name in names {
            for (rest, bytes) in [
                ("manifests/latest".to_owned(), canary::MANIFEST),
                (format!("manifests/{manifest}"), canary::MANIFEST),
                (format!("blobs/{config}"), canary::CONFIG),
            ] {
                let target = format!("/v2/wharf/canary/{rest}{name}");
                let came = client.get(&target).await;
                assert_eq!((came.status, &came.body[..]), (StatusCode::OK, bytes), "{target}");
                let head = client.send(Method::HEAD, &target, &[], Bytes::new()).await.unwrap();
                let length = bytes.len().to_string();
                assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, length.as_str()), "{target}");
                assert_eq!(head.header("docker-content-digest"), came.header("docker-content-digest"));
            }
            for (rest, code) in [
                ("manifests/other".to_owned(), "MANIFEST_UNKNOWN"),
                (format!("blobs/{manifest}"), "BLOB_UNKNOWN"),
                ("tags/list".to_owned(), "NAME_UNKNOWN"),
            ] {
                let came = client.get(&format!("/v2/wharf/canary/{rest}{name}")).await;
                assert_eq!((came.status.as_u16(), came.code().as_str()), (404, code), "{rest}{name}");
            }
        }
        for (method, rest) in
            [(Method::POST, "blobs/uploads/"), (Method::PUT, "manifests/latest"), (Method::DELETE, "manifests/latest")]
        {
            let came = client.send(method, &format!("/v2/wharf/canary/{rest}"), &[], Bytes::new()).await.unwrap();
            let text = String::from_utf8_lossy(&came.body).into_owned();
            assert!(came.status == 403 && text.contains("cannot be changed"), "{rest}: {came:?}");
        }
    }
    assert_eq!(upstream.seen().len(), 0);
    let came = mirror.puller().podman().get("wharf/canary/manifests/latest").await;
    assert_eq!((came.status, &came.bytes[..]), (StatusCode::OK, canary::MANIFEST));
    // A token that is shown is looked at.
    let good = reviews.token(AGENT, AUDIENCE);
    for (token, status) in [(good.as_str(), 200), ("invented", 403)] {
        let came = mirror.puller().agent(token).get("wharf/canary/manifests/latest").await;
        assert_eq!(
            (came.status.as_u16(), came.header("wharf-refused").is_empty()),
            (status, status == 200),
            "{came:?}"
        );
    }
}

/// What a kubelet gives along with a pod's pull is the pull's right, and the agent adds none.
#[tokio::test]
async fn a_private_image_is_given_through_an_agent_only_with_the_pull_s_own_credential() {
    let shared = Shared::new(Access::Tokens, "one.example", 4).await;
    let reviews = TokenReviews::start().await;
    let mirror = Mirror::start_with(&entry("one.example", &shared.upstream, ""), &agents_only(), reviews.environment());
    let token = reviews.token(AGENT, AUDIENCE);
    let [alice, bob, nobody] =
        [Some("alice"), Some("bob"), None].map(|user| shared.puller(&mirror, user, "by agent").agent(&token));
    let image = &shared.images[1];
    let objects = [
        format!("team/of-alice/manifests/{}", super::faults::TAG),
        format!("team/of-alice/manifests/{}", image.manifest.digest),
        format!("team/of-alice/blobs/{}", shared.layer.digest),
    ];
    for case in ["cold", "cached", "away"] {
        if case == "away" {
            mirror.settles().await;
            shared.upstream.leave().await;
        }
        for (rest, method) in objects.iter().flat_map(|rest| [(rest, Method::HEAD), (rest, Method::GET)]) {
            let without = nobody.ask(method.clone(), rest, &[]).await;
            assert_eq!(without.status, 401, "{case}: {rest}: {without:?}");
            assert!(without.header("www-authenticate").starts_with("Basic "), "{case}: {rest}: {without:?}");
            let wrong = bob.ask(method, rest, &[]).await;
            assert!(matches!(wrong.status.as_u16(), 401 | 403 | 404 | 503), "{case}: {rest}: {wrong:?}");
            assert!(wrong.header("etag").is_empty() && wrong.header("docker-content-digest").is_empty(), "{wrong:?}");
        }
        if case == "cold" {
            assert_eq!(shared.upstream.count(Kind::GetBlob), 0, "fetched for a stranger");
        }
        assert_eq!(alice.image("team/of-alice", image).await, Outcome::Right, "{case}");
        // A pod that brings alice's credential and is no agent has nothing.
        is_refused(&shared.puller(&mirror, Some("alice"), case).get(&objects[2]).await, case);
    }
    assert!(!mirror.log().contains("-secret"), "{}", mirror.log());
}

/// By its own address, where it asks without an agent's token; and by an agent's, which passes on through whom a request came.
#[tokio::test]
async fn a_mirror_of_itself_is_a_loop_also_where_only_agents_are_answered() {
    let reviews = TokenReviews::start().await;
    let index = Index::of_seed(5, &SIZES);
    let upstream = Upstream::with([(REPOSITORY, index.is_tagged(TAG))]).await;
    let (address, token) = (free_address(), reviews.token(AGENT, AUDIENCE));
    let own = format!("- {{host: own.example, endpoints: [\"http://{address}/v2/own.example\"]}}\n");
    let mirrors = entry("one.example", &upstream, "") + &own;
    let config = format!("{}mirrors:\n{mirrors}", agents_only().replace("[own.example]", "[]"));
    let mirror = Mirror::start_at_with(address, &config, reviews.environment());
    let rest = format!("{REPOSITORY}/manifests/{TAG}");
    let circle = Puller::new(address, "own.example").agent(&token);
    assert_eq!(circle.get(&rest).await.status, 508);
    let agent = mirror.puller().agent(&token);
    assert_eq!(agent.get(&rest).await.status, 200);
    let via = upstream.seen()[0].headers["via"].to_str().unwrap().to_owned();
    for puller in [agent, mirror.puller()] {
        assert_eq!(puller.ask(Method::GET, &rest, &[("via", &via)]).await.status, 508);
    }
}
