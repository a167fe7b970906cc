//! The links of the documents, and the files that they name: each leads to a file, and to a heading in it.
//! Input: README.md, CONTRIBUTING.md, CHANGELOG.md and docs/*.md.

use std::{collections::BTreeMap, path::Path};

use crate::sources::Tree;

/// The broken links of the documents, one string for each.
pub fn dead(tree: &Tree) -> Vec<String> {
    let mut dead = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| is_document(path)) {
        let prose = without_fences(text);
        for target in targets(&prose) {
            if !leads(tree, path, &target) {
                dead.push(format!("{path}: {target}"));
            }
        }
        // Files that a change log names may have been removed since.
        let named = named(&prose).into_iter().filter(|_| path != "CHANGELOG.md");
        dead.extend(
            named
                .filter(|name| !exists(tree, name))
                .map(|name| format!("{path}: `{name}`")),
        );
    }
    dead
}

fn is_document(path: &str) -> bool {
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].contains(&path)
        || path.starts_with("docs/") && Path::new(path).extension().is_some_and(|extension| extension == "md")
}

/// A fence ends with as many backticks as it began with.
fn without_fences(text: &str) -> String {
    let mut fence = None;
    let mut kept = String::new();
    for line in text.lines() {
        let ticks = line.trim_start().bytes().take_while(|byte| *byte == b'`').count();
        match fence {
            None if ticks >= 3 => fence = Some(ticks),
            None => {
                kept.push_str(line);
                kept.push('\n');
            }
            Some(opened) if ticks >= opened => fence = None,
            Some(_) => {}
        }
    }
    kept
}

/// Prose and code spans by turns, beginning with prose.
fn spans(prose: &str) -> impl Iterator<Item = (bool, &str)> {
    prose
        .split('`')
        .enumerate()
        .map(|(number, span)| (number % 2 == 1, span))
}

/// The targets of links: `](target)`, and definitions `[name]: target`.
fn targets(prose: &str) -> Vec<String> {
    let code_left_out: String = spans(prose)
        .map(|(code, span)| if code { "code" } else { span })
        .collect();
    let inline = code_left_out
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'));
    let inline = inline.filter_map(|(target, _)| target.split_whitespace().next());
    let defined = code_left_out
        .lines()
        .filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
    let defined = defined.filter_map(|(_, target)| target.split_whitespace().next());
    inline.chain(defined).map(str::to_owned).collect()
}

/// Code spans that are paths from the root of the repository.
fn named(prose: &str) -> Vec<String> {
    const FOLDERS: [&str; 7] = [
        "docs/",
        "fuzz/",
        "tests/",
        "tracer-common/",
        "tracer-ebpf/",
        "tracer-user/",
        "xtask/",
    ];
    let code = spans(prose).filter(|(code, _)| *code).map(|(_, span)| span);
    let paths = code.filter(|span| FOLDERS.iter().any(|folder| span.starts_with(folder)));
    paths
        .filter(|span| !span.contains([' ', '{', '*', '<']))
        .map(str::to_owned)
        .collect()
}

/// Whether there is such a file or folder.
fn exists(tree: &Tree, path: &str) -> bool {
    let folder = format!("{}/", path.trim_end_matches('/'));
    tree.files.contains_key(path) || tree.files.keys().any(|file| file.starts_with(&folder))
}

fn leads(tree: &Tree, from: &str, target: &str) -> bool {
    if target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let (file, anchor) = target
        .split_once('#')
        .map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let mut path: Vec<&str> = from.split('/').collect();
    if !file.is_empty() {
        path.pop();
        for part in file.split('/') {
            match part {
                "." | "" => {}
                ".." => drop(path.pop()),
                part => path.push(part),
            }
        }
    }
    let path = path.join("/");
    let has = |anchor: &str| {
        tree.files
            .get(&path)
            .is_some_and(|text| anchors(text).iter().any(|have| have == anchor))
    };
    exists(tree, &path) && anchor.is_none_or(has)
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    let prose = without_fences(text);
    let headings = prose.lines().filter_map(|line| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then(|| title.strip_prefix(' ')).flatten()
    });
    headings
        .map(|title| {
            let kept = title
                .trim()
                .chars()
                .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            let anchor: String = kept
                .flat_map(char::to_lowercase)
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            let before = times.entry(anchor.clone()).or_default();
            *before += 1;
            if *before == 1 {
                anchor
            } else {
                format!("{anchor}-{}", *before - 1)
            }
        })
        .collect()
}

#[test]
fn dead_links_are_found_and_live_ones_are_not() {
    let tree = Tree::made_up(&[
        (
            "README.md",
            "[a](docs/a.md) [b](docs/b.md) [c](docs/a.md#the-books) [d](docs/a.md#no-such) [e](#here) [f](#there)\n\
             `[g](code.md)` [h](https://example.org/x#y)\n# Here\n[i]: docs/none.md\n```\n[j](fence.md)\n# There\n```\n",
        ),
        (
            "docs/a.md",
            "## The books\n[up](../README.md) [up](../gone.md) [beside](a.md)\n",
        ),
        ("other/x.md", "[not](looked/at.md)"),
    ]);
    let expected = [
        "README.md: docs/b.md",
        "README.md: docs/a.md#no-such",
        "README.md: #there",
        "README.md: docs/none.md",
    ];
    assert_eq!(dead(&tree), [&expected[..], &["docs/a.md: ../gone.md"]].concat());
}

#[test]
fn files_that_documents_name_exist() {
    let tree = Tree::made_up(&[
        (
            "docs/a.md",
            "`xtask/src/vm.rs` `xtask/src` `xtask/src/gone.rs` `xtask/src/{a,b}.rs` `sink/gone.rs`",
        ),
        ("CHANGELOG.md", "`xtask/src/gone.rs`"),
        ("xtask/src/vm.rs", ""),
    ]);
    assert_eq!(dead(&tree), ["docs/a.md: `xtask/src/gone.rs`"]);
}

#[test]
fn anchors_are_as_github_makes_them() {
    let text = "# By the `second`\n## --strict\n## By the second\n#no heading\n";
    assert_eq!(anchors(text), ["by-the-second", "--strict", "by-the-second-1"]);
}
