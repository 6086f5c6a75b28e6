//! Each row of the module's table, on a real file system.

mod containers;
mod decision;
mod mirrors;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::*;
use crate::agent::local::{Local, LocalEndpoint};
use crate::agent::runtime::{ConfigPath, ROOT, Unable};
use crate::api::reason;
use crate::plan::{Entry, Owner, Plan};

const HOST: &str = "team.platform.svc";
const PLACE: &str = "certs.d/team.platform.svc";

/// A node's `/etc/containerd`.
struct Node {
    root: TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { root: tempfile::tempdir().unwrap() };
        node.put("config.toml", "version = 3\n");
        node
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.path().join(path)).ok()
    }

    fn disk(&self) -> Disk {
        Disk::new(self.root.path().to_owned(), ROOT)
    }

    fn apply_with(&self, paths: &[&str], plan: &Plan, local: &Local) -> Result<(Outcome, usize), Unable> {
        let paths: Vec<ConfigPath> = paths.iter().map(|path| ConfigPath::parse(path).unwrap()).collect();
        let changes = std::cell::Cell::new(0);
        let count = |_: &'static str| changes.set(changes.get() + 1);
        let at = At { disk: &self.disk(), paths: &paths, plan, local };
        let outcome = apply(at, &CancellationToken::new(), &count)?;
        Ok((outcome, changes.get()))
    }

    fn apply_at(&self, paths: &[&str], plan: &Plan) -> Result<(Outcome, usize), Unable> {
        self.apply_with(paths, plan, &serving())
    }

    fn apply(&self, plan: &Plan) -> Outcome {
        self.apply_at(&["/etc/containerd/certs.d"], plan).unwrap().0
    }

    fn restore(&self) {
        let errors = restore(&self.disk(), &CancellationToken::new(), &|_| ());
        assert!(errors.is_empty(), "{errors:?}");
    }

    /// Every path below the root with its kind, mode and content.
    fn snapshot(&self) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut pending = vec![self.root.path().to_owned()];
        while let Some(path) = pending.pop() {
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if metadata.is_dir() {
                pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(self.root.path()).unwrap().to_string_lossy().into_owned();
            found.insert(name, (metadata.permissions().mode(), content));
        }
        found
    }
}

fn serving() -> Local {
    Local::Serving(LocalEndpoint { url: "https://127.0.0.1:17443".into(), certificate: Some("NODE".into()) })
}

fn names(hosts: &[&str]) -> BTreeSet<String> {
    hosts.iter().map(|host| (*host).to_owned()).collect()
}

fn plan(hosts: &[&str]) -> Plan {
    let entry = |host: &str| Entry {
        backends: vec!["https://10.96.12.34".into()],
        nodes: None,
        owner: Owner {
            kind: crate::plan::OwnerKind::Registry,
            namespace: "platform".into(),
            name: "team".into(),
            uid: format!("uid-{}", host.len()),
        },
        since: 1,
    };
    let hosts = hosts.iter().map(|host| ((*host).to_owned(), entry(host))).collect();
    Plan { revision: 1, authority: "PEM".into(), authority_since: 1, hosts }
}

fn reasons(outcome: &Outcome) -> Vec<(&str, &str)> {
    outcome.exceptions.iter().map(|exception| (exception.host.as_str(), exception.reason.as_str())).collect()
}

#[test]
fn entries_are_made_updated_and_removed_and_then_nothing_more_happens() {
    let node = Node::new();
    let before = node.snapshot();
    let both = plan(&[HOST, "a.b.svc"]);
    let certs = ["/etc/containerd/certs.d"];
    let (outcome, _) = node.apply_at(&certs, &both).unwrap();
    let both_names = names(&[HOST, "a.b.svc"]);
    assert_eq!(outcome, Outcome { standing: both_names.clone(), changed: both_names, ..Outcome::default() });
    let text = node.read(&format!("{PLACE}/hosts.toml")).unwrap();
    assert!(text.contains("ca = \"/etc/containerd/certs.d/team.platform.svc/wharf-ca.crt\""), "{text}");
    assert!(node.read(&format!("{PLACE}/wharf-ca.crt")).unwrap().ends_with("\nPEM\n"));
    assert_eq!(node.snapshot()[&format!("{PLACE}/hosts.toml")].0 & 0o777, 0o644);
    assert_eq!(node.snapshot()[PLACE].0 & 0o777, 0o755);
    assert_eq!(node.apply_at(&certs, &both).unwrap().1, 0);

    let mut changed = both.clone();
    changed.hosts.get_mut(HOST).unwrap().backends = vec!["https://10.96.0.9".into()];
    let (outcome, count) = node.apply_at(&certs, &changed).unwrap();
    assert_eq!((outcome.changed, count), (names(&[HOST]), 1));
    assert!(node.read(&format!("{PLACE}/hosts.toml")).unwrap().contains("10.96.0.9"));

    node.apply(&plan(&["a.b.svc"]));
    assert!(!node.root.path().join(PLACE).exists());
    assert!(node.read("certs.d/a.b.svc/hosts.toml").is_some());

    node.apply(&plan(&[]));
    assert_eq!(node.snapshot(), before);
}

/// During a rotation the plan has several certificates. They are one file, replaced as a whole, and nothing else is touched.
#[test]
fn a_bundle_replaces_the_certificates_alone() {
    let node = Node::new();
    let mut plan = plan(&[HOST]);
    node.apply(&plan);
    let hosts = node.read(&format!("{PLACE}/hosts.toml"));
    plan.authority = "-----BEGIN CERTIFICATE-----\nold\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nnew\n-----END CERTIFICATE-----\n".into();
    assert_eq!(node.apply_at(&["/etc/containerd/certs.d"], &plan).unwrap().1, 1);
    assert_eq!(node.read(&format!("{PLACE}/hosts.toml")), hosts);
    let (_, certificates) = node
        .read(&format!("{PLACE}/wharf-ca.crt"))
        .map(|text| text.split_once('\n').map(|(first, rest)| (first.to_owned(), rest.to_owned())).unwrap())
        .unwrap();
    assert_eq!(certificates, plan.authority);
}

#[test]
fn restore_leaves_the_node_byte_for_byte_as_it_was() {
    let node = Node::new();
    node.put("certs.d/docker.io/hosts.toml", "server = \"https://docker.io\"\n");
    node.put("certs.d/a.b.svc/client.key", "secret");
    fs::create_dir(node.root.path().join("certs.d/empty.b.svc")).unwrap();
    fs::set_permissions(node.root.path().join("certs.d/a.b.svc"), fs::Permissions::from_mode(0o750)).unwrap();
    symlink("/nowhere", node.root.path().join("certs.d/link.b.svc")).unwrap();
    let before = node.snapshot();
    let everything = plan(&[HOST, "a.b.svc", "docker.io", "empty.b.svc", "link.b.svc"]);
    let list = ["/etc/containerd/certs.d", "/etc/containerd/certs.d:/etc/docker/certs.d", "/etc/containerd/old.d"];
    let (outcome, _) = node.apply_at(&list, &everything).unwrap();
    assert_eq!(reasons(&outcome), [("docker.io", reason::CONFLICT), ("link.b.svc", reason::CONFLICT)]);
    assert!(node.read("certs.d:/etc/docker/certs.d/team.platform.svc/hosts.toml").is_some());
    assert!(node.read("old.d/docker.io/hosts.toml").is_some());
    assert_ne!(node.snapshot(), before);
    node.restore();
    assert_eq!(node.snapshot(), before);
    node.restore();
    assert_eq!(node.snapshot(), before);
}

#[test]
fn row_leftovers_are_swept() {
    let node = Node::new();
    node.apply(&plan(&[HOST]));
    let before = node.snapshot();
    node.put(".wharf-0123456789abcdef.tmp/.wharf", &crate::agent::hosts::folder_mark());
    node.put("certs.d/.wharf-0123456789abcdef.tmp/.wharf", "half");
    fs::create_dir(node.root.path().join("certs.d/.wharf-fedcba9876543210.tmp")).unwrap();
    node.put(&format!("{PLACE}/.wharf-0123456789abcdef.tmp"), "# wharf.d");
    let left = node.snapshot();
    node.apply(&plan(&[HOST]));
    assert_eq!(node.snapshot(), before);
    assert_ne!(left, before);
}

/// Stops after every possible number of steps, as kill -9 does, and looks what the next pass makes of it.
#[test]
fn row_after_a_crash_at_any_step_the_next_pass_and_restore_end_well() {
    let node = Node::new();
    let before = node.snapshot();
    node.apply(&plan(&[HOST]));
    let wanted = node.snapshot();
    let text = |file: File| (file, node.read(&format!("{PLACE}/{}", file.name())).unwrap());
    let texts = [File::Authority, File::NodeCertificate, File::Hosts].map(text).into();
    let texts = Wanted { texts, falls_back: false };
    for (from, target) in [(&before, Some(&texts)), (&wanted, None)] {
        for steps in 0..=4 {
            for again in [true, false] {
                let node = Node::new();
                if from == &wanted {
                    node.apply(&plan(&[HOST]));
                } else {
                    node.disk().carry_out(&node.root.path().join("certs.d"), &Change::MakeFolder).unwrap();
                }
                let place = node.root.path().join(PLACE);
                let decision = decide(target, &node.disk().look(&place).unwrap());
                assert_eq!(decision.changes.len(), 4);
                for change in decision.changes.iter().take(steps) {
                    node.disk().carry_out(&place, change).unwrap();
                    let named = node.read(&format!("{PLACE}/hosts.toml")).is_some();
                    let there = |file: &str| node.read(&format!("{PLACE}/{file}")).is_some();
                    assert!(!named || (there("wharf-ca.crt") && there("wharf-node.crt")), "a ca that is missing");
                }
                if again {
                    node.apply(&plan(&[HOST]));
                    assert_eq!(node.snapshot(), wanted, "{steps} steps towards {target:?}");
                } else {
                    node.restore();
                    assert_eq!(node.snapshot(), before, "{steps} steps towards {target:?}");
                }
            }
        }
    }
}

#[test]
fn row_a_users_file_in_our_folder_keeps_the_folder() {
    let node = Node::new();
    node.apply(&plan(&[HOST]));
    node.put(&format!("{PLACE}/notes.txt"), "mine");
    node.restore();
    let names: Vec<String> = node.snapshot().into_keys().collect();
    assert_eq!(names, ["", "certs.d", PLACE, "certs.d/team.platform.svc/notes.txt", "config.toml"]);
}

#[test]
fn row_a_users_files_are_a_conflict_and_stay() {
    let files = ["hosts.toml", "wharf-ca.crt", "wharf-node.crt"];
    for (number, file) in files.iter().enumerate() {
        let other = files[(number + 1) % files.len()];
        let node = Node::new();
        node.put(&format!("{PLACE}/{file}"), "mine\n# wharf.dev: not the first line\n");
        let before = node.snapshot();
        let outcome = node.apply(&plan(&[HOST]));
        assert_eq!(outcome.standing.len(), 0);
        assert_eq!(reasons(&outcome), [(HOST, reason::CONFLICT)]);
        assert!(!outcome.retry);
        let message = &outcome.exceptions[0].message;
        assert!(message.contains(&format!("/etc/containerd/{PLACE}/{file}")), "{message}");
        assert!(message.starts_with(HOST), "{message}");
        assert_eq!(node.read(&format!("{PLACE}/{other}")), None);
        assert_eq!(node.snapshot(), before);
        fs::remove_file(node.root.path().join(PLACE).join(file)).unwrap();
        assert_eq!(node.apply(&plan(&[HOST])).standing, names(&[HOST]));
    }
}

#[test]
fn row_an_authority_that_a_users_file_names_stays() {
    let node = Node::new();
    node.apply(&plan(&[HOST]));
    let taken_over = node.read(&format!("{PLACE}/hosts.toml")).unwrap().split_once('\n').unwrap().1.to_owned();
    node.put(&format!("{PLACE}/hosts.toml"), &taken_over);
    assert_eq!(reasons(&node.apply(&plan(&[HOST]))), [(HOST, reason::CONFLICT)]);
    node.restore();
    assert_eq!(node.read(&format!("{PLACE}/hosts.toml")), Some(taken_over));
    assert!(node.read(&format!("{PLACE}/wharf-ca.crt")).is_some());
}

#[test]
fn row_links_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let node = Node::new();
    fs::create_dir(node.root.path().join("certs.d")).unwrap();
    symlink(outside.path(), node.root.path().join(PLACE)).unwrap();
    node.put("certs.d/file.b.svc", "a file");
    let outcome = node.apply(&plan(&[HOST, "file.b.svc", "good.b.svc"]));
    assert_eq!(reasons(&outcome), [("file.b.svc", reason::CONFLICT), (HOST, reason::CONFLICT)]);
    assert_eq!(outcome.standing.len(), 1);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);

    // Neither on the way to the config path, nor for a file, nor when restoring.
    let node = Node::new();
    symlink(outside.path(), node.root.path().join("certs.d")).unwrap();
    let before = node.snapshot();
    let unable = node.apply_at(&["/etc/containerd/certs.d"], &plan(&[HOST])).unwrap_err();
    assert_eq!(unable.reason, reason::CONFLICT);
    fs::create_dir(outside.path().join(HOST)).unwrap();
    fs::write(outside.path().join(HOST).join("hosts.toml"), "# wharf.dev: elsewhere\n").unwrap();
    node.restore();
    assert!(outside.path().join(HOST).join("hosts.toml").exists());
    assert_eq!(node.snapshot(), before);

    let node = Node::new();
    node.put(&format!("{PLACE}/x"), "");
    symlink(outside.path().join(HOST).join("hosts.toml"), node.root.path().join(PLACE).join("hosts.toml")).unwrap();
    assert_eq!(reasons(&node.apply(&plan(&[HOST]))), [(HOST, reason::CONFLICT)]);
    assert!(node.root.path().join(Path::new(PLACE)).join("hosts.toml").is_symlink());
}

#[test]
fn one_host_that_fails_does_not_stop_the_others() {
    let node = Node::new();
    let longest = [vec!["a".repeat(63); 3].join("."), "b".repeat(61)].join(".");
    assert_eq!(longest.len(), 253);
    let mut plan = plan(&["../etc", "UPPER.b.svc", "bad.b.svc", HOST, longest.as_str()]);
    plan.hosts.get_mut("bad.b.svc").unwrap().backends = vec!["nonsense".into()];
    // A leftover that cannot be removed, because there is something of somebody's in it.
    node.put("certs.d/stuck.b.svc/.wharf-x.tmp/thing", "");
    plan.hosts.insert("stuck.b.svc".into(), plan.hosts[HOST].clone());
    let outcome = node.apply(&plan);
    assert_eq!(outcome.standing.len(), 2, "{outcome:?}");
    assert!(outcome.retry);
    let failed = ["../etc", "UPPER.b.svc", "bad.b.svc", "stuck.b.svc"].map(|host| (host, reason::WRITE_FAILED));
    assert_eq!(reasons(&outcome), failed);
    let message = &outcome.exceptions[3].message;
    assert!(message.contains("cannot remove /etc/containerd/certs.d/stuck.b.svc/.wharf-x.tmp"), "{message}");
}

#[test]
fn a_stopped_pass_and_restore_do_nothing_more() {
    let node = Node::new();
    node.apply(&plan(&[HOST]));
    let before = node.snapshot();
    let stop = CancellationToken::new();
    stop.cancel();
    let path = [ConfigPath::parse("/etc/containerd/certs.d").unwrap()];
    let at = At { disk: &node.disk(), paths: &path, plan: &plan(&["other.b.svc"]), local: &serving() };
    apply(at, &stop, &|_| ()).unwrap();
    restore(&node.disk(), &stop, &|_| ());
    assert_eq!(node.snapshot(), before);
}
