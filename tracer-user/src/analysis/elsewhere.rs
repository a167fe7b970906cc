//! A hint to moves whose kinds are not traced.
//! Input: the kernel's counts of them, and the kinds that are traced.

use crate::{
    cells,
    kernel::hooks::Kinds,
    run::elsewhere::Elsewhere,
    section::{Cell, Note, joined},
};

/// One sentence; None if nothing happened that `kinds` leave out.
pub(super) fn hint(elsewhere: &Elsewhere, kinds: Kinds) -> Option<Note> {
    let pages = |pages| Cell::Counted(pages, "page", "pages");
    let (out, back) = (elsewhere.swapped_out, elsewhere.swapped_in);
    let (copies, collapses) = (elsewhere.ksm_copies, elsewhere.collapses);
    let huge = Cell::Counted(collapses, "huge page was", "huge pages were");
    let parts = [
        (Kinds::SWAP, out, cells![pages(out), " went to swap"]),
        (Kinds::SWAP, back, cells![pages(back), " came back from swap"]),
        (Kinds::KSM, copies, cells![pages(copies), " of KSM copied for writes"]),
        (Kinds::COLLAPSE, collapses, cells![huge, " allocated for collapses"]),
    ];
    let parts = parts.into_iter().filter(|(kind, n, _)| *n > 0 && !kinds.any_of(*kind));
    let parts = joined(parts.map(|(.., words)| words), ", ");
    if parts.is_empty() {
        return None;
    }
    let mut words = cells!["not shown (--kinds): "];
    words.extend(parts);
    words.push(" (/proc/vmstat, whole machine)".into());
    Some(Note::about("note", words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{render::text::plain, section::Section};

    #[test]
    fn kinds_that_are_traced_need_no_hint() {
        let elsewhere = Elsewhere {
            swapped_out: 1204,
            swapped_in: 1,
            collapses: 1,
            ksm_copies: 0,
        };
        let text = |kinds| {
            let notes = hint(&elsewhere, kinds).into_iter().collect();
            plain(&[Section::notes(notes)])
        };
        assert_eq!(
            text(Kinds::DEFAULT),
            "note      not shown (--kinds): 1,204 pages went to swap, 1 page came back from swap (/proc/vmstat, whole \
             machine)\n"
        );
        assert_eq!(
            text(Kinds::MOVE.and(Kinds::SWAP)),
            "note      not shown (--kinds): 1 huge page was allocated for collapses (/proc/vmstat, whole machine)\n"
        );
        assert_eq!(text(Kinds::ALL), "");
        assert_eq!(hint(&Elsewhere::default(), Kinds::MOVE), None);
    }
}
