//! Hosts of Mirrors: beside Registries, without the endpoint, and where the user has said how they are pulled.

use super::*;
use crate::plan::OwnerKind;

const CERTS: [&str; 1] = ["/etc/containerd/certs.d"];

/// A plan with a Registry and these hosts of a Mirror.
pub fn mixed(mirrored: &[&str]) -> Plan {
    let mut plan = plan(&[HOST]);
    let owner = Owner { kind: OwnerKind::Mirror, namespace: String::new(), name: "default".into(), uid: "3c9a".into() };
    let entry = Entry { backends: vec!["https://10.96.0.7".into()], owner, nodes: None, since: 1 };
    plan.hosts.extend(mirrored.iter().map(|host| ((*host).to_owned(), entry.clone())));
    plan
}

fn exists(node: &Node, path: &str) -> bool {
    node.root.path().join(path).exists()
}

#[test]
fn a_mirror_and_a_registry_are_written_and_removed_to_the_byte() {
    let node = Node::new();
    node.put("certs.d/ghcr.io/hosts.toml", "server = \"https://ghcr.io\"\n");
    let before = node.snapshot();
    let both = mixed(&["docker.io", "registry.example.com:5000"]);
    let outcome = node.apply(&both);
    assert_eq!(outcome.standing, names(&["docker.io", "registry.example.com:5000", HOST]));
    let text = node.read("certs.d/docker.io/hosts.toml").unwrap();
    assert!(text.contains("ca = \"/etc/containerd/certs.d/docker.io/wharf-node.crt\""), "{text}");
    assert!(node.read("certs.d/docker.io/wharf-node.crt").unwrap().ends_with("\nNODE\n"));
    assert!(!exists(&node, "certs.d/docker.io/wharf-ca.crt"));
    assert!(node.read("certs.d/registry.example.com:5000/hosts.toml").is_some());
    assert!(node.read(&format!("{PLACE}/hosts.toml")).unwrap().contains("[host.\"https://127.0.0.1:17443\"]"));
    assert_eq!(node.apply_at(&CERTS, &both).unwrap().1, 0);

    // The agent was away while hosts left the plan.
    let outcome = node.apply(&mixed(&[]));
    assert_eq!((outcome.standing, outcome.changed), (names(&[HOST]), names(&[])));
    assert!(!exists(&node, "certs.d/docker.io") && !exists(&node, "certs.d/registry.example.com:5000"));
    node.apply(&plan(&[]));
    assert_eq!(node.snapshot(), before);
    node.apply(&both);
    node.restore();
    assert_eq!(node.snapshot(), before);
}

#[test]
fn without_the_endpoint_mirrors_have_no_entry_and_registries_the_one_without_it() {
    let both = mixed(&["docker.io"]);
    let taken = Local::PortInUse("127.0.0.1:17443 is taken".into());
    for (local, reason, part) in
        [(taken, reason::PORT_IN_USE, "is taken"), (Local::Disabled, reason::DISABLED, "--local-port=0")]
    {
        let node = Node::new();
        node.apply(&both);
        let (outcome, _) = node.apply_with(&CERTS, &both, &local).unwrap();
        assert_eq!(reasons(&outcome), [("docker.io", reason)]);
        let message = &outcome.exceptions[0].message;
        assert!(message.contains(part) && message.starts_with("docker.io has no entry"), "{message}");
        assert_eq!((outcome.standing, outcome.retry), (names(&[HOST]), false));
        assert!(!exists(&node, "certs.d/docker.io") && !exists(&node, &format!("{PLACE}/wharf-node.crt")));
        assert!(node.read(&format!("{PLACE}/hosts.toml")).unwrap().ends_with("\n[host]\n"));
        assert_eq!(node.apply(&both).standing, names(&["docker.io", HOST]));
    }
}

#[test]
fn another_certificate_of_the_endpoint_is_written_alone() {
    let node = Node::new();
    node.apply(&mixed(&["docker.io"]));
    let hosts = node.read("certs.d/docker.io/hosts.toml");
    let other = LocalEndpoint { url: "https://127.0.0.1:17443".into(), certificate: Some("OTHER".into()) };
    let (outcome, changes) = node.apply_with(&CERTS, &mixed(&["docker.io"]), &Local::Serving(other)).unwrap();
    assert_eq!((changes, outcome.changed), (2, names(&["docker.io", HOST])));
    assert_eq!(node.read("certs.d/docker.io/hosts.toml"), hosts);
    assert!(node.read("certs.d/docker.io/wharf-node.crt").unwrap().ends_with("\nOTHER\n"));
}

/// A place of the user's, and which hosts have a conflict by it.
type Case = (&'static str, &'static [&'static str]);

#[test]
fn what_a_user_has_said_of_a_mirrors_host_stays_in_force() {
    let cases: [Case; 6] = [
        ("certs.d/docker.io/hosts.toml", &["docker.io"]),
        ("certs.d/docker.io/ca.crt", &["docker.io"]),
        ("certs.d/docker.io/client.key", &["docker.io"]),
        ("certs.d/r.io_5000_/hosts.toml", &["r.io:5000"]),
        // It is what containerd reads of all hosts that have no folder. A Registry's host is served by nobody else.
        ("certs.d/_default/hosts.toml", &["docker.io", "r.io:5000"]),
        ("certs.d/docker.io/README", &[]),
    ];
    for (path, hosts) in cases {
        for early in [true, false] {
            let node = Node::new();
            let both = mixed(&["docker.io", "r.io:5000"]);
            if early {
                node.put(path, "mine");
            } else {
                node.apply(&both);
                node.put(path, "mine");
            }
            let outcome = node.apply(&both);
            let expected: Vec<(&str, &str)> = hosts.iter().map(|host| (*host, reason::CONFLICT)).collect();
            assert_eq!(reasons(&outcome), expected, "{path}");
            for (host, exception) in hosts.iter().zip(&outcome.exceptions) {
                let place = path.rsplit_once('/').unwrap().0;
                assert!(exception.message.contains(place), "{}", exception.message);
                let ours = node.read(&format!("certs.d/{host}/wharf-node.crt"));
                assert_eq!(ours, None, "{path} {host}");
            }
            assert!(outcome.standing.contains(HOST));
            assert_eq!(node.read(path).as_deref(), Some("mine"));
            node.restore();
            let left: Vec<String> = node.snapshot().into_keys().filter(|path| path.contains("wharf")).collect();
            assert_eq!(left, [""; 0], "{path}");
            assert_eq!(node.read(path).as_deref(), Some("mine"));
        }
    }
}

#[test]
fn an_empty_default_folder_says_nothing() {
    let node = Node::new();
    fs::create_dir_all(node.root.path().join("certs.d/_default")).unwrap();
    assert_eq!(node.apply(&mixed(&["docker.io"])).exceptions, []);
}

#[test]
fn a_name_that_passes_from_a_registry_to_a_mirror_loses_what_was_the_registrys() {
    let node = Node::new();
    node.apply(&plan(&["images.example.com"]));
    assert!(exists(&node, "certs.d/images.example.com/wharf-ca.crt"));
    node.apply(&mixed(&["images.example.com"]));
    assert!(!exists(&node, "certs.d/images.example.com/wharf-ca.crt"));
    let text = node.read("certs.d/images.example.com/hosts.toml").unwrap();
    assert!(!text.contains("server"), "{text}");
}
