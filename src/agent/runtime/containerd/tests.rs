use super::super::configuration::File;
use super::super::{NodeInfo, Runtime, Unable, detect};
use super::*;

const CERTS: &str = "/etc/containerd/certs.d";
const LITERAL: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";

fn configuration(files: &[&str]) -> Configuration {
    let files = files.iter().enumerate();
    let files = files.map(|(number, text)| File::parse(&format!("/etc/containerd/{number}.toml"), text).unwrap());
    Configuration { files: files.collect(), unseen: Vec::new() }
}

fn detected(runtime: &str, configuration: Configuration) -> Result<Vec<String>, Unable> {
    let info = NodeInfo { runtime: format!("containerd://{runtime}"), ..NodeInfo::default() };
    match detect(&info, &Ok(configuration))? {
        Runtime::Containerd(paths) => Ok(paths.iter().map(|path| path.as_str().to_owned()).collect()),
        other => panic!("{other:?}"),
    }
}

fn paths(runtime: &str, files: &[&str]) -> Result<Vec<String>, &'static str> {
    detected(runtime, configuration(files)).map_err(|unable| unable.reason)
}

fn file(version: u32, table: &str, registry: &str) -> String {
    format!("version = {version}\n[plugins.\"{table}\".registry]\n{registry}\n")
}

fn old(path: &str) -> String {
    file(2, OLD_TABLE, &format!("config_path = \"{path}\""))
}

fn new(path: &str) -> String {
    file(3, NEW_TABLE, &format!("config_path = \"{path}\""))
}

type Case<'a> = (&'a str, &'a [&'a str], &'a Result<Vec<String>, &'static str>);

#[test]
fn the_path_by_version_and_table() {
    let new_unset = new("");
    let (old, new) = (old(CERTS), new(CERTS));
    let old_in_3 = file(3, OLD_TABLE, "config_path = \"/etc/containerd/certs.d\"");
    let new_in_2 = file(2, NEW_TABLE, "config_path = \"/etc/containerd/certs.d\"");
    let unset = Err(reason::CONFIG_PATH_UNSET);
    let certs = Ok(vec![CERTS.to_owned()]);
    let default = Ok(vec![CERTS.to_owned(), LITERAL.to_owned()]);
    let cases: &[Case] = &[
        ("1.6.20~ds1", &[&old], &certs),
        ("1.7.27", &[&old], &certs),
        ("1.7.27", &["[plugins.cri.registry]\nconfig_path = \"/etc/containerd/certs.d\""], &certs),
        ("v2.0.0-rc.1", &[&old], &certs),
        ("2.0.5", &[&new], &certs),
        ("2.3.4", &[&new], &certs),
        ("2.3.4", &[&new.replace("version = 3", "version = 4")], &certs),
        // The table of the wrong version is ignored.
        ("1.7.27", &[&new_in_2], &unset),
        ("2.1.3", &[&old_in_3], &unset),
        // The default, and what takes it away.
        ("1.7.27", &[], &unset),
        ("2.1.9", &[], &unset),
        ("2.2.0", &[], &default),
        ("2.3.4", &["version = 3\n"], &default),
        ("2.3.4", &[&new_unset], &default),
        ("2.3.4", &[&file(3, NEW_TABLE, "[plugins.\"io.containerd.cri.v1.images\".registry.mirrors.\"a\"]")], &unset),
    ];
    for (runtime, files, expected) in cases {
        assert_eq!(&&paths(runtime, files), expected, "{runtime} {files:?}");
    }
}

#[test]
fn lists_of_paths() {
    let lists = [
        ("2.0.5", LITERAL, Ok(vec![CERTS])),
        ("1.7.27", "/etc/docker/certs.d:/etc/containerd/certs.d/", Ok(vec![CERTS])),
        // The transfer service of 2.1 and later takes the list for one path.
        ("2.1.0", LITERAL, Ok(vec![CERTS, LITERAL])),
        ("2.1.0", "/etc/docker/certs.d:/etc/containerd/certs.d", Err(reason::CONFIG_PATH_UNSET)),
        ("2.1.0", "/etc/containerd/a:", Ok(vec!["/etc/containerd/a"])),
        ("2.3.4", "/opt/certs.d", Err(reason::UNSUPPORTED)),
        ("2.3.4", "/etc/containerd/../certs.d", Err(reason::UNSUPPORTED)),
    ];
    for (runtime, list, expected) in lists {
        let expected = expected.map(|paths| paths.into_iter().map(str::to_owned).collect::<Vec<_>>());
        let (old, new) = (old(list), new(list));
        let text = if runtime.starts_with('1') { &old } else { &new };
        assert_eq!(paths(runtime, &[text]), expected, "{runtime} {list}");
    }
}

#[test]
fn imported_files_override_as_in_their_version() {
    let certs = old("/etc/containerd/certs.d");
    let other = old("/etc/containerd/other.d");
    let same_plugin = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x\"\n";
    let other_plugin = "version = 2\n[plugins.\"io.containerd.gc.v1.scheduler\"]\npause_threshold = 0.1\n";
    let one = |path: &str| Ok(vec![format!("/etc/containerd/{path}")]);
    assert_eq!(paths("1.7.27", &[&certs, &other]), one("other.d"));
    assert_eq!(paths("1.7.27", &[&certs, other_plugin]), one("certs.d"));
    assert_eq!(paths("1.7.27", &[&certs, same_plugin]), Err(reason::CONFIG_PATH_UNSET));
    assert_eq!(paths("2.0.5", &[&certs, same_plugin]), one("certs.d"));
    assert_eq!(paths("2.0.5", &[&certs, &old("")]), one("certs.d"));
    // Each file has a version of its own; containerd 2 moves each to its newest.
    assert_eq!(paths("2.0.5", &[&new("/etc/containerd/certs.d"), &other]), one("other.d"));
}

#[test]
fn what_to_write_is_said_in_the_words_of_the_configuration() {
    let message = |runtime: &str, files: &[&str]| detected(runtime, configuration(files)).unwrap_err().message;
    let cases: [(&str, &[&str], &str); 5] = [
        ("1.7.27", &[], "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]"),
        ("2.1.0", &[], "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]"),
        ("2.1.0", &["version = 2"], ":\n[plugins.\"io.containerd.grpc.v1.cri\".registry]"),
        ("2.1.0", &["version = 3"], ":\n[plugins.\"io.containerd.cri.v1.images\".registry]"),
        ("1.6.0", &["root = \"/x\""], ":\n[plugins.cri.registry]"),
    ];
    for (runtime, files, part) in cases {
        let message = message(runtime, files);
        assert!(message.contains(part), "{message}");
        assert!(
            message.contains("config_path = \"/etc/containerd/certs.d\"\nand restart containerd once"),
            "{message}"
        );
    }
}

#[test]
fn imports_that_cannot_be_seen_are_named_when_they_may_matter() {
    let mut unseen = configuration(&["version = 3"]);
    unseen.unseen.push("/run/containerd/*.toml".into());
    let message = detected("2.1.0", unseen).unwrap_err().message;
    assert!(message.ends_with("not seen: /run/containerd/*.toml."), "{message}");
}
