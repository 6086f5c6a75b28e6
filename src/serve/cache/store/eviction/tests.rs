use std::collections::HashSet;

use super::super::index::{Content, Index, Link, Named, Names};
use super::super::{CachedTag, Protected, Scope};
use super::{Need, Protection, SECOND_USE, Victim, WEEK, choose};
use crate::oci::{Algorithm, Child, Digest, ManifestType, Tag};

/// Contents are called by a letter and are as long as they are told to be.
fn digest(name: &str) -> Digest {
    Digest::of(Algorithm::Sha256, name.as_bytes())
}

fn scope(name: &str) -> Scope {
    Scope { upstream: "docker.io".parse().unwrap(), repository: name.parse().unwrap() }
}

struct Table {
    index: Index,
    names: Vec<String>,
    protected: Protected,
    size: u64,
    now: u64,
}

impl Table {
    fn new(size: u64) -> Self {
        let (names, protected) = Default::default();
        let mut index = Index::new(Some(0));
        index.complete();
        Self { index, names, protected, size, now: SECOND_USE * 20 }
    }

    fn content(&mut self, name: &str, length: u64) {
        self.names.push(name.to_owned());
        self.index.put_content(&digest(name), length);
    }

    fn blob(&mut self, within: &str, name: &str, length: u64, came: u64, used: u64) {
        self.content(name, length);
        let link = Link { media_type: None, came, used, named: 0, is_unwritten: false };
        self.index.put_link(&scope(within), &Named::Blob(digest(name)), link);
    }

    /// A manifest of one byte.
    fn manifest(&mut self, within: &str, name: &str, names: Option<Names>, came: u64, used: u64) {
        self.content(name, 1);
        self.index.set_names(&digest(name), names);
        let link = Link { media_type: Some(ManifestType::OciImage), came, used, named: 0, is_unwritten: false };
        self.index.put_link(&scope(within), &Named::Manifest(digest(name)), link);
    }

    /// An image with its blobs, of ten bytes each.
    fn image(&mut self, within: &str, name: &str, blobs: &[&str], came: u64, used: u64) {
        for blob in blobs {
            self.blob(within, blob, 10, came, came);
        }
        let names = Names::Blobs(blobs.iter().map(|blob| digest(blob)).collect());
        self.manifest(within, name, Some(names), came, used);
    }

    fn tag(&mut self, within: &str, tag: &str, manifest: &str) {
        let cached = CachedTag { digest: digest(manifest), checked: jiff::Timestamp::UNIX_EPOCH };
        self.index.put_tag(&scope(within), &tag.parse().unwrap(), cached);
    }

    fn choose(&self, need: Need) -> Option<Vec<Victim>> {
        let protection = Protection::of(&self.index, &self.protected, self.size);
        choose(&self.index, need, &protection, self.size, self.now)
    }

    fn named(&self, digest_of: &Digest) -> String {
        self.names.iter().find(|name| digest(name) == *digest_of).cloned().unwrap_or_else(|| digest_of.to_string())
    }

    /// What goes for so many bytes, in words: `repository:manifest,blobs#tags`, with a `!` for what was in use.
    fn bytes(&self, bytes: u64) -> Option<String> {
        self.told(Need { bytes, entries: 0 })
    }

    fn told(&self, need: Need) -> Option<String> {
        let hashed = |tags: &[Tag]| tags.iter().fold(String::new(), |told, tag| told + "#" + tag.as_str());
        let told = |victim: Victim| match victim {
            Victim::Content(digest) => self.named(&digest),
            Victim::Unit { scope, links, tags, was_in_use } => {
                let links: Vec<String> = links.iter().map(|named| self.named(named.digest())).collect();
                let mark = if was_in_use { "!" } else { "" };
                format!("{}:{}{}{mark}", scope.repository, links.join(","), hashed(&tags))
            }
            Victim::Rest { scope, tags } => format!("{}{}", scope.repository, hashed(&tags)),
        };
        self.choose(need).map(|victims| victims.into_iter().map(told).collect::<Vec<_>>().join(" "))
    }
}

fn set(names: &[&str]) -> HashSet<Digest> {
    names.iter().map(|name| digest(name)).collect()
}

#[test]
fn what_was_used_longest_ago_goes_first_and_only_as_much_as_is_needed() {
    let mut table = Table::new(100);
    table.image("x", "M", &["a", "b"], 3, 3);
    table.image("x", "N", &["b", "c"], 1, 5);
    table.image("y", "O", &["d"], 2, 2);
    table.blob("y", "e", 10, 4, 4);
    table.tag("y", "latest", "O");
    table.tag("y", "1", "O");
    table.tag("x", "latest", "N");
    for (bytes, expected) in [
        (0, Some("")),
        (1, Some("y:O,d#1#latest")),
        (11, Some("y:O,d#1#latest")),
        // What both images name stays with the first one that goes.
        (12, Some("y:O,d#1#latest x:M,a")),
        (23, Some("y:O,d#1#latest x:M,a y:e")),
        (33, Some("y:O,d#1#latest x:M,a y:e x:N,b,c#latest")),
        (53, Some("y:O,d#1#latest x:M,a y:e x:N,b,c#latest")),
        // Not with all of it.
        (54, None),
    ] {
        assert_eq!(table.bytes(bytes).as_deref(), expected, "{bytes}");
    }
}

#[test]
fn content_goes_with_the_last_link_to_it() {
    let mut table = Table::new(100);
    table.image("x", "M", &["a"], 1, 1);
    table.image("y", "M", &["a"], 2, 2);
    table.image("z", "N", &["b"], 3, 3);
    assert_eq!(table.bytes(1).as_deref(), Some("x:M,a y:M,a"));
    assert_eq!(table.bytes(12).as_deref(), Some("x:M,a y:M,a z:N,b"));
    // What no link names goes before all else.
    table.content("u", 5);
    assert_eq!(table.bytes(5).as_deref(), Some("u"));
    assert_eq!(table.bytes(6).as_deref(), Some("u x:M,a y:M,a"));
}

#[test]
fn what_is_new_goes_before_what_was_used_again_a_minute_later() {
    let mut table = Table::new(1_000);
    table.image("old", "M", &["a"], 0, SECOND_USE);
    // Many requests of the pull that brought it are no second use.
    table.image("new", "N", &["b"], SECOND_USE * 2, SECOND_USE * 3 - 1);
    table.blob("new", "c", 10, SECOND_USE, SECOND_USE * 5);
    assert_eq!(table.bytes(32).as_deref(), Some("new:N,b old:M,a new:c"));
    // Nobody has wanted it for a week.
    table.now = SECOND_USE + WEEK;
    assert_eq!(table.bytes(32).as_deref(), Some("old:M,a new:N,b new:c"));
}

/// Twenty images that are used often, and a look at two hundred others, each twice within a minute.
#[test]
fn one_look_at_many_images_does_not_push_out_what_is_used_often() {
    let mut table = Table::new(600);
    for often in 0..20 {
        table.image("often", &format!("M{often}"), &[&format!("a{often}")], 0, SECOND_USE + often);
    }
    for once in 0..200 {
        let now = SECOND_USE * 10 + once * 100;
        table.image("once", &format!("N{once}"), &[&format!("b{once}")], now, now + 1_000);
        while table.index.total().unwrap() > 600 {
            let victims = table.choose(Need { bytes: 1, entries: 0 }).unwrap();
            for victim in victims {
                let Victim::Unit { scope, links, .. } = victim else { panic!("{victim:?}") };
                assert_eq!(scope.repository.as_str(), "once");
                for link in links {
                    assert!(table.index.remove_link(&scope, &link));
                    table.index.remove_content(link.digest());
                }
            }
        }
    }
}

#[test]
fn what_is_warm_has_four_fifths_and_beyond_that_goes_as_if_it_were_cold() {
    let mut table = Table::new(55);
    for (name, blob, used) in [("M", "a", 1), ("N", "b", 2), ("O", "c", 3), ("P", "d", 4), ("Q", "e", 5)] {
        table.image("x", name, &[blob], 0, SECOND_USE + used);
    }
    table.image("x", "R", &["f"], SECOND_USE * 2, SECOND_USE * 2);
    // 44 bytes are four images.
    assert_eq!(table.bytes(23).as_deref(), Some("x:M,a x:R,f x:N,b"));
}

#[test]
fn what_is_in_use_goes_last_and_pins_never() {
    let mut table = Table::new(1_000);
    table.image("x", "M", &["a", "s"], 1, 1);
    table.image("x", "N", &["b", "s"], 2, 2);
    table.image("x", "O", &["c", "s"], 3, 3);
    table.image("y", "P", &["d", "s"], 4, 4);
    table.protected = Protected { in_use: set(&["M"]), pinned: vec![digest("N")], ..Protected::default() };
    for (bytes, expected) in [
        (11, Some("x:O,c")),
        // The shared blob is in use in the other repository too, so that its link there stays.
        (22, Some("x:O,c y:P,d")),
        (33, Some("x:O,c y:P,d x:M,a!")),
        (34, None),
    ] {
        assert_eq!(table.bytes(bytes).as_deref(), expected, "{bytes}");
    }
    // What is both is pinned.
    table.protected.pinned.push(digest("M"));
    assert_eq!(table.bytes(23), None);
    table.protected = Protected { in_use: set(&["M", "N", "O", "P", "s"]), ..Protected::default() };
    assert_eq!(table.bytes(55), None);
    assert_eq!(table.bytes(54).as_deref(), Some("x:M,a! x:N,b! x:O,c,s! y:P,d,s!"));
}

#[test]
fn what_stays_behind_of_an_image_goes_in_its_own_turn() {
    let mut table = Table::new(1_000);
    table.image("x", "M", &["a", "s"], 1, 1);
    table.image("y", "N", &["s"], 2, 2);
    table.protected.in_use = set(&["N"]);
    assert_eq!(table.bytes(12).as_deref(), Some("x:M,a x:s! y:N,s!"));
}

#[test]
fn an_index_protects_what_is_here_of_its_images() {
    let mut table = Table::new(1_000);
    table.image("x", "M", &["a"], 1, 1);
    table.image("x", "N", &["b"], 2, 2);
    table.image("x", "O", &["c"], 3, 3);
    let child = |name: &str| Child { digest: digest(name), platform: None };
    let children = [child("M"), child("N"), child("absent")];
    table.manifest("x", "I", Some(Names::Manifests(children.into())), 0, 0);
    for (protected, expected) in [
        (Protected::default(), "x:I x:M,a x:N,b x:O,c"),
        (Protected { in_use: set(&["I"]), ..Protected::default() }, "x:O,c x:I! x:M,a! x:N,b!"),
        // An image does not protect the index that names it.
        (Protected { in_use: set(&["M"]), ..Protected::default() }, "x:I x:N,b x:O,c x:M,a!"),
    ] {
        table.protected = protected;
        assert_eq!(table.bytes(34).as_deref(), Some(expected));
    }
    table.protected = Protected { pinned: vec![digest("I")], ..Protected::default() };
    assert_eq!(table.bytes(11).as_deref(), Some("x:O,c"));
    assert_eq!(table.bytes(12), None);
}

#[test]
fn an_index_protects_its_images_for_the_platforms_that_are_meant() {
    let mut table = Table::new(1_000);
    let child = |name: &str, platform: Option<&str>| {
        let platform = platform.map(|platform| platform.parse().unwrap());
        Child { digest: digest(name), platform }
    };
    for (name, blob) in [("M", "a"), ("N", "b"), ("O", "c")] {
        table.image("x", name, &[blob], 1, 1);
    }
    let children = [child("M", Some("linux/amd64")), child("N", Some("linux/arm64/v8")), child("O", None)];
    table.manifest("x", "I", Some(Names::Manifests(children.into())), 0, 0);
    let platforms = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    for (meant, expected) in [
        (&["linux/amd64"][..], "x:N,b x:I! x:M,a! x:O,c!"),
        (&["linux/arm64", "linux/s390x"], "x:M,a x:I! x:N,b! x:O,c!"),
        (&[], "x:I! x:M,a! x:N,b! x:O,c!"),
    ] {
        table.protected = Protected { in_use: set(&["I"]), platforms: platforms(meant), ..Protected::default() };
        assert_eq!(table.bytes(34).as_deref(), Some(expected), "{meant:?}");
    }
    table.protected =
        Protected { pinned: vec![digest("I")], platforms: platforms(&["linux/amd64"]), ..Protected::default() };
    assert_eq!((table.bytes(11).as_deref(), table.bytes(12)), (Some("x:N,b"), None));
}

#[test]
fn pins_above_their_share_are_refused_in_their_order() {
    let mut table = Table::new(40);
    for (name, blob) in [("M", "a"), ("N", "b"), ("O", "c")] {
        table.image("x", name, &[blob], 1, 1);
    }
    let pins = |names: &[&str]| names.iter().map(|name| digest(name)).collect::<Vec<_>>();
    for (wanted, refused) in [
        (&["M", "N", "O"][..], &["O"][..]),
        (&["O", "N", "M"], &["M"]),
        // What is not here takes nothing, and what is refused leaves its room to others.
        (&["absent", "O", "M", "N", "a", "b"], &["N"]),
    ] {
        table.protected.pinned = pins(wanted);
        let (_, found) = super::pins(&table.index, &table.protected, table.size);
        assert_eq!(found, pins(refused), "{wanted:?}");
        for victim in table.choose(Need { bytes: 1, entries: 0 }).unwrap() {
            let Victim::Unit { links, .. } = victim else { panic!("{victim:?}") };
            assert!(refused.contains(&table.named(links[0].digest()).as_str()));
        }
    }
}

#[test]
fn where_entries_are_needed_what_is_of_no_use_goes_first() {
    let mut table = Table::new(1_000);
    table.image("x", "M", &["a"], 1, 1);
    table.tag("x", "latest", "M");
    table.tag("x", "gone", "N");
    table.index.set_public(&scope("bare"), Some(jiff::Timestamp::UNIX_EPOCH));
    for (entries, expected) in [
        (1, Some("bare")),
        (2, Some("bare x#gone")),
        (3, Some("bare x#gone x:M,a#latest")),
        (7, Some("bare x#gone x:M,a#latest")),
        (8, None),
    ] {
        assert_eq!(table.told(Need { bytes: 0, entries }).as_deref(), expected, "{entries}");
    }
    assert_eq!(table.bytes(1).as_deref(), Some("x:M,a#latest"));
}

/// What the index takes, as its first lines say it.
#[test]
fn an_entry_is_small() {
    assert!(size_of::<(Digest, Content)>() <= 56);
    assert!(size_of::<(Named, Link)>() <= 56);
}
