//! A hint to moves whose kinds are not traced.
//! Input: the kernel's counts of them, and the kinds that are traced.

use crate::{
    cells,
    kernel::hooks::Kinds,
    run::{header::Header, outside::Outside},
    section::{Cell, Note, joined},
};

/// The moves that happened and that the run does not show, by the cause; empty if there are none.
pub(super) fn hints(outside: &Outside, header: &Header) -> Vec<Note> {
    let requested = header.kinds.known();
    let unseen = requested.without(header.seen());
    let parts = [
        ("not shown (--kinds): ", Kinds::ALL.without(requested)),
        ("not shown (this backend does not see them): ", unseen),
    ];
    parts
        .into_iter()
        .filter_map(|(words, kinds)| hint(outside, words, kinds))
        .collect()
}

/// One sentence; None if there were no moves of these kinds.
fn hint(outside: &Outside, words: &'static str, kinds: Kinds) -> Option<Note> {
    let pages = |pages| Cell::Counted(pages, "page", "pages");
    let (out, back) = (outside.swapped_out, outside.swapped_in);
    let (copies, collapses) = (outside.ksm_copies, outside.collapses);
    let huge = Cell::Counted(collapses, "huge page was", "huge pages were");
    let parts = [
        (Kinds::SWAP, out, cells![pages(out), " went to swap"]),
        (Kinds::SWAP, back, cells![pages(back), " came back from swap"]),
        (Kinds::KSM, copies, cells![pages(copies), " of KSM copied for writes"]),
        (Kinds::COLLAPSE, collapses, cells![huge, " allocated for collapses"]),
    ];
    let parts = parts.into_iter().filter(|(kind, n, _)| *n > 0 && kinds.any_of(*kind));
    let parts = joined(parts.map(|(.., words)| words), ", ");
    if parts.is_empty() {
        return None;
    }
    let mut words = cells![words];
    words.extend(parts);
    words.push(" (/proc/vmstat, whole machine)".into());
    Some(Note::about("note", words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{made_up, render::text::plain, run::backend::Backend, section::Section};

    #[test]
    fn kinds_that_are_shown_need_no_hint() {
        let outside = Outside {
            swapped_out: 1204,
            swapped_in: 1,
            collapses: 1,
            ksm_copies: 0,
        };
        let text = |outside: Outside, backend: Backend, kinds: Kinds| {
            let header = Header {
                backend: backend.into(),
                kinds: kinds.into(),
                ..made_up::header()
            };
            plain(&[Section::notes(hints(&outside, &header))])
        };
        assert_eq!(
            text(outside, Backend::Exact, Kinds::DEFAULT),
            "note      not shown (--kinds): 1,204 pages went to swap, 1 page came back from swap (/proc/vmstat, whole \
             machine)\n"
        );
        assert_eq!(
            text(outside, Backend::Exact, Kinds::MOVE.and(Kinds::SWAP)),
            "note      not shown (--kinds): 1 huge page was allocated for collapses (/proc/vmstat, whole machine)\n"
        );
        assert_eq!(text(outside, Backend::Exact, Kinds::ALL), "");
        assert_eq!(text(Outside::default(), Backend::Tracepoint, Kinds::MOVE), "");
        // Requested is not seen.
        assert_eq!(
            text(outside, Backend::Tracepoint, Kinds::DEFAULT),
            "note      not shown (--kinds): 1,204 pages went to swap, 1 page came back from swap (/proc/vmstat, whole \
             machine)\n\
             note      not shown (this backend does not see them): 1 huge page was allocated for collapses \
             (/proc/vmstat, whole machine)\n"
        );
    }
}
