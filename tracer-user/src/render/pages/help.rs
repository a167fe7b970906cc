//! The list of every flag, bit and state with what it means: `tracer pages --flags-help`.
//! Input: the catalogues of `proc` and `pages`.

use std::fmt::Write as _;

use crate::pages::extent::State;
use crate::proc::entry::FIELDS;
use crate::proc::page_flags::{ALL, FIRST_INTERNAL};

/// The whole page.
pub fn flags() -> String {
    let mut page = String::from("States of a page (--state)\n");
    // Writing to a string cannot fail.
    for state in State::ALL {
        let _ = writeln!(page, "  {:16} {}", state.name(), state.what());
    }
    page.push_str("\nFlags of a page table entry, /proc/PID/pagemap (--flags by name; bits 59 and 60 are zero)\n");
    for field in FIELDS {
        let _ = writeln!(page, "  {:4} {:11} {}", field.bits, field.name, field.what);
    }
    page.push_str("\nFlags of a frame, /proc/kpageflags (--flags by name)\n");
    for flag in ALL {
        if flag.bit == FIRST_INTERNAL {
            page.push_str(
                "\nFlags of a frame that are the kernel's own: their meaning changes from release to release\n",
            );
        }
        let _ = writeln!(page, "  {:4} {:14} {}", flag.bit, flag.name, flag.what);
    }
    page.push_str("\nA bit that is not in these lists is shown as bit_N.\n");
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_flag_is_listed() {
        insta::assert_snapshot!("flags_help", super::flags());
    }
}
