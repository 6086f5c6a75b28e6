//! How a mirror is reached and run: whose content a request gets, who may ask, and what is taken up while it runs. The upstream
//! is the same server; what it does when it misbehaves is held against another one, in `mirror`.

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::{Client, digest};
use super::operation::{basic, eventually, serve};
use super::process::{Process, free_address};

/// A registry with one image: `team/app:1`.
async fn upstream(folder: &std::path::Path, layer: &[u8]) -> (Process, Bytes) {
    let process = Process::serve(folder);
    let manifest = process.client().push_image("team/app", "1", &[b"{}", layer]).await;
    (process, manifest)
}

#[tokio::test]
async fn each_form_of_request_gets_the_content_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, manifest) = upstream(&folder.path().join("up"), b"layer").await;
    let mirror = serve(
        folder.path(),
        &format!(
            "mirrors: [{{host: up.example, endpoints: ['http://{}'], default: true}}]\nlocalNames: [team.platform.svc]\n",
            origin.address
        ),
    );
    let client = mirror.client();
    let local = client.push_image("mine/app", "1", &[b"{}", b"mine"]).await;
    let get = async |target: &str| client.get(&format!("/v2/{target}")).await;
    let layer = digest(b"layer");
    for (target, from, body) in [
        ("team/app/manifests/1?ns=up.example", "up.example", &manifest),
        ("up.example/team/app/manifests/1", "up.example", &manifest),
        ("up.example/team/app/manifests/1?ns=up.example", "up.example", &manifest),
        ("team/app/manifests/1", "up.example", &manifest),
        (&format!("team/app/blobs/{layer}?ns=up.example"), "up.example", &Bytes::from("layer")),
        ("mine/app/manifests/1", "", &local),
        ("mine/app/manifests/1?ns=team.platform.svc", "", &local),
    ] {
        let answer = get(target).await;
        assert_eq!((answer.status, &answer.body), (StatusCode::OK, body), "{target}");
        assert_eq!(answer.header("oci-namespace"), from, "{target}");
    }
    for (target, status, code) in [
        ("team/app/manifests/1?ns=other.example", 404, "NAME_UNKNOWN"),
        ("team/app/manifests/1?ns=169.254.169.254", 404, "NAME_UNKNOWN"),
        ("team/app/manifests/1?ns=http%3A%2F%2Fup.example", 400, "NAME_INVALID"),
        ("team/app/manifests/1?ns=up.example&ns=up.example", 400, "NAME_INVALID"),
        ("team/app/manifests/2?ns=up.example", 404, "MANIFEST_UNKNOWN"),
        (&format!("team/app/blobs/{}?ns=up.example", digest(b"none")), 404, "BLOB_UNKNOWN"),
        ("mine/app/manifests/1?ns=up.example", 404, "MANIFEST_UNKNOWN"),
        ("team/app/manifests/1?ns=team.platform.svc", 404, "MANIFEST_UNKNOWN"),
    ] {
        let answer = get(target).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{target}");
    }
    // Who pushes must not be spared what only another registry has.
    let head = client.send(Method::HEAD, &format!("/v2/team/app/blobs/{layer}"), &[], Bytes::new()).await.unwrap();
    assert_eq!(head.status, StatusCode::NOT_FOUND);
    for (method, target, status, code) in [
        (Method::POST, "/v2/up.example/a/blobs/uploads/", 403, "DENIED"),
        (Method::PUT, "/v2/a/manifests/1?ns=up.example", 405, "UNSUPPORTED"),
        (Method::DELETE, "/v2/up.example/team/app/manifests/1", 403, "DENIED"),
    ] {
        let answer = client.send(method, target, &[], Bytes::new()).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{target}");
    }
}

/// A laptop without a network: what is pushed here is nobody else's business.
#[tokio::test]
async fn a_push_does_not_hear_of_the_default_mirror_s_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let mirrors = format!("mirrors: [{{host: up.example, endpoints: ['http://{}'], default: true}}]\n", free_address());
    let process = serve(folder.path(), &mirrors);
    let client = process.client();
    let named = client.get("/v2/team/app/manifests/1?ns=up.example").await;
    assert_eq!((named.status, named.headers.contains_key("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, true));
    let head = client.send(Method::HEAD, "/v2/team/app/manifests/1", &[], Bytes::new()).await.unwrap();
    assert_eq!(head.status, StatusCode::NOT_FOUND);
    let manifest = client.push_image("team/app", "1", &[b"{}"]).await;
    assert_eq!(client.get("/v2/team/app/manifests/1").await.body, manifest);
}

#[tokio::test]
async fn lists_go_on_in_the_form_in_which_they_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, manifest) = upstream(&folder.path().join("up"), b"layer").await;
    let there = origin.client();
    for tag in ["2", "3"] {
        assert_eq!(there.put_manifest("team/app", tag, &manifest).await.unwrap().status, StatusCode::CREATED);
    }
    let mirrors = format!("mirrors: [{{host: up.example, endpoints: ['http://{}']}}]\n", origin.address);
    let mirror = serve(folder.path(), &mirrors);
    for form in ["team/app/tags/list?n=1&ns=up.example", "up.example/team/app/tags/list?n=1"] {
        let (mut target, mut tags) = (format!("/v2/{form}"), Vec::new());
        while !target.is_empty() {
            let answer = mirror.client().get(&target).await;
            let list: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            tags.extend(list["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()));
            target = answer.header("link").split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            assert!(
                target.is_empty()
                    || target
                        .starts_with(form.split('?').next().map(|path| "/v2/".to_owned() + path).unwrap().as_str())
            );
        }
        assert_eq!(tags, ["1", "2", "3"], "{form}");
    }
    let referrers = format!("/v2/team/app/referrers/{}?ns=up.example", digest(&manifest));
    let answer = mirror.client().get(&referrers).await;
    assert_eq!(answer.header("content-type"), "application/vnd.oci.image.index.v1+json");
}

#[tokio::test]
async fn a_request_that_comes_back_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    // It asks itself, as itself: under the prefix that leads to the same mirror again.
    let address = free_address();
    let file = folder.path().join("serve.yaml");
    let mirrors = format!("mirrors: [{{host: up.example, endpoints: ['http://{address}/v2/up.example']}}]\n");
    std::fs::write(&file, format!("root: {}/root\nlisten: {address}\n{mirrors}", folder.path().display())).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(["--log", "warn", "serve", "--config"]).arg(&file);
    let mirror = Process::start(&mut command, address);
    for target in
        ["team/app/manifests/1?ns=up.example".to_owned(), format!("team/app/blobs/{}?ns=up.example", digest(b""))]
    {
        let answer = mirror.client().get(&format!("/v2/{target}")).await;
        assert_eq!(answer.status, StatusCode::LOOP_DETECTED, "{target}: {answer:?}");
    }
}

#[tokio::test]
async fn a_user_here_is_nobody_there_and_others_may_be_somebody_there() {
    let folder = tempfile::tempdir().unwrap();
    let hash = bcrypt::hash("secret", 4).unwrap();
    let users = |name: &str| {
        let path = folder.path().join(format!("{name}.users"));
        std::fs::write(&path, format!("{name}:{hash}\n")).unwrap();
        format!("users: {}", path.display())
    };
    let there = tempfile::tempdir().unwrap();
    let origin = serve(there.path(), &format!("access: {{{}, anonymous: None}}\n", users("there")));
    let pusher = Client { authorization: Some(basic("there", "secret")), ..origin.client() };
    let manifest = pusher.push_image("team/app", "1", &[b"{}"]).await;
    for (anonymous, [nobody, here, theirs, bearer]) in [("Read", [401, 401, 200, 401]), ("None", [401, 401, 401, 401])]
    {
        let place = tempfile::tempdir().unwrap();
        let mirror = serve(
            place.path(),
            &format!(
                "access: {{{}, anonymous: {anonymous}}}\nmirrors: [{{host: up.example, endpoints: ['http://{}']}}]\n",
                users("here"),
                origin.address
            ),
        );
        let as_whom = |authorization: Option<String>| Client { authorization, ..mirror.client() };
        for (client, status) in [
            (as_whom(None), nobody),
            (as_whom(Some(basic("here", "secret"))), here),
            (as_whom(Some(basic("there", "secret"))), theirs),
            (as_whom(Some("Bearer token".to_owned())), bearer),
        ] {
            let answer = client.get("/v2/team/app/manifests/1?ns=up.example").await;
            assert_eq!(answer.status.as_u16(), status, "{anonymous} {:?}", client.authorization);
            assert_eq!(answer.header("www-authenticate").starts_with("Basic"), status == 401);
            assert!(status != 200 || answer.body == manifest);
        }
        let log = std::fs::read_to_string(place.path().join("log")).unwrap();
        assert!(!log.contains("secret") && !log.contains(&basic("there", "secret")), "{log}");
    }
}

#[tokio::test]
async fn mirrors_are_taken_up_while_connections_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, _) = upstream(&folder.path().join("up"), b"layer").await;
    let hash = bcrypt::hash("secret", 4).unwrap();
    std::fs::write(folder.path().join("users"), format!("robot:{hash}\n")).unwrap();
    let closed_root = folder.path().join("closed");
    std::fs::create_dir(&closed_root).unwrap();
    let closed = serve(&closed_root, &format!("access: {{users: {}/users}}\n", folder.path().display()));
    let pusher = Client { authorization: Some(basic("robot", "secret")), ..closed.client() };
    pusher.push_image("team/app", "1", &[b"{}"]).await;

    let one = format!("{{host: up.example, endpoints: ['http://{}']}}", origin.address);
    let mirror = serve(folder.path(), &format!("mirrors: [{one}]\n"));
    let client = mirror.client();
    let status = async |host: &str| client.get(&format!("/v2/team/app/manifests/1?ns={host}")).await.status.as_u16();
    assert_eq!((status("up.example").await, status("closed.example").await), (200, 404));
    // A connection that is there before everything.
    let mut stream = tokio::net::TcpStream::connect(mirror.address).await.unwrap();

    let place = |name: &str| folder.path().join(name).display().to_string();
    let write = |name: &str, text: &str| {
        std::fs::write(place("new"), text).unwrap();
        std::fs::rename(place("new"), place(name)).unwrap();
    };
    let other = format!(
        "{{host: closed.example, endpoints: ['http://{}'], credentials: {}, privateImages: Shared}}",
        closed.address,
        place("credential")
    );
    let head = format!("root: {}\nlisten: {}\n", place("root"), mirror.address);
    let log = || std::fs::read_to_string(place("log")).unwrap();
    write("serve.yaml", &format!("{head}mirrors: [{one}, {other}]\n"));
    eventually(async || log().contains("/credential")).await;
    assert_eq!(status("closed.example").await, 404);
    write("credential", "robot:wrong\n");
    eventually(async || status("closed.example").await != 404).await;
    assert_ne!(status("closed.example").await, 200);
    write("credential", "robot:secret\n");
    eventually(async || status("closed.example").await == 200).await;
    assert!(log().contains("may read this credential") && !log().contains("robot:"), "{}", log());
    write("serve.yaml", &format!("{head}mirrors: [{other}]\n"));
    eventually(async || status("up.example").await == 404).await;
    write("serve.yaml", &format!("{head}mirrors: []\n"));
    eventually(async || log().contains("\"mirrors\"")).await;
    assert_eq!(status("closed.example").await, 200);

    let request = "GET /v2/team/app/manifests/1?ns=closed.example HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
