//! The commands of the documentation, run as they stand, document by document and from top to bottom. CONTRIBUTING.md says how
//! a block is marked. It must never change a command: what a reader copies is what runs.

use std::fmt::Write as _;

use crate::edge::{self, Edge};
use crate::outside::Outside;
use crate::support::{Namespace, Outcome, archive, attempt, checkout};

const DOCUMENTS: [&str; 2] = ["docs/registry.md", "docs/security.md"];
/// Its commands are those of a client beyond the cluster.
const EXPOSING: &str = "docs/exposing.md";

/// Something to run, and what a reader is told that it prints.
#[derive(Debug, Default, PartialEq)]
struct Block {
    line: usize,
    script: String,
    shown: Option<String>,
}

/// The blocks of a document in their order, and the command that puts the cluster back.
fn read(text: &str) -> (Vec<Block>, Option<String>) {
    let (mut blocks, mut after): (Vec<Block>, _) = (Vec::new(), None);
    let (mut skip, mut follows) = (false, false);
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let content = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").fold(
                String::new(),
                |mut all, line| {
                    writeln!(all, "{line}").unwrap();
                    all
                },
            );
            match (language, blocks.last_mut()) {
                ("sh", _) if !skip => blocks.push(Block { line: index + 1, script: content, shown: None }),
                ("text", Some(block)) if follows => block.shown = Some(content),
                _ => {}
            }
            follows = language == "sh" && !skip;
            skip = false;
        } else if let Some(command) = line.strip_prefix("<!-- after: ").and_then(|rest| rest.strip_suffix(" -->")) {
            after = Some(command.to_owned());
        } else if line.starts_with("<!-- not run: ") {
            skip = true;
        } else if !line.is_empty() {
            (skip, follows) = (false, false);
        }
    }
    (blocks, after)
}

/// Whether a command that shows this is meant to fail.
fn fails(shown: &str) -> bool {
    shown.trim_start().starts_with("Error") || shown.trim() == "no"
}

/// The first shown line that is missing in what was said. Lines come in the order shown; others may stand between them, any run
/// of blanks is one, and `…` stands for anything.
fn missing<'a>(shown: &'a str, said: &str) -> Option<&'a str> {
    let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut said = said.lines().map(plain);
    shown.lines().find(|line| !line.trim().is_empty() && !said.any(|said| matches(&plain(line), &said)))
}

fn matches(pattern: &str, line: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('…') else { return pattern == line };
    let Some(mut line) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('…').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = line.split_once(part) else { return false };
        line = after;
    }
    line.ends_with(last)
}

/// Runs the commands of a document, each block as one script, by what runs a script.
fn run(document: &str, shell: impl Fn(&str) -> Outcome) {
    let text = std::fs::read_to_string(checkout().join(document)).unwrap();
    let (blocks, after) = read(&text);
    assert!(!blocks.is_empty(), "{document} has no command that is run");
    let after = After(after);
    // A run that was killed may have left something.
    after.put_back();
    for Block { line, script, shown } in &blocks {
        let outcome = shell(script);
        let place = format!("{document}:{line}");
        let meant_to_fail = shown.as_deref().is_some_and(fails);
        assert_eq!(outcome.is_err(), meant_to_fail, "{place}:\n{script}\nended so:\n{outcome:?}");
        let said = outcome.unwrap_or_else(|said| said);
        if let Some(line) = shown.as_deref().and_then(|shown| missing(shown, &said)) {
            panic!("{place}:\n{script}\nwas to print {line:?}, and said:\n{said}");
        }
    }
}

struct After(Option<String>);

impl After {
    fn put_back(&self) {
        if let Some(command) = &self.0 {
            let _ = attempt("bash", &["-c", command], "");
        }
    }
}

impl Drop for After {
    fn drop(&mut self) {
        self.put_back();
    }
}

#[test]
#[ignore = "needs cluster"]
fn the_documents_commands_do_what_is_said() {
    let _turn = Namespace::new("documents");
    for document in DOCUMENTS {
        let folder = tempfile::tempdir().unwrap();
        let enter = format!("cd {}\n", folder.path().display());
        run(document, |script| attempt("bash", &["-euo", "pipefail", "-c", &format!("{enter}{script}")], ""));
    }
    let host = "images.example.com";
    let edge = Edge::start("platform");
    let outside = Outside::new(&edge.company(), &[(host, edge::ADDRESS)]);
    // What the reader has: a certificate and an image.
    let leaf = edge.certificate(host);
    let place = |name: &str| outside.folder().join(name);
    std::fs::write(place("tls.crt"), leaf.certificate).unwrap();
    std::fs::write(place("tls.key"), leaf.key).unwrap();
    std::fs::copy(edge.company(), place("company.crt")).unwrap();
    std::fs::copy(archive().trim_start_matches("oci-archive:"), place("app.tar")).unwrap();
    run(EXPOSING, |script| outside.attempt(script));
}

#[test]
fn blocks_are_read_as_they_are_marked() {
    let text = "# Title\n<!-- after: tidy up -->\n```sh\none\ntwo\n```\n\n```text\nshown\n```\n\n```yaml\na: b\n```\n\
                <!-- not run: it needs a reader -->\n```sh\nnever\n```\n```text\nof nothing\n```\n```sh\nlast\n```\nwords\n```text\nno output\n```\n";
    let (blocks, after) = read(text);
    assert_eq!(after.as_deref(), Some("tidy up"));
    let expected = [
        Block { line: 3, script: "one\ntwo\n".to_owned(), shown: Some("shown\n".to_owned()) },
        Block { line: 22, script: "last\n".to_owned(), shown: None },
    ];
    assert_eq!(blocks, expected);
    assert_eq!(missing("NAME READY\nteam …\n", "NAME   READY\nother\nteam  True  Ready\n"), None);
    assert_eq!(missing("a\nb\n", "b\na\n"), Some("b"));
    assert!(matches("… takes … here", "it takes a right here") && !matches("a … c", "a b d"));
}
