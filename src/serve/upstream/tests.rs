//! Questions to servers on loopback that answer what a test says.

mod away;
mod blobs;
mod lists;
mod manifests;
mod proxies;
mod redirects;
mod secrets;
mod server;
mod tokens;

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;

use crate::oci::{Algorithm, Digest, ManifestType, RepositoryName};

use self::server::{Reply, Request, Server};
use super::transport::{Limits, Proxies};
use super::{
    Basic, BreakerState, Failure, FetchedManifest, Head, Identity, Listed, Object, Settings, Source, Upstream,
};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
const BLOB: &[u8] = b"0123456789";
const PASSWORD: &str = "a-password-nobody-may-see";
const TOKEN: &str = "a-token-nobody-may-see";

/// Waits that no test reaches where it does not mean to.
const PATIENT: Limits = Limits {
    connect: Duration::from_secs(60),
    head: Duration::from_secs(60),
    all: Duration::from_secs(60),
    progress: Duration::from_secs(60),
};

fn settings(endpoints: &[String]) -> Settings {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect();
    Settings { endpoints, ..Settings::of("registry.example".parse().unwrap()) }
}

fn upstream_of(settings: Settings) -> Upstream {
    Upstream::with(settings, "wharf-test", Proxies::None, PATIENT).unwrap()
}

fn upstream(server: &Server) -> Upstream {
    upstream_of(settings(&[server.url()]))
}

fn repository() -> RepositoryName {
    "a/b".parse().unwrap()
}

fn blob() -> Digest {
    Digest::of(Algorithm::Sha256, BLOB)
}

fn manifest() -> Digest {
    Digest::of(Algorithm::Sha256, MANIFEST.as_bytes())
}

fn person() -> Basic {
    Basic { user: "person".into(), password: PASSWORD.into() }
}

/// What any registry has.
fn content(request: &Request) -> Reply {
    match request.target.rsplit_once('/').unwrap() {
        ("/v2/a/b/manifests", _) => {
            Reply::new(200, &[("content-type", ManifestType::OciIndex.as_str())], MANIFEST.as_bytes())
        }
        ("/v2/a/b/blobs", _) => Reply::new(200, &[], BLOB),
        ("/v2/a/b/tags", _) => Reply::new(200, &[], br#"{"name":"a/b","tags":["latest"]}"#),
        _ => Reply::new(404, &[], b""),
    }
}

async fn read(source: &mut dyn Source, offset: u64) -> Result<(Option<u64>, Bytes), Failure> {
    let arriving = source.open(offset).await?;
    let bytes: Vec<Bytes> = arriving.bytes.try_collect().await?;
    Ok((arriving.length, bytes.concat().into()))
}

fn has_a_credential(request: &Request) -> bool {
    // person:a-password-nobody-may-see
    request.header("authorization") == Some("Basic cGVyc29uOmEtcGFzc3dvcmQtbm9ib2R5LW1heS1zZWU=")
}

async fn tag(upstream: &Upstream, identity: &Identity) -> Result<Digest, Failure> {
    let found = upstream.manifest(&repository(), &"latest".parse().unwrap(), identity).await;
    found.map(|manifest| manifest.digest)
}

fn is_away(found: &Result<Digest, Failure>) -> bool {
    matches!(found, Err(Failure::Away { .. }))
}

fn is_wrong(found: &Result<Digest, Failure>, with: &str) -> bool {
    matches!(found, Err(Failure::Wrong { problem, .. }) if problem.contains(with))
}

#[tokio::test]
async fn a_plain_registry_gives_what_it_has() {
    let server = Server::new(content).await;
    let upstream = upstream(&server);
    let (name, me) = (repository(), Identity::Own);
    let found = upstream.manifest(&name, &"latest".parse().unwrap(), &me).await.unwrap();
    let (bytes, media_type) = (Bytes::from_static(MANIFEST.as_bytes()), ManifestType::OciIndex);
    assert_eq!(found, FetchedManifest { digest: manifest(), media_type, bytes });
    let object = Object::Blob(name.clone(), blob());
    let head = Head { length: Some(10), ..Head::default() };
    assert_eq!(upstream.head(&object, &me).await, Ok(head));
    let mut source = upstream.blob(&name, &blob(), &me);
    assert_eq!(read(&mut *source, 0).await.unwrap(), (Some(10), Bytes::from_static(BLOB)));
    let tags = upstream.list(&name, &Listed::Tags(Some("a&b".into()), Some(5)), &me).await.unwrap();
    assert!(tags.bytes.starts_with(b"{\"name\""));
    let lines = server.lines();
    assert_eq!(lines[0], "GET /v2/a/b/manifests/latest");
    assert_eq!(lines[3], "GET /v2/a/b/tags/list?n=5&last=a%26b");
    for request in server.asked() {
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        assert_eq!(request.header("via"), Some("1.1 wharf-test"));
        assert_eq!(request.header("authorization"), None);
    }
    let accept = server.asked()[0].header("accept").unwrap().to_owned();
    assert!(ManifestType::ALL.iter().all(|known| accept.contains(known.as_str())), "{accept}");
    assert_eq!(upstream.health().endpoints[0].breaker, BreakerState::Closed);
}

#[tokio::test]
async fn an_authority_of_the_settings_is_believed_and_tls_is_not_left() {
    let (server, authority) = Server::secure(|request| match request.target.strip_suffix("/latest") {
        Some(_) => content(request),
        None => Reply::new(307, &[("location", &format!("http://{}/v2/", request.header("host").unwrap()))], b""),
    })
    .await;
    let plain = settings(&[format!("https://localhost:{}", server.port)]);
    let found = tag(&upstream_of(plain.clone()), &Identity::Own).await;
    assert!(matches!(&found, Err(Failure::Away { problem, .. }) if problem.contains("certificate")), "{found:?}");
    let upstream = upstream_of(Settings { authorities: Some(authority.into()), ..plain });
    assert_eq!(tag(&upstream, &Identity::Own).await, Ok(manifest()));
    let mut source = upstream.blob(&repository(), &blob(), &Identity::Own);
    assert!(matches!(source.open(0).await, Err(Failure::Wrong { problem, .. }) if problem.contains("TLS")));
    assert_eq!(server.lines().len(), 2);
}
