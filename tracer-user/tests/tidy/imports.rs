//! The imports between the files of a crate, and those among them that go upward or in a circle.
//! Input: sources, read as tokens. Tests and their made-up values are left out.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::Tree;

/// The files of a crate and their imports of each other, each a path below the crate's folder.
pub struct Crate {
    folder: String,
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl Crate {
    /// # Panics
    /// When there is no source in the folder, because then nothing would be proven.
    pub fn of(tree: &Tree, folder: &str) -> Self {
        let inside = |path: &str| Some(path.strip_prefix(folder)?.strip_prefix('/')?.to_owned());
        let sources = tree.sources().filter_map(|(path, text)| Some((inside(path)?, text)));
        let sources: Vec<_> = sources.filter(|(path, _)| !is_of_tests(path)).collect();
        assert!(!sources.is_empty(), "no sources in {folder}");
        let modules: BTreeMap<Vec<String>, &String> = sources.iter().map(|(path, _)| (module(path), path)).collect();
        // A library's own binary imports it by the library's name.
        let library = folder.split('/').next().unwrap_or_default().replace('-', "_");
        let imports = sources.iter().map(|(path, text)| {
            let found = paths(text, &module(path), &library);
            let files = found.iter().filter_map(|found| file_of(&modules, found));
            (path.clone(), files.filter(|file| file != path).collect())
        });
        Self {
            folder: folder.to_owned(),
            imports: imports.collect(),
        }
    }
}

fn is_of_tests(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name == "tests.rs" || name == "made_up.rs"
}

/// `a/b.rs` and `a/b/mod.rs` are the module `a::b`; a binary's `main.rs` beside a library stands above all of it.
fn module(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" {
        return Vec::new();
    }
    path.split('/').map(str::to_owned).collect()
}

/// The file that holds the item of a path: the file of the innermost module on the path.
fn file_of(modules: &BTreeMap<Vec<String>, &String>, path: &[String]) -> Option<String> {
    let found = (1..=path.len()).rev().find_map(|length| modules.get(&path[..length]));
    // An item that is in no module is in the crate's root.
    let root = || {
        modules
            .get(&Vec::new())
            .or_else(|| modules.get(&vec!["main".to_owned()]))
    };
    found.or_else(root).map(|file| (*file).clone())
}

/// Imports of rooms that do not stand beneath, by the order of rooms from the top down.
pub fn upward(of: &Crate, order: &[&str]) -> Vec<String> {
    let room = |file: &str| module(file).into_iter().next();
    let place = |file: &str| order.iter().position(|name| room(file).as_deref() == Some(*name));
    let mut upward = Vec::new();
    for (file, imports) in &of.imports {
        if room(file).is_some() && place(file).is_none() {
            upward.push(format!("{}/{file} is in no room of the order", of.folder));
        }
        for import in imports.iter().filter(|import| room(import) != room(file)) {
            if let (Some(from), Some(to)) = (place(file), place(import))
                && to < from
            {
                upward.push(format!("{}/{file} -> {import}", of.folder));
            }
        }
    }
    upward
}

/// Files that import each other, directly or through others: each circle is the list of its files.
pub fn circles(of: &Crate) -> Vec<String> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        of.imports.keys().map(|file| (file, reached(of, file))).collect();
    let mut circles = BTreeSet::new();
    for (file, all) in &reached {
        let circle: BTreeSet<&str> = all
            .iter()
            .filter(|other| reached[*other].contains(file))
            .map(|other| other.as_str())
            .collect();
        if circle.len() > 1 {
            let files: Vec<&str> = circle.into_iter().collect();
            circles.insert(format!("{}: {}", of.folder, files.join(", ")));
        }
    }
    circles.into_iter().collect()
}

fn reached<'a>(of: &'a Crate, from: &str) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&String> = of.imports[from].iter().collect();
    while let Some(file) = open.pop() {
        if reached.insert(file) {
            open.extend(&of.imports[file]);
        }
    }
    reached
}

/// Every path of this crate that a source names, from the crate's root.
fn paths(text: &str, module: &[String], library: &str) -> Vec<Vec<String>> {
    let tokens = without_tests(&tokens(text));
    let mut children = BTreeSet::new();
    for three in tokens.windows(3) {
        if three[0] == "mod" && three[2] == ";" {
            children.insert(three[1]);
        }
    }
    let mut found = Vec::new();
    // Modules within the file, each with the depth of braces at which it ends.
    let mut inner: Vec<(String, usize)> = Vec::new();
    let (mut depth, mut at) = (0, 0);
    while at < tokens.len() {
        let token = tokens[at];
        match token {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inner.pop_if(|(_, ends)| *ends == depth);
            }
            "mod" => {
                // In a macro it may be `mod $name`.
                let name = at + if tokens.get(at + 1) == Some(&"$") { 2 } else { 1 };
                if tokens.get(name + 1) == Some(&"{") {
                    inner.push((tokens[name].to_owned(), depth));
                }
            }
            _ => {}
        }
        let begins = !matches!(at.checked_sub(1).map(|before| tokens[before]), Some("::" | "."));
        if !begins || tokens.get(at + 1) != Some(&"::") {
            at += 1;
            continue;
        }
        let here: Vec<String> = module
            .iter()
            .cloned()
            .chain(inner.iter().map(|(name, _)| name.clone()))
            .collect();
        let base = match token {
            "crate" => Some(Vec::new()),
            "self" => Some(here),
            "super" => Some(here[..here.len().saturating_sub(1)].to_vec()),
            name if name == library => Some(Vec::new()),
            name if inner.is_empty() && children.contains(name) => Some(child(&here, name)),
            _ => None,
        };
        at += 2;
        if let Some(base) = base {
            at = tree(&tokens, at, &base, &mut found);
        }
    }
    found
}

/// A `main.rs` declares the crate's own modules, not those of a module `main`.
fn child(here: &[String], name: &str) -> Vec<String> {
    let root = here == ["main"];
    here.iter()
        .filter(|_| !root)
        .cloned()
        .chain([name.to_owned()])
        .collect()
}

/// Reads the path, or the paths in braces, after a `::`. Returns the position after them.
fn tree(tokens: &[&str], mut at: usize, base: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = base.to_vec();
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                at += 1;
                while let Some(token) = tokens.get(at).filter(|token| **token != "}") {
                    at = if *token == "," {
                        at + 1
                    } else {
                        tree(tokens, at, &path, found)
                    };
                }
                return at + 1;
            }
            Some(&"super") => drop(path.pop()),
            Some(&"self") => {}
            Some(name) => path.push((*name).to_owned()),
            None => return at,
        }
        at += 1;
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    if tokens.get(at) == Some(&"as") {
        at += 2;
    }
    found.push(path);
    at
}

/// Identifiers, `::` and single characters; no comments, strings, characters or lifetimes.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' {
            // A lifetime has no second quote after its first character.
            let mut chars = rest.chars().skip(1);
            let is_char = chars.next() == Some('\\') || chars.next() == Some('\'');
            if is_char {
                quoted(rest, '\'')
            } else {
                1 + rest[1..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0)
            }
        } else if first.is_whitespace() {
            first.len_utf8()
        } else {
            let length = if rest.starts_with("::") {
                2
            } else {
                word.max(first.len_utf8())
            };
            tokens.push(&rest[..length]);
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of `r"..."`, `r#"..."#`, `br"..."`, and so on.
fn raw_string(text: &str) -> Option<usize> {
    let after = text
        .strip_prefix("br")
        .or_else(|| text.strip_prefix("cr"))
        .or_else(|| text.strip_prefix('r'))?;
    let hashes = after.bytes().take_while(|byte| *byte == b'#').count();
    let content = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let begun = text.len() - content.len();
    Some(content.find(&end).map_or(text.len(), |at| begun + at + end.len()))
}

/// The length of a literal between these quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The tokens without the items below a `#[cfg(test)]`.
fn without_tests<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&ATTRIBUTE) {
            at = end_of_item(tokens, at + ATTRIBUTE.len());
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// An item ends with a semicolon outside of all brackets, or with its braces, except those of a `use`.
fn end_of_item(tokens: &[&str], mut at: usize) -> usize {
    let mut depth = 0;
    let mut is_use = false;
    while let Some(token) = tokens.get(at) {
        match *token {
            "use" if depth == 0 => is_use = true,
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" => {
                depth -= 1;
                if depth == 0 && !is_use {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::{Crate, circles, paths, upward};
    use crate::sources::Tree;

    fn found(text: &str, module: &str) -> Vec<String> {
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        let found = paths(text, &module, "tool_user");
        found.into_iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn every_way_to_name_a_module_is_seen() {
        let text = "use crate::{a::B, c::{self, d::E as F}, *};\nmod child;\nfn f(x: &'static crate::g::H) { child::i(); }\n\
                    pub(super) use super::j::K; mod inner { use super::L; } mod $m { use super::N; } use self::child::M; use tool_user::cli;";
        let expected = [
            "a::B",
            "c",
            "c::d::E",
            "*",
            "g::H",
            "r::s::child::i",
            "r::j::K",
            "r::s::L",
            "r::s::N",
            "r::s::child::M",
            "cli",
        ];
        assert_eq!(found(text, "r::s"), expected);
    }

    #[test]
    fn what_only_looks_like_an_import_is_not_seen() {
        let text = r##"// crate::a
            /* crate::b */ const C: &str = "crate::c \" crate::d"; const D: &str = r#"" crate::e"#; const Q: char = '"';
            const R: char = '\''; #[cfg(test)] use crate::{f, g}; #[cfg(test)] #[allow(x)] fn t(a: [u8; 2]) { crate::h() }
            #[cfg(test)] mod made_up; use other::crate_like::A; fn k() { self.x; std::self_like::b(); }
            #[cfg(test)] mod tests { use crate::i; fn f() { {} } }"##;
        assert_eq!(found(text, "r"), [""; 0]);
    }

    fn made_up(files: &[(&str, &str)]) -> Crate {
        let files: Vec<(String, &str)> = files
            .iter()
            .map(|(path, text)| (format!("c/src/{path}"), *text))
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        Crate::of(&Tree::made_up(&files), "c/src")
    }

    #[test]
    fn an_import_that_goes_upward_is_found() {
        let of = made_up(&[
            ("lib.rs", "pub mod high; pub mod low;"),
            ("high.rs", "use crate::low::part::X;"),
            ("low/mod.rs", "mod part;"),
            ("low/part.rs", "use crate::high::Y; #[cfg(test)] use crate::high::Z;"),
            ("low/tests.rs", "use crate::high::Z;"),
            ("new.rs", ""),
        ]);
        let expected = [
            "c/src/low/part.rs -> high.rs",
            "c/src/new.rs is in no room of the order",
        ];
        assert_eq!(upward(&of, &["high", "low"]), expected);
        assert_eq!(upward(&of, &["low", "high", "new"]), ["c/src/high.rs -> low/part.rs"]);
    }

    #[test]
    fn a_circle_is_found_with_all_its_files() {
        let of = made_up(&[
            ("main.rs", "mod a; mod b; mod c; mod d; fn main() { a::f(); }"),
            ("a.rs", "use crate::b::B;"),
            ("b/mod.rs", "mod inner; use crate::c; pub use inner::I;"),
            ("b/inner.rs", ""),
            ("c.rs", "use super::a::A;"),
            ("d.rs", "use crate::a::A;"),
        ]);
        assert_eq!(circles(&of), ["c/src: a.rs, b/mod.rs, c.rs"]);
        let parent = made_up(&[
            ("main.rs", "mod a;"),
            ("a.rs", "mod b; use b::B;"),
            ("a/b.rs", "use super::A;"),
        ]);
        assert_eq!(circles(&parent), ["c/src: a.rs, a/b.rs"]);
    }
}
