//! The files of this repository, and the checks of each alone: its opening lines, its name, the crates that it names.
//! Input: the folder of the repository, without built, recorded and foreign files.

use std::{collections::BTreeMap, fs, path::Path};

/// Sources and documents by their path from the root.
pub struct Tree {
    pub files: BTreeMap<String, String>,
}

impl Tree {
    pub fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        read(root, "", &mut files);
        Self { files }
    }

    #[cfg(test)]
    pub fn made_up(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self { files: files.collect() }
    }

    pub fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        files.filter(|(path, _)| Path::new(path).extension().is_some_and(|extension| extension == "rs"))
    }
}

fn read(root: &Path, folder: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if folder.is_empty() {
            name.clone()
        } else {
            format!("{folder}/{name}")
        };
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            if !name.starts_with('.') && !["target", "golden", "snapshots"].contains(&name.as_str()) {
                read(root, &path, files);
            }
        } else if kind.is_file() {
            // A file that is no text is not checked, but a link may lead to it.
            let text = fs::read(root.join(&path))
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok());
            files.insert(path, text.unwrap_or_default());
        }
    }
}

/// Sources that do not open with their purpose and their input.
pub fn heads(tree: &Tree) -> Vec<String> {
    let opens = |text: &str| {
        let mut lines = text.lines();
        (0..2).all(|_| {
            lines
                .next()
                .and_then(|line| line.strip_prefix("//! "))
                .is_some_and(|said| !said.is_empty())
        })
    };
    tree.sources()
        .filter(|(_, text)| !opens(text))
        .map(|(path, _)| path.to_owned())
        .collect()
}

/// Sources with a name that says nothing about their content.
pub fn misnamed(tree: &Tree) -> Vec<String> {
    const NAMES: [&str; 4] = ["others.rs", "misc.rs", "util.rs", "utils.rs"];
    let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let bad = tree.sources().filter(|(path, _)| NAMES.contains(&last(path).as_str()));
    bad.map(|(path, _)| path.to_owned()).collect()
}

/// Sources in a folder that name a crate.
pub fn naming<'a>(tree: &'a Tree, folder: &'a str, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let inside = tree.sources().filter(move |(path, _)| path.starts_with(folder));
    inside
        .filter(move |(_, text)| text.contains(&format!("{name}::")))
        .map(|(path, _)| path.to_owned())
}

/// Sources in which a line of a comment begins like a fragment: with one of these words, it seldom is a sentence with a
/// subject and a verb.
pub fn fragments(tree: &Tree) -> Vec<String> {
    const WORDS: [&str; 5] = ["Of", "What", "Whose", "Where", "Those"];
    let begins = |line: &str| {
        let line = line.trim_start();
        let comment = ["/// ", "//! ", "// "]
            .into_iter()
            .find_map(|mark| line.strip_prefix(mark));
        let first = comment.and_then(|comment| comment.split(|next: char| !next.is_alphanumeric()).next());
        first.is_some_and(|first| WORDS.contains(&first))
    };
    tree.sources()
        .filter(|(_, text)| text.lines().any(begins))
        .map(|(path, _)| path.to_owned())
        .collect()
}

#[test]
fn a_fragment_is_found() {
    let tree = Tree::made_up(&[
        ("a/good.rs", "/// The pages of a folio. Of these, one.\n// Often.\n"),
        ("a/first.rs", "fn f() {\n    // Of a folio, the first page.\n}\n"),
        ("a/doc.rs", "/// What\n"),
    ]);
    assert_eq!(fragments(&tree), ["a/doc.rs", "a/first.rs"]);
}

#[test]
fn a_file_without_its_two_lines_is_found() {
    let tree = Tree::made_up(&[
        ("a/good.rs", "//! For this.\n//! Input: that.\n"),
        ("a/one.rs", "//! For this.\n\nfn f() {}\n"),
        ("a/none.rs", "fn f() {}\n"),
        ("a/empty.rs", "//! For this.\n//!\n"),
        ("a/text.md", "no source"),
    ]);
    assert_eq!(heads(&tree), ["a/empty.rs", "a/none.rs", "a/one.rs"]);
}

#[test]
fn a_name_that_says_nothing_is_found() {
    let tree = Tree::made_up(&[("a/others.rs", ""), ("a/brothers.rs", ""), ("others.rs", "")]);
    assert_eq!(misnamed(&tree), ["a/others.rs", "others.rs"]);
}

#[test]
fn a_file_that_names_the_library_is_found() {
    let tree = Tree::made_up(&[
        ("t/a.rs", "use lib::x;"),
        ("t/b.rs", "use other::x;"),
        ("u/c.rs", "use lib::x;"),
    ]);
    assert_eq!(naming(&tree, "t/", "lib").collect::<Vec<_>>(), ["t/a.rs"]);
}
