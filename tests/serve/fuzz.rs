//! Whatever bytes clients send where names, digests, ranges, manifests and chunks belong: readers refuse it or understand it
//! the one right way, and never panic. Inputs are random changes of good ones; no coverage guides them. `make test-long` gives
//! each target a minute, with another seed each time; what fails is printed whole.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::stream;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wharf::oci::range::{Requested, chunk, requested};
use wharf::oci::{Algorithm, Digest, Manifest, ManifestType, RepositoryName, path};
use wharf::serve::repository::{Chunk, Error, Repositories, UploadId};
use wharf::serve::store::Filesystem;
use wharf::serve::upstream::{self, challenge};

use super::power::repositories;

type Piece = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

const LONG: Duration = Duration::from_secs(60);
const WORDS: [&str; 26] = [
    "..",
    ".",
    "/",
    "//",
    "%2f",
    "\0",
    "_",
    "__",
    "-",
    "--",
    ":",
    "sha256:",
    "sha512:",
    "0",
    "18446744073709551615",
    "99999999999999999999",
    "bytes=",
    ",",
    "{}",
    "[]",
    "null",
    "\"subject\":",
    "\"manifests\":[]",
    "\u{202e}",
    "é",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// The seed of a run, and whether another case is to be tried.
fn run() -> (u64, impl FnMut(u64) -> bool) {
    let long = std::env::var_os("WHARF_TEST_LONG").map(|_| Instant::now() + LONG);
    let seed = if long.is_some() { rand::random() } else { 1 };
    (seed, move |cases| if let Some(end) = long { Instant::now() < end } else { cases > 0 })
}

/// Checks random inputs: in a short run so many.
fn fuzz(cases: u64, corpus: &[&str], check: impl Fn(&[u8])) {
    let (seed, mut goes_on) = run();
    let mut random = StdRng::seed_from_u64(seed);
    let mut left = cases;
    while goes_on(left) {
        left = left.saturating_sub(1);
        let mut input = corpus[random.random_range(0..corpus.len())].as_bytes().to_vec();
        for _ in 0..random.random_range(0..6) {
            change(&mut random, corpus, &mut input);
        }
        let checked = catch_unwind(AssertUnwindSafe(|| check(&input)));
        assert!(checked.is_ok(), "seed {seed}: {:?}", input.escape_ascii().to_string());
    }
}

fn change(random: &mut StdRng, corpus: &[&str], input: &mut Vec<u8>) {
    let at = random.random_range(0..=input.len());
    let to = random.random_range(at..=input.len().min(at + 80));
    match random.random_range(0..6) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 => drop(input.drain(at..to)),
        2 => {
            let word = WORDS[random.random_range(0..WORDS.len())];
            input.splice(at..at, word.bytes());
        }
        3 => {
            let word = WORDS[random.random_range(0..WORDS.len())];
            input.splice(at..to, word.bytes());
        }
        4 => {
            let again = input[at..to].to_vec();
            input.splice(at..at, again);
        }
        _ => {
            let other = corpus[random.random_range(0..corpus.len())].as_bytes();
            input.truncate(at);
            input.extend_from_slice(&other[random.random_range(0..=other.len())..]);
        }
    }
}

/// The protocol's grammar of names, written down a second time.
fn is_name(text: &str) -> bool {
    let is_part = |mut rest: &str| loop {
        let letters = rest.bytes().take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()).count();
        rest = &rest[letters..];
        if letters == 0 || rest.is_empty() {
            return letters > 0;
        }
        let joint = rest.bytes().take_while(|byte| b"._-".contains(byte)).count();
        if joint == 0 || !([".", "_", "__"].contains(&&rest[..joint]) || rest[..joint].bytes().all(|byte| byte == b'-'))
        {
            return false;
        }
        rest = &rest[joint..];
    };
    text.len() <= 255 && text.split('/').all(is_part)
}

#[test]
fn names_and_paths() {
    let corpus = [
        "library/nginx",
        "a",
        "a-b/c.d/e__f",
        "/v2/",
        "/v2/a/b/manifests/latest",
        "/v2/a/tags/list",
        "/v2/a/blobs/uploads/",
        "/v2/a/blobs/uploads/0123",
        "/v2/a/referrers/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ];
    fuzz(20_000, &corpus, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let name = text.parse::<RepositoryName>();
        assert_eq!(name.is_ok(), is_name(text));
        assert!(name.is_ok_and(|name| name.as_str() == text) || !is_name(text));
        let Ok(endpoint) = path::parse(text) else { return };
        assert_eq!(path::parse(&endpoint.to_string()), Ok(endpoint.clone()));
        assert!(endpoint.repository().is_none_or(|name| is_name(name.as_str())));
    });
}

#[test]
fn digests() {
    let (short, long) = (Digest::of(Algorithm::Sha256, b""), Digest::of(Algorithm::Sha512, b""));
    fuzz(20_000, &[short.as_str(), long.as_str()], |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let expected = [("sha256:", 64), ("sha512:", 128)].iter().any(|(start, length)| {
            text.strip_prefix(start).is_some_and(|hex| {
                hex.len() == *length && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
            })
        });
        let digest = text.parse::<Digest>();
        assert_eq!(digest.is_ok(), expected);
        assert!(digest.is_ok_and(|digest| digest.as_str() == text) || !expected);
    });
}

#[test]
fn challenges() {
    let corpus = [
        "Bearer realm=\"https://auth.example/token\",service=\"a\",scope=\"repository:a/b:pull,push\"",
        "Basic realm=x, Bearer realm=\"y\\\"z\" , service = w",
        "Negotiate YWJj==, Basic",
    ];
    fuzz(20_000, &corpus, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let found = challenge::parse(text);
        // What was read can be written down in one way, and is read as the same.
        let written = found.iter().map(|challenge| {
            let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
            let parameters = challenge.parameters.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value)));
            format!("{} {}", challenge.scheme, parameters.collect::<Vec<_>>().join(","))
        });
        let written = written.collect::<Vec<_>>().join(", ");
        assert!(written.len() > 8 * 1024 || challenge::parse(&written) == found, "{written}");
    });
}

#[test]
fn endpoints_of_upstreams() {
    let corpus = ["https://ghcr.io", "http://127.0.0.1:5000/v2/a/b/", "https://[::1]:443/x", "https://u:p@a?b#c"];
    fuzz(20_000, &corpus, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Ok(endpoint) = text.parse::<upstream::Endpoint>() else { return };
        let written = endpoint.to_string();
        assert!(!text.contains(['@', '?', '#']) && written.starts_with("http"), "{written}");
        assert_eq!(written.parse(), Ok(endpoint));
    });
}

#[test]
fn ranges() {
    fuzz(20_000, &["bytes=0-0", "bytes=5-", "bytes=-7", "bytes=0-1,3-4", "0-9", "bytes 0-9/10"], |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        for length in [0, 1, 10, u64::MAX] {
            if let Requested::Part(range) = requested(text, length) {
                assert!(range.start < range.end && range.end <= length, "{range:?}");
            }
        }
        assert!(chunk(text).is_none_or(|range| range.start < range.end));
    });
}

#[test]
fn manifests() {
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let part = format!("{{\"mediaType\":\"application/x\",\"digest\":\"{digest}\",\"size\":1}}");
    let corpus = [
        format!(
            "{{\"schemaVersion\":2,\"config\":{part},\"layers\":[{part},{part}],\"subject\":{part},\"annotations\":{{\"a\":\"b\"}}}}"
        ),
        format!("{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"manifests\":[{part}]}}", ManifestType::OciIndex.as_str()),
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"config\":{part},\"layers\":[]}}",
            ManifestType::DockerImage.as_str()
        ),
    ];
    fuzz(20_000, &corpus.each_ref().map(String::as_str), |input| {
        let Ok(manifest) = Manifest::parse(input) else { return };
        let text = std::str::from_utf8(input);
        if let Ok(text) = text {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(value["schemaVersion"], 2);
        }
        assert!(if manifest.kind.is_index() { manifest.blobs.is_empty() } else { manifest.children.is_empty() });
        for kind in ManifestType::ALL {
            assert_eq!(Manifest::parse_announced(input, kind.as_str()).is_ok(), kind == manifest.kind && text.is_ok());
        }
        let descriptor = manifest.descriptor(Digest::of(Algorithm::Sha256, input), input.len() as u64);
        assert!(descriptor.written_length() > 0);
    });
}

/// Sends one chunk, right or wrong; what the upload must have afterwards is added to the model.
async fn send(random: &mut StdRng, to: &Arc<Repositories>, name: &RepositoryName, id: &UploadId, model: &mut Vec<u8>) {
    let pieces: Vec<Vec<u8>> =
        (0..random.random_range(0..4)).map(|_| vec![random.random(); random.random_range(0..9)]).collect();
    let (mut body, breaks) = (pieces.concat(), random.random_range(0..6) == 0);
    let length = model.len() as u64;
    let range = match random.random_range(0..5) {
        0 => None,
        1 => Some(random.random_range(0..20)..random.random_range(0..40)),
        2 => Some(u64::MAX - 3..u64::MAX),
        _ => Some(length..length + body.len() as u64),
    };
    // No reader of headers lets an empty or a reversed range through.
    let range = range.filter(|range| range.start < range.end);
    let sent = pieces.into_iter().map(|piece| Ok(Bytes::from(piece)));
    let broken = breaks.then(|| Err("the connection broke".into()));
    let chunk = Chunk { range: range.clone(), body: stream::iter(sent.chain(broken).collect::<Vec<Piece>>()) };
    let answer = to.append(name, id, chunk).await;
    let announced = range.as_ref().map_or(body.len() as u64, |range| range.end - range.start);
    let expected = match &range {
        Some(range) if range.start != length => "out of order",
        _ if body.len() as u64 > announced || (!breaks && body.len() as u64 != announced) => "another length",
        _ if breaks => "broken",
        _ => "taken",
    };
    let found = match &answer {
        Ok(_) => "taken",
        Err(Error::OutOfOrder { .. }) => "out of order",
        Err(Error::ChunkLength { .. }) => "another length",
        Err(Error::Receive(_)) => "broken",
        Err(error) => panic!("{error}"),
    };
    assert_eq!(found, expected, "{range:?}, {} bytes after {length}", body.len());
    if matches!(expected, "taken" | "broken") {
        model.append(&mut body);
    }
    assert_eq!(to.upload_progress(name, id).await.unwrap().length, model.len() as u64);
}

#[tokio::test]
async fn upload_offsets() {
    let (seed, mut goes_on) = run();
    let mut random = StdRng::seed_from_u64(seed);
    let root = tempfile::tempdir().unwrap();
    let (to, name) = (repositories(Filesystem::open(root.path()).unwrap()), "a".parse().unwrap());
    let mut left = 40;
    println!("seed {seed}");
    while goes_on(left) {
        left = u64::saturating_sub(left, 1);
        let (id, mut model) = (UploadId::from_random(random.random()), Vec::new());
        to.begin_upload(&name, id.clone(), Algorithm::Sha256).await.unwrap();
        for _ in 0..random.random_range(0..8) {
            send(&mut random, &to, &name, &id, &mut model).await;
        }
        let digest = Digest::of(Algorithm::Sha256, &model);
        to.finish_upload(&name, &id, Chunk { range: None, body: stream::empty::<Piece>() }, &digest).await.unwrap();
        let blob = to.blob(&name, &digest).await.unwrap();
        let bytes = blob.content.read(0..blob.content.length(), BytesMut::new()).await.unwrap();
        assert_eq!(bytes, model);
    }
}
