//! The exact texts, and what is refused.

use super::*;
use crate::plan::Owner;

const CERTS: &str = "/etc/containerd/certs.d";

fn local() -> LocalEndpoint {
    LocalEndpoint { url: "https://127.0.0.1:17443".into(), certificate: Some("NODE\n".into()) }
}

fn mirror() -> Entry {
    let owner = Owner { kind: OwnerKind::Mirror, namespace: String::new(), name: "default".into(), uid: "3c9a".into() };
    Entry { backends: vec!["https://10.96.0.7".into(), "https://10.96.0.8".into()], owner, nodes: None, since: 1 }
}

/// The texts of a Registry's files without the endpoint.
fn files(
    host: &HostName,
    entry: &Entry,
    authority: &str,
    config_path: &str,
) -> Result<(String, Option<String>), Refusal> {
    let mut texts = render(host, entry, authority, None, config_path)?.texts;
    Ok((texts.remove(&File::Hosts).unwrap(), texts.remove(&File::Authority)))
}

fn entry(server: &str) -> Entry {
    let owner = Owner {
        kind: crate::plan::OwnerKind::Registry,
        namespace: "platform".into(),
        name: "team".into(),
        uid: "3c9a".into(),
    };
    Entry { backends: vec![server.into()], owner, nodes: None, since: 1 }
}

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

#[test]
fn the_file_is_exactly_this() {
    let (hosts, authority) = files(&host("team.platform.svc"), &entry("https://10.96.12.34"), "PEM\n", CERTS).unwrap();
    assert_eq!(
        hosts,
        "# wharf.dev: Registry platform/team 3c9a\n\
         server = \"https://10.96.12.34\"\n\
         capabilities = [\"pull\", \"resolve\"]\n\
         ca = \"/etc/containerd/certs.d/team.platform.svc/wharf-ca.crt\"\n\
         dial_timeout = \"1s\"\n\
         [host]\n"
    );
    let authority = authority.unwrap();
    assert_eq!(authority, "# wharf.dev: Registry platform/team 3c9a\nPEM\n");
    assert!(is_ours(&hosts) && is_ours(&authority) && is_ours(&folder_mark()));
}

#[test]
fn with_the_nodes_own_endpoint_it_is_exactly_this() {
    let place = host("team.platform.svc");
    let wanted = render(&place, &entry("https://10.96.12.34"), "PEM\n", Some(&local()), CERTS).unwrap();
    assert_eq!(
        wanted.texts[&File::Hosts],
        "# wharf.dev: Registry platform/team 3c9a\n\
         server = \"https://10.96.12.34\"\n\
         capabilities = [\"pull\", \"resolve\"]\n\
         ca = \"/etc/containerd/certs.d/team.platform.svc/wharf-ca.crt\"\n\
         dial_timeout = \"1s\"\n\
         [host.\"https://127.0.0.1:17443\"]\n\
         capabilities = [\"pull\", \"resolve\"]\n\
         ca = \"/etc/containerd/certs.d/team.platform.svc/wharf-node.crt\"\n\
         dial_timeout = \"200ms\"\n"
    );
    assert_eq!(wanted.texts[&File::NodeCertificate], "# wharf.dev: Registry platform/team 3c9a\nNODE\n");
    assert_eq!(wanted.texts[&File::Authority], "# wharf.dev: Registry platform/team 3c9a\nPEM\n");
    assert!(!wanted.falls_back);
}

#[test]
fn a_mirrors_file_names_no_server_so_that_the_registry_itself_stays_the_last() {
    let wanted = render(&host("docker.io"), &mirror(), "PEM\n", Some(&local()), CERTS).unwrap();
    assert_eq!(
        wanted.texts[&File::Hosts],
        "# wharf.dev: Mirror default 3c9a\n\
         [host.\"https://127.0.0.1:17443\"]\n\
         capabilities = [\"pull\", \"resolve\"]\n\
         ca = \"/etc/containerd/certs.d/docker.io/wharf-node.crt\"\n\
         dial_timeout = \"200ms\"\n"
    );
    assert_eq!(wanted.texts[&File::NodeCertificate], "# wharf.dev: Mirror default 3c9a\nNODE\n");
    assert_eq!(wanted.texts.len(), 2, "nodes do not ask the Mirror themselves");
    assert!(wanted.falls_back);

    let plain = LocalEndpoint { url: "http://127.0.0.1:17443".into(), certificate: None };
    let wanted = render(&host("registry.example.com:5000"), &mirror(), "PEM\n", Some(&plain), CERTS).unwrap();
    let (text, table) = (&wanted.texts[&File::Hosts], wanted.texts[&File::Hosts].parse::<toml::Table>().unwrap());
    assert!(!text.contains("ca =") && wanted.texts.len() == 1, "{text}");
    assert!(table["host"].get("http://127.0.0.1:17443").is_some() && table.len() == 1, "{text}");

    let refused = render(&host("docker.io"), &mirror(), "PEM\n", None, CERTS);
    assert_eq!(refused, Err(Refusal::NoEndpoint("docker.io".into())));
}

#[test]
fn without_an_authority_no_ca_is_named() {
    let (hosts, authority) = files(&host("a.b.svc"), &entry("http://10.0.0.1"), " \n", CERTS).unwrap();
    assert_eq!(authority, None);
    assert!(!hosts.contains("ca ="), "{hosts}");
}

#[test]
fn whatever_is_accepted_is_valid_toml_with_its_keys_before_the_first_table() {
    let servers = [
        "https://10.96.12.34",
        "https://[fd00::1]:5000",
        "http://x",
        "https://a\"b",
        "https://a\\u0022\\",
        "https://a#b",
        "https://a'b",
        "https://a]=[",
        "https://[host]",
    ];
    let folders =
        ["/etc/containerd/certs.d", "/etc/containerd/certs.d:/etc/docker/certs.d", "/etc/containerd/a \"\\\u{1}"];
    for server in servers {
        for folder in folders {
            for local in [None, Some(local())] {
                let wanted = render(&host("team.platform.svc"), &entry(server), "PEM", local.as_ref(), folder).unwrap();
                let text = &wanted.texts[&File::Hosts];
                let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
                assert_eq!(table["server"].as_str(), Some(server));
                assert_eq!(table["ca"].as_str(), Some(format!("{folder}/team.platform.svc/wharf-ca.crt").as_str()));
                assert_eq!(table["capabilities"].as_array().map(Vec::len), Some(2));
                assert_eq!(table["dial_timeout"].as_str(), Some("1s"));
                assert_eq!(table["host"].as_table().map(toml::Table::len), Some(usize::from(local.is_some())));
                assert_eq!(table.len(), 5);
                if let Some(local) = local {
                    let ca = table["host"][&local.url]["ca"].as_str();
                    assert_eq!(ca, Some(format!("{folder}/team.platform.svc/wharf-node.crt").as_str()));
                }
            }
        }
    }
}

#[test]
fn entries_that_no_registry_has_are_refused() {
    for server in ["", "10.96.12.34", "https://", "ftp://x", "https://a b", "https://a\nb", "https://ä"] {
        let refused = render(&host("a.b.svc"), &entry(server), "PEM", None, CERTS);
        assert!(matches!(refused, Err(Refusal::Server { .. })), "{server:?}: {refused:?}");
    }
    let mut spoilt = entry("https://x");
    spoilt.owner.uid = "a\nserver = \"https://evil\"".into();
    let refused = render(&host("a.b.svc"), &spoilt, "PEM", None, CERTS);
    assert_eq!(refused, Err(Refusal::Owner("a.b.svc".into())));
    for (namespace, name) in [("platform", "default"), ("", "a\nb")] {
        let mut spoilt = mirror();
        (spoilt.owner.namespace, spoilt.owner.name) = (namespace.into(), name.into());
        let refused = render(&host("docker.io"), &spoilt, "PEM", Some(&local()), CERTS);
        assert_eq!(refused, Err(Refusal::Owner("docker.io".into())));
    }
}

#[test]
fn only_dns_names_with_or_without_a_port_become_folders() {
    let long_label = "a".repeat(64);
    let long_name = format!("{}.a", vec!["a".repeat(62); 4].join("."));
    assert_eq!(long_name.len(), 253);
    for good in [
        "team.platform.svc",
        "a",
        "0.1",
        "a-b.c",
        "docker.io",
        "a:5000",
        "registry.example.com:443",
        long_name.as_str(),
    ] {
        assert!(HostName::parse(good).is_ok(), "{good}");
    }
    let longer = format!("{long_name}b");
    let bad = [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a.",
        "a/b",
        "../a",
        "/a",
        "A.b",
        "a_b",
        "_default",
        "a:",
        "a:0",
        "a:05000",
        "a:65536",
        "a:b",
        "a:1:2",
        ":5000",
        "a_5000_",
        "a\\b",
        "a\0b",
        "a b",
        "-a",
        "a-",
        "a.-b",
        "ä",
        "a\n",
        ".wharf",
        "*",
        long_label.as_str(),
        longer.as_str(),
    ];
    for bad in bad {
        assert_eq!(HostName::parse(bad), Err(Refusal::Host(bad.into())));
    }
}

#[test]
fn only_the_first_line_makes_a_file_ours() {
    assert!(is_ours("# wharf.dev: Registry a/b c\nserver = \"x\"\n"));
    for text in ["", "server = \"x\"\n# wharf.dev: Registry a/b c\n", " # wharf.dev: x", "# wharf.dev"] {
        assert!(!is_ours(text), "{text:?}");
    }
}

#[test]
fn the_folder_that_containerd_reads_before_that_of_a_host_with_a_port() {
    assert_eq!(host("registry.example.com:5000").shadow().as_deref(), Some("registry.example.com_5000_"));
    assert_eq!(host("docker.io").shadow(), None);
    assert_eq!(host("registry.example.com:5000").as_prefix(), "registry.example.com_5000");
}
