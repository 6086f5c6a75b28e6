//! The engine of a live Registry is changed, both ways: whatever was pushed to one is served by the other, byte for byte.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Login, Namespace, client, decoded, eventually, get, kubectl};

/// The empty object, which is the configuration of what is no image.
const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A Registry whose engine is changed, and a client of it.
struct Registry {
    namespace: Namespace,
    login: Login,
}

/// What a request came to.
struct Answer {
    status: u16,
    location: String,
    body: String,
}

impl Registry {
    fn new(engine: &str) -> Self {
        let namespace = Namespace::new("engines");
        namespace.ready_registry("team", &format!("{{engine: {engine}}}"));
        let login = Login::new(&namespace, "team");
        let credentials = namespace.get("secret", "team-registry-credentials").expect("there is a credential");
        let text = |key: &str| String::from_utf8(decoded(credentials["data"][key].as_str().unwrap())).unwrap();
        let machine = format!("machine {} login {} password {}\n", login.address, text("username"), text("password"));
        std::fs::write(login.path("netrc"), machine).unwrap();
        Self { namespace, login }
    }

    /// Changes the engine and waits for its pod to be the only one, and to serve.
    fn switch(&self, engine: &str) {
        let patch = json!({"spec": {"engine": engine}}).to_string();
        kubectl(&["patch", "registry", "team", "-n", &self.namespace.name, "--type=merge", "-p", &patch]);
        eventually(&format!("{engine} serves alone"), || (self.serving()? == engine).then_some(()));
        self.namespace.wait_for("team", "Ready", "True/Ready");
    }

    /// The engine whose pod is the only one, and is ready.
    fn serving(&self) -> Option<&'static str> {
        let pods = get(&["pods", "-n", &self.namespace.name, "-l", "app.kubernetes.io/name=registry"])?;
        let [pod] = pods["items"].as_array()?.as_slice() else { return None };
        let statuses = pod["status"]["containerStatuses"].as_array()?;
        if !statuses.iter().all(|status| status["ready"] == true) || !pod["metadata"]["deletionTimestamp"].is_null() {
            return None;
        }
        let image = pod["spec"]["containers"][0]["image"].as_str()?;
        Some(if image.contains("distribution") { "Distribution" } else { "Wharf" })
    }

    fn usage(&self) -> Value {
        self.namespace.get("registry", "team").unwrap()["status"]["usage"].clone()
    }

    fn ask(&self, method: &str, target: &str, more: &[&str]) -> Answer {
        let url = if target.starts_with("https:") {
            target.to_owned()
        } else {
            format!("https://{}{target}", self.login.address)
        };
        let (netrc, authority) = (self.login.path("netrc"), self.login.path("ca.crt"));
        let format = "\n%{header_json}\n%{http_code}";
        let fixed = ["curl", "-sS", "--netrc-file", &netrc, "--cacert", &authority, "-w", format, "-X", method, &url];
        let said = client(&[&fixed, more].concat()).unwrap_or_else(|said| panic!("{method} {target}: {said}"));
        let (rest, status) = said.rsplit_once('\n').unwrap();
        let (body, headers) = rest.split_at(rest.rfind("\n{").unwrap());
        let headers: Value = serde_json::from_str(headers).unwrap();
        let location = headers["location"][0].as_str().unwrap_or_default().to_owned();
        Answer { status: status.parse().unwrap(), location, body: body.to_owned() }
    }

    /// Pushes content in one go.
    fn push_blob(&self, repository: &str, digest: &str, content: &str) {
        let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[]);
        assert_eq!(begun.status, 202, "{}", begun.body);
        let join = if begun.location.contains('?') { '&' } else { '?' };
        let target = format!("{}{join}digest={digest}", begun.location);
        let headers = ["-H", "Content-Type: application/octet-stream", "--data-binary", content];
        let done = self.ask("PUT", &target, &headers);
        assert_eq!(done.status, 201, "{}", done.body);
    }

    /// Says something about an image, as a signature does.
    fn push_referrer(&self, repository: &str, tag: &str, subject: &str) {
        self.push_blob(repository, EMPTY, "{}");
        let size = self.manifest(&format!("{repository}@{subject}")).len();
        let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.signature",
            "config": empty, "layers": [empty], "subject": {"mediaType": MANIFEST, "digest": subject, "size": size},
            "annotations": {"pushed": tag},
        });
        let content = format!("Content-Type: {MANIFEST}");
        let target = format!("/v2/{repository}/manifests/{tag}");
        let done = self.ask("PUT", &target, &["-H", &content, "--data-binary", &manifest.to_string()]);
        assert_eq!(done.status, 201, "{}", done.body);
    }

    /// The tags of those that say something about an image, as the registry lists them.
    fn referrers(&self, repository: &str, subject: &str) -> Vec<String> {
        self.listed(&format!("/v2/{repository}/referrers/{subject}"))
    }

    /// The same as clients find them where the registry does not list them.
    fn tagged_referrers(&self, repository: &str, subject: &str) -> Vec<String> {
        self.listed(&format!("/v2/{repository}/manifests/{}", subject.replace(':', "-")))
    }

    fn listed(&self, target: &str) -> Vec<String> {
        let answer = self.ask("GET", target, &["-H", &format!("Accept: {INDEX}")]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let index: Value = serde_json::from_str(&answer.body).unwrap();
        let manifests = index["manifests"].as_array().unwrap();
        let mut names: Vec<_> =
            manifests.iter().map(|one| one["annotations"]["pushed"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    fn manifest(&self, image: &str) -> String {
        self.login.crane(&["manifest", &self.login.reference(image)]).unwrap()
    }

    /// An image, the same for another platform, both in an index, and what says something about the first.
    fn push_all(&self, round: &str) {
        self.login.push(&format!("app:{round}"));
        let reference = |tag: &str| self.login.reference(&format!("app:{tag}{round}"));
        let (image, other, index) = (reference(""), reference("arm-"), reference("index-"));
        let script = format!(
            "set -e\ncrane mutate --label round={round} -t {image} {image}\ncrane mutate --set-platform linux/arm64 -t {other} {image}\ncrane index append -m {image} -m {other} -t {index}\n"
        );
        self.login.shell(&script).unwrap_or_else(|said| panic!("{said}"));
        self.push_referrer("app", &format!("signature-{round}"), &self.login.digest(&format!("app:{round}")).unwrap());
    }

    /// Every tag with its manifest, whose content was pulled whole and held against its digests.
    fn images(&self) -> BTreeMap<String, String> {
        let tags = self.login.crane(&["ls", &self.login.reference("app")]).unwrap();
        // Those by which an engine without the API lists referrers are looked at by themselves.
        let images = tags.lines().filter(|tag| !tag.starts_with("sha256-")).map(|tag| {
            if !tag.starts_with("signature") {
                let reference = self.login.reference(&format!("app:{tag}"));
                self.login
                    .crane(&["validate", "--remote", &reference])
                    .unwrap_or_else(|said| panic!("{reference}: {said}"));
            }
            (tag.to_owned(), self.manifest(&format!("app:{tag}")))
        });
        images.collect()
    }
}

#[test]
#[ignore = "needs cluster"]
fn every_image_stays_when_the_engine_is_changed_and_changed_back() {
    let registry = Registry::new("Wharf");
    registry.push_all("1");
    let first = registry.images();
    assert_eq!(first.len(), 4, "{:?}", first.keys());
    let subject = registry.login.digest("app:1").unwrap();
    eventually("the status tells what it takes", || {
        let usage = registry.usage();
        (usage["repositories"] == 1 && usage["bytes"].as_i64()? > 100_000).then_some(())
    });
    let begun = registry.ask("POST", "/v2/app/blobs/uploads/", &[]);
    assert_eq!(begun.status, 202, "{}", begun.body);

    registry.switch("Distribution");
    assert_eq!(registry.images(), first);
    assert_eq!(registry.tagged_referrers("app", &subject), ["signature-1"]);
    eventually("the status tells no more what nobody knows", || registry.usage().is_null().then_some(()));
    // An upload that was under way is unknown, and said to be; another one begins.
    let lost =
        registry.ask("PATCH", &begun.location, &["-H", "Content-Type: application/octet-stream", "--data-binary", "x"]);
    assert!(matches!(lost.status, 400 | 404) && lost.body.contains("BLOB_UPLOAD_"), "{} {}", lost.status, lost.body);
    registry.push_all("2");
    registry.push_referrer("app", "signature-3", &subject);
    let second = registry.images();
    assert_eq!(second.len(), 9, "{:?}", second.keys());

    registry.switch("Wharf");
    assert_eq!(registry.images(), second);
    // The other engine lists no referrers, and keeps them.
    assert_eq!(registry.referrers("app", &subject), ["signature-1", "signature-3"]);
    registry.push_all("4");
    let third = registry.images();

    registry.switch("Distribution");
    assert_eq!(registry.images(), third);
    assert_eq!(registry.tagged_referrers("app", &subject), ["signature-1", "signature-3"]);
    for (node, image) in [("node1", "app:1"), ("node2", "app:2"), ("node1", "app:index-4")] {
        let name = format!("{node}-{}", image.replace(':', "-"));
        registry.namespace.pod(&name, &registry.login.reference(image), node);
    }
}
