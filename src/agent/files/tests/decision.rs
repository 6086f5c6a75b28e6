//! The decision as a table.

use super::*;

fn files() -> HostFiles {
    HostFiles { hosts: "# wharf.dev: hosts".into(), authority: Some("# wharf.dev: ca".into()) }
}

fn ours(text: &str) -> FoundFile {
    FoundFile::Ours(format!("# wharf.dev: {text}"))
}

type Case<'a> = (Option<&'a HostFiles>, Found, Vec<Change>, Option<Obstacle>);

#[test]
fn the_decision() {
    use Change::{MakeFolder, Remove, RemoveFolder, RemoveMark, Sweep, Write};
    use File::{Authority, Hosts};
    let wanted = files();
    let bare = HostFiles { authority: None, ..files() };
    let foreign = FoundFile::Foreign { names_authority: false };
    let user = FoundFile::Foreign { names_authority: true };
    let write_both = || vec![Write(Authority, "# wharf.dev: ca".into()), Write(Hosts, "# wharf.dev: hosts".into())];
    let in_order = FoundFolder { ours: true, hosts: ours("hosts"), authority: ours("ca"), ..FoundFolder::default() };
    let with = |change: &dyn Fn(&mut FoundFolder)| {
        let mut folder = in_order.clone();
        change(&mut folder);
        Found::Folder(folder)
    };
    let empty = Found::Folder(FoundFolder::default());
    let cases: Vec<Case> = vec![
        (None, Found::Nothing, vec![], None),
        (None, Found::NotAFolder, vec![], None),
        (None, empty.clone(), vec![], None),
        (None, with(&|_| ()), vec![Remove(Hosts), Remove(Authority), RemoveFolder], None),
        (None, with(&|folder| folder.ours = false), vec![Remove(Hosts), Remove(Authority)], None),
        (None, with(&|folder| folder.others = true), vec![Remove(Hosts), Remove(Authority), RemoveMark], None),
        (None, with(&|folder| folder.hosts = foreign.clone()), vec![Remove(Authority), RemoveMark], None),
        (None, with(&|folder| folder.hosts = user.clone()), vec![RemoveMark], None),
        (None, with(&|folder| folder.authority = foreign.clone()), vec![Remove(Hosts), RemoveMark], None),
        (Some(&wanted), with(&|_| ()), vec![], None),
        (Some(&wanted), with(&|folder| folder.others = true), vec![], None),
        (Some(&wanted), Found::Nothing, [vec![MakeFolder], write_both()].concat(), None),
        (Some(&wanted), empty, write_both(), None),
        (
            Some(&wanted),
            with(&|folder| folder.hosts = ours("old")),
            vec![Write(Hosts, "# wharf.dev: hosts".into())],
            None,
        ),
        (
            Some(&wanted),
            with(&|folder| folder.authority = FoundFile::Absent),
            vec![Write(Authority, "# wharf.dev: ca".into())],
            None,
        ),
        (
            Some(&wanted),
            with(&|folder| folder.leftovers = vec![".wharf-a.tmp".into()]),
            vec![Sweep(".wharf-a.tmp".into())],
            None,
        ),
        (Some(&wanted), Found::NotAFolder, vec![], Some(Obstacle::Folder)),
        (
            Some(&wanted),
            with(&|folder| folder.hosts = foreign.clone()),
            vec![Remove(Authority), RemoveMark],
            Some(Obstacle::File(Hosts)),
        ),
        (Some(&wanted), with(&|folder| folder.authority = user.clone()), vec![], Some(Obstacle::File(Authority))),
        (Some(&bare), with(&|_| ()), vec![Remove(Authority)], None),
        (
            Some(&bare),
            with(&|folder| folder.hosts = ours("old")),
            vec![Write(Hosts, "# wharf.dev: hosts".into()), Remove(Authority)],
            None,
        ),
        (Some(&bare), with(&|folder| folder.authority = foreign.clone()), vec![], None),
    ];
    for (wanted, found, changes, obstacle) in cases {
        assert_eq!(decide(wanted, &found), Decision { changes, obstacle }, "{wanted:?} {found:?}");
    }
}
