//! The decision as a table.

use super::*;

/// Two certificates and the file that names them.
fn files() -> Wanted {
    let texts = [(File::Authority, "ca"), (File::NodeCertificate, "node"), (File::Hosts, "hosts")];
    Wanted { texts: texts.map(|(file, text)| (file, format!("# wharf.dev: {text}"))).into(), falls_back: false }
}

fn ours(text: &str) -> FoundFile {
    FoundFile::Ours(format!("# wharf.dev: {text}"))
}

/// A folder, and what becomes of it.
type Case = (Found, Vec<Change>, Option<Obstacle>);

fn check(wanted: Option<&Wanted>, cases: Vec<Case>) {
    for (found, changes, obstacle) in cases {
        assert_eq!(decide(wanted, &found), Decision { changes, obstacle }, "{wanted:?} {found:?}");
    }
}

fn in_order() -> FoundFolder {
    let files = [(File::Authority, ours("ca")), (File::NodeCertificate, ours("node")), (File::Hosts, ours("hosts"))];
    FoundFolder { ours: true, files: files.into(), ..FoundFolder::default() }
}

fn with(change: &dyn Fn(&mut FoundFolder)) -> Found {
    let mut folder = in_order();
    change(&mut folder);
    Found::Folder(folder)
}

#[allow(clippy::needless_pass_by_value, reason = "a table reads better without a sign of borrowing in each line")]
fn put(file: File, found: FoundFile) -> Found {
    with(&|folder| {
        folder.files.insert(file, found.clone());
    })
}

fn foreign(names: &[File]) -> FoundFile {
    FoundFile::Foreign { names: names.iter().copied().collect() }
}

use Change::{MakeFolder, Remove, RemoveFolder, RemoveMark, Sweep, Write};
use File::{Authority, Hosts, NodeCertificate, Registries};

fn write(file: File) -> Change {
    Write(file, files().texts[&file].clone())
}

#[test]
fn what_is_wanted_is_written_certificates_first() {
    let wanted = files();
    let all = || vec![write(Authority), write(NodeCertificate), write(Hosts)];
    let cases = vec![
        (with(&|_| ()), vec![], None),
        (with(&|folder| folder.others = true), vec![], None),
        (with(&|folder| folder.certificates = true), vec![], None),
        (Found::Nothing, [vec![MakeFolder], all()].concat(), None),
        (Found::Folder(FoundFolder::default()), all(), None),
        (put(Hosts, ours("old")), vec![write(Hosts)], None),
        (put(NodeCertificate, ours("old")), vec![write(NodeCertificate)], None),
        (with(&|folder| drop(folder.files.remove(&Authority))), vec![write(Authority)], None),
        (with(&|folder| folder.leftovers = vec![".wharf-a.tmp".into()]), vec![Sweep(".wharf-a.tmp".into())], None),
        (Found::NotAFolder, vec![], Some(Obstacle::Folder)),
        (
            put(Hosts, foreign(&[])),
            vec![Remove(NodeCertificate), Remove(Authority), RemoveMark],
            Some(Obstacle::File(Hosts)),
        ),
        (put(Hosts, foreign(&[NodeCertificate])), vec![Remove(Authority), RemoveMark], Some(Obstacle::File(Hosts))),
        (put(Authority, foreign(&[])), vec![], Some(Obstacle::File(Authority))),
        (put(NodeCertificate, foreign(&[])), vec![], Some(Obstacle::File(NodeCertificate))),
    ];
    check(Some(&wanted), cases);
}

#[test]
fn what_is_no_longer_wanted_goes_after_the_file_that_names_it() {
    let mut bare = files();
    bare.texts.remove(&Authority);
    bare.texts.remove(&NodeCertificate);
    let cases = vec![
        (with(&|_| ()), vec![Remove(NodeCertificate), Remove(Authority)], None),
        (put(Hosts, ours("old")), vec![write(Hosts), Remove(NodeCertificate), Remove(Authority)], None),
        (put(Authority, foreign(&[])), vec![Remove(NodeCertificate)], None),
        (put(Registries, ours("stray")), vec![Remove(Registries), Remove(NodeCertificate), Remove(Authority)], None),
    ];
    check(Some(&bare), cases);
}

#[test]
fn certificates_of_a_user_are_in_the_way_where_the_registry_itself_is_asked_last() {
    let wanted = Wanted { falls_back: true, ..files() };
    let certificates = |folder: &mut FoundFolder| {
        (folder.others, folder.certificates) = (true, true);
    };
    let bare = FoundFolder { others: true, certificates: true, ..FoundFolder::default() };
    let removal = vec![Remove(Hosts), Remove(NodeCertificate), Remove(Authority), RemoveMark];
    let cases = vec![
        (with(&|_| ()), vec![], None),
        (with(&|folder| folder.others = true), vec![], None),
        (with(&certificates), removal, Some(Obstacle::Certificates)),
        (Found::Folder(bare), vec![], Some(Obstacle::Certificates)),
    ];
    check(Some(&wanted), cases);
}

#[test]
fn all_of_ours_is_taken_away() {
    let certificates = || vec![Remove(NodeCertificate), Remove(Authority)];
    let all = || [vec![Remove(Hosts)], certificates()].concat();
    let cases = vec![
        (Found::Nothing, vec![], None),
        (Found::NotAFolder, vec![], None),
        (Found::Folder(FoundFolder::default()), vec![], None),
        (with(&|_| ()), [all(), vec![RemoveFolder]].concat(), None),
        (with(&|folder| folder.ours = false), all(), None),
        (with(&|folder| folder.others = true), [all(), vec![RemoveMark]].concat(), None),
        (put(Hosts, foreign(&[])), [certificates(), vec![RemoveMark]].concat(), None),
        (put(Hosts, foreign(&[Authority])), vec![Remove(NodeCertificate), RemoveMark], None),
        (put(Hosts, foreign(&[Authority, NodeCertificate])), vec![RemoveMark], None),
        (put(Authority, foreign(&[])), vec![Remove(Hosts), Remove(NodeCertificate), RemoveMark], None),
    ];
    check(None, cases);
}
