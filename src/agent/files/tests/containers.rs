//! The files of podman and CRI-O, on a real file system.

use super::mirrors::mixed;
use super::*;
use crate::agent::files::containers::{Containers, apply as apply_containers};
use crate::agent::runtime::containers::ROOT as CONTAINERS;

const CONF: &str = "registries.conf.d/50-wharf.conf";
const CERTIFICATE: &str = "certs.d/127.0.0.1:17443/wharf-node.crt";

/// A node's `/etc/containers`.
struct World(Node);

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let node = Node { root: tempfile::tempdir().unwrap() };
        for (path, text) in files {
            node.put(path, text);
        }
        Self(node)
    }

    fn disk(&self) -> Disk {
        Disk::new(self.0.root.path().to_owned(), CONTAINERS)
    }

    fn apply_with(&self, plan: &Plan, local: &Local, required: bool) -> Result<(Outcome, usize), Unable> {
        let changes = std::cell::Cell::new(0);
        let count = |_: &'static str| changes.set(changes.get() + 1);
        let wanted = Containers { disk: &self.disk(), plan, local, required };
        Ok((apply_containers(wanted, &CancellationToken::new(), &count)?, changes.get()))
    }

    fn apply(&self, hosts: &[&str]) -> (Outcome, usize) {
        self.apply_with(&mixed(hosts), &serving(), true).unwrap()
    }
}

#[test]
fn the_hosts_of_mirrors_are_written_and_removed_to_the_byte() {
    for installed in [&[][..], &[("registries.conf.d/shortnames.conf", ""), ("certs.d/r.io/ca.crt", "mine")]] {
        let world = World::new(installed);
        let before = world.0.snapshot();
        let (outcome, _) = world.apply(&["docker.io", "r.io:5000"]);
        let both = names(&["docker.io", "r.io:5000"]);
        assert_eq!(outcome, Outcome { standing: both.clone(), changed: both, ..Outcome::default() });
        let text = world.0.read(CONF).unwrap();
        assert!(text.contains("location = \"127.0.0.1:17443/r.io_5000\"") && !text.contains(HOST), "{text}");
        assert!(world.0.read(CERTIFICATE).unwrap().ends_with("\nNODE\n"));
        assert_eq!(world.apply(&["docker.io", "r.io:5000"]).1, 0);

        let (outcome, changes) = world.apply(&["docker.io", "ghcr.io"]);
        assert_eq!((outcome.changed, changes), (names(&["ghcr.io"]), 1));
        world.apply(&[]);
        assert_eq!(world.0.snapshot(), before);
        world.apply(&["docker.io"]);
        assert!(restore(&world.disk(), &CancellationToken::new(), &|_| ()).is_empty());
        assert_eq!(world.0.snapshot(), before);
    }
}

#[test]
fn on_a_node_of_containerd_they_are_written_only_where_podman_is_installed() {
    let world = World::new(&[]);
    let before = world.0.snapshot();
    let apply = |world: &World| world.apply_with(&mixed(&["docker.io"]), &serving(), false).unwrap().0;
    assert_eq!(apply(&world), Outcome::default());
    assert_eq!(world.0.snapshot(), before);
    fs::create_dir(world.0.root.path().join("registries.conf.d")).unwrap();
    assert_eq!(apply(&world).standing, names(&["docker.io"]));
    assert!(world.0.read(CONF).is_some());

    // What a node of CRI-O once needed goes when it is one of containerd.
    let world = World::new(&[]);
    world.apply(&["docker.io"]);
    apply(&world);
    assert_eq!(world.0.snapshot(), before);
}

#[test]
fn the_certificate_is_there_before_what_leads_to_it_and_goes_after_it() {
    let world = World::new(&[]);
    let kinds = |hosts: &[&str]| {
        let kinds = std::cell::RefCell::new(Vec::new());
        let count = |kind: &'static str| kinds.borrow_mut().push(kind);
        let wanted = Containers { disk: &world.disk(), plan: &mixed(hosts), local: &serving(), required: true };
        apply_containers(wanted, &CancellationToken::new(), &count).unwrap();
        kinds.into_inner().into_iter().filter(|kind| !kind.ends_with("folder")).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&["docker.io"]), ["write_node_certificate", "write_registries"]);
    assert_eq!(kinds(&[]), ["remove_registries", "remove_node_certificate"]);
}

#[test]
fn a_host_of_which_the_users_files_speak_is_left_out() {
    let table = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"mirror.example.com\"\n";
    for path in ["registries.conf", "registries.conf.d/10-mine.conf", "registries.conf.d/99-mine.conf"] {
        let world = World::new(&[]);
        world.apply(&["docker.io", "ghcr.io"]);
        world.0.put(path, table);
        let (outcome, _) = world.apply(&["docker.io", "ghcr.io"]);
        assert_eq!(reasons(&outcome), [("docker.io", reason::CONFLICT)]);
        let message = &outcome.exceptions[0].message;
        assert!(message.contains(&format!("/etc/containers/{path}")), "{message}");
        assert_eq!(outcome.standing, names(&["ghcr.io"]));
        let text = world.0.read(CONF).unwrap();
        assert!(!text.contains("docker.io") && text.contains("ghcr.io"), "{text}");
        world.apply(&["docker.io"]);
        assert_eq!((world.0.read(CONF), world.0.read(CERTIFICATE)), (None, None));
        assert_eq!(world.0.read(path).as_deref(), Some(table));
    }
}

#[test]
fn a_users_files_in_our_places_are_a_conflict_and_stay() {
    for path in [CONF, CERTIFICATE] {
        let world = World::new(&[(path, "# mine")]);
        let before = world.0.snapshot();
        let (outcome, _) = world.apply(&["docker.io"]);
        assert_eq!(reasons(&outcome), [("docker.io", reason::CONFLICT)]);
        assert!(outcome.exceptions[0].message.contains(&format!("/etc/containers/{path}")), "{outcome:?}");
        assert_eq!(world.0.snapshot(), before);
    }
}

#[test]
fn what_cannot_be_understood_leaves_all_as_it_is() {
    let world = World::new(&[]);
    world.apply(&["docker.io"]);
    world.0.put("registries.conf.d/10-mine.conf", "[[registry");
    let before = world.0.snapshot();
    let unable = world.apply_with(&mixed(&["ghcr.io"]), &serving(), true).unwrap_err();
    assert_eq!(unable.reason, reason::CONFIGURATION_UNREADABLE);
    assert_eq!(world.0.snapshot(), before);
}

#[test]
fn another_port_another_certificate_and_plain_http() {
    let world = World::new(&[]);
    world.apply(&["docker.io"]);
    let at = |port: u16, certificate: Option<&str>| {
        let url = format!("{}://127.0.0.1:{port}", if certificate.is_some() { "https" } else { "http" });
        let endpoint = LocalEndpoint { url, certificate: certificate.map(str::to_owned) };
        world.apply_with(&mixed(&["docker.io"]), &Local::Serving(endpoint), true).unwrap().0.changed
    };
    assert_eq!(at(18443, Some("NODE")), names(&["docker.io"]));
    assert!(world.0.read("certs.d/127.0.0.1:18443/wharf-node.crt").is_some());
    assert_eq!(world.0.read(CERTIFICATE), None);
    assert_eq!(at(18443, Some("OTHER")), names(&["docker.io"]));
    assert_eq!(at(18443, None), names(&["docker.io"]));
    assert!(world.0.read(CONF).unwrap().contains("insecure = true"));
    assert_eq!(world.0.read("certs.d/127.0.0.1:18443/wharf-node.crt"), None);

    let taken = Local::PortInUse("taken".into());
    let (outcome, _) = world.apply_with(&mixed(&["docker.io"]), &taken, true).unwrap();
    assert_eq!(reasons(&outcome), [("docker.io", reason::PORT_IN_USE)]);
    assert_eq!(fs::read_dir(world.0.root.path()).unwrap().count(), 0);
}
