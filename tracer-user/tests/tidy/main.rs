//! Checks that a reviewer would have to repeat: the order of rooms, no circles, file heads, names, links in documents.
//! Input: the sources and documents of this repository.

mod imports;
mod links;
mod sources;
mod types;

use std::path::Path;

use imports::{Crate, circles, upward};
use sources::{Tree, fragments, heads, misnamed, naming};

/// The rooms of tracer-user/src from the top down: a room imports only rooms that stand below it here.
const ROOMS: &[&str] = &[
    "main",
    "cli",
    "session",
    "pipeline",
    "sink",
    "render",
    "analysis",
    "words",
    "section",
    "source",
    "correlate",
    "recording",
    "confinement",
    "output",
    "run",
    "decode",
    "event",
    "pages",
    "proc",
    "kernel",
    "caller",
    "escape",
    "units",
];

/// The rooms of tracer-ebpf/src, in the same way.
const BPF_ROOMS: &[&str] = &[
    "main", "probes", "bases", "restored", "rmap", "emit", "state", "turn", "owner", "filter", "walk", "kernel",
    "counters",
];

/// The folders with the sources of the crates.
const CRATES: &[&str] = &[
    "tracer-common/src",
    "tracer-ebpf/src",
    "tracer-user/src",
    "xtask/src",
    "tests/src",
    "tests/report/src",
];

/// The folders of the product's crates.
const PRODUCT_CRATES: &[&str] = CRATES.split_at(3).0;

/// Names of types that say so little alone that at most one room may define each. Two rooms of the product may share
/// another name, such as `Column`, as long as each thing is one in the words of its room.
const BARE: &[&str] = &["Kind", "Place", "Run"];

/// Violations that are still to be mended, as the checks print them. One that is mended is taken off this list.
const KNOWN: &[&str] = &[];

/// The only file under tests/ that imports the product's library.
const PRODUCT: &str = "tests/src/product.rs";

fn tree() -> Tree {
    Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
}

/// Compares the violations of a check with the known ones that begin with its name.
fn assert_tidy(check: &str, found: impl IntoIterator<Item = String>) {
    let mut found: Vec<String> = found.into_iter().map(|what| format!("{check}: {what}")).collect();
    found.sort();
    found.dedup();
    let known = |what: &&String| KNOWN.contains(&what.as_str());
    let new: Vec<_> = found.iter().filter(|what| !known(what)).collect();
    let prefix = format!("{check}: ");
    let of_this_check = KNOWN.iter().filter(|known| known.starts_with(&prefix));
    let mended: Vec<_> = of_this_check
        .filter(|known| !found.iter().any(|what| what == **known))
        .collect();
    assert!(
        new.is_empty() && mended.is_empty(),
        "new violations: {new:#?}\nmended, to be taken off KNOWN: {mended:#?}"
    );
}

#[test]
fn rooms_import_only_rooms_beneath_them() {
    let tree = tree();
    let of = |folder, order| upward(&Crate::of(&tree, folder), order);
    assert_tidy(
        "upward",
        of("tracer-user/src", ROOMS)
            .into_iter()
            .chain(of("tracer-ebpf/src", BPF_ROOMS)),
    );
}

/// No renderer analyses, no analysis formats: what holds with either of them on top holds for both.
#[test]
fn analysis_and_render_do_not_know_each_other() {
    let tree = tree();
    let mut order = ROOMS.to_vec();
    let place = |name| {
        ROOMS
            .iter()
            .position(|room| *room == name)
            .expect("a room of the order")
    };
    order.swap(place("render"), place("analysis"));
    let both = [ROOMS, &order];
    assert_tidy(
        "upward",
        both.into_iter()
            .flat_map(|order| upward(&Crate::of(&tree, "tracer-user/src"), order)),
    );
}

#[test]
fn no_files_import_each_other() {
    let tree = tree();
    assert_tidy(
        "circle",
        CRATES.iter().flat_map(|folder| circles(&Crate::of(&tree, folder))),
    );
}

#[test]
fn every_file_opens_with_two_lines() {
    assert_tidy("head", heads(&tree()));
}

#[test]
fn names_say_what_a_file_is() {
    assert_tidy("name", misnamed(&tree()));
}

#[test]
fn a_type_name_means_one_thing() {
    let tree = tree();
    let bare = |name: &str| if BARE.contains(&name) { 1 } else { usize::MAX };
    let product = types::shared(&tree, PRODUCT_CRATES, |_| 2);
    let bare = types::shared(&tree, CRATES, bare);
    assert_tidy("type", product.into_iter().chain(bare));
}

#[test]
fn comments_are_sentences() {
    assert_tidy("fragment", fragments(&tree()));
}

#[test]
fn one_file_of_the_tests_imports_the_library() {
    assert_tidy(
        "library",
        naming(&tree(), "tests/src/", "tracer_user").filter(|path| path != PRODUCT),
    );
}

#[test]
fn every_link_leads_somewhere() {
    assert_tidy("link", links::dead(&tree()));
}

#[test]
fn every_known_violation_is_of_a_check() {
    let checks = [
        "upward: ",
        "circle: ",
        "head: ",
        "name: ",
        "type: ",
        "fragment: ",
        "library: ",
        "link: ",
    ];
    for known in KNOWN {
        assert!(checks.iter().any(|check| known.starts_with(check)), "{known}");
    }
}
