//! The names of types, and the rooms that define them: a reader who meets a name is to know the thing.
//! Input: the sources of this repository.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::Tree;

/// Names of types that more rooms define than `most` of the name, each with these rooms. A type inside of a function or
/// of a module in a file, and one in a file of tests, may have any name.
pub fn shared(tree: &Tree, folders: &[&str], most: impl Fn(&str) -> usize) -> Vec<String> {
    let mut rooms: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in tree.sources() {
        let Some(room) = folders.iter().find_map(|folder| room(path, folder)) else {
            continue;
        };
        for name in text.lines().filter_map(defined) {
            rooms.entry(name).or_default().insert(room.clone());
        }
    }
    rooms.retain(|name, rooms| rooms.len() > most(name));
    let listed = |(name, rooms): (&str, BTreeSet<String>)| {
        let rooms: Vec<String> = rooms.into_iter().collect();
        format!("{name} in {}", rooms.join(", "))
    };
    rooms.into_iter().map(listed).collect()
}

/// The room of a source in a folder; None: it is elsewhere, or it has tests only.
fn room(path: &str, folder: &str) -> Option<String> {
    let inside = path.strip_prefix(folder)?.strip_prefix('/')?;
    let room = inside.split('/').next()?.trim_end_matches(".rs");
    (!inside.ends_with("tests.rs")).then(|| format!("{folder}/{room}"))
}

/// The type that a line of a file's outermost level defines.
fn defined(line: &str) -> Option<&str> {
    let public = line.strip_prefix("pub").and_then(|rest| rest.split_once(' '));
    let (keyword, rest) = public.map_or(line, |(_, rest)| rest).split_once(' ')?;
    let defines = ["struct", "enum", "union", "trait", "type"].contains(&keyword);
    let name = rest.split(|next: char| !next.is_alphanumeric()).next();
    name.filter(|name| defines && !name.is_empty())
}

#[test]
fn a_name_that_several_rooms_share_is_found() {
    let tree = Tree::made_up(&[
        (
            "a/src/one.rs",
            "pub struct Kind {\n    kind: Inner,\n}\nfn f() {\n    struct Inner;\n}\n",
        ),
        ("a/src/one/more.rs", "type Kind<'a> = &'a str;\nstruct Inner;\n"),
        ("a/src/one/tests.rs", "struct Row;\n"),
        ("a/src/two.rs", "pub(super) enum Kind {}\npub(crate) struct Row(u64);\n"),
        ("b/src/lib.rs", "trait Row: Sized {}\nstruct Kindness;\n"),
        ("c/src/lib.rs", "struct Row;\n"),
    ]);
    let found = |most: fn(&str) -> usize| shared(&tree, &["a/src", "b/src"], most);
    assert_eq!(
        found(|_| 1),
        ["Kind in a/src/one, a/src/two", "Row in a/src/two, b/src/lib"]
    );
    assert_eq!(
        found(|name| if name == "Kind" { 1 } else { 2 }),
        ["Kind in a/src/one, a/src/two"]
    );
}
