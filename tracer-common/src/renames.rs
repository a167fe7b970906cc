//! Decides which renames of a task are reported: a task can rename itself a million times a second.
//! Used by the BPF side's `probes/lifecycle`; it stands here so that it is tested without a kernel.

/// A task's renames are counted anew after this time, ns: about the time between two turns of the reader.
pub const WINDOW: u64 = 10_000_000;
/// The renames of a task that are reported in a window: more than a program needs that starts and names itself.
const REPORTED: u64 = 4;
/// The bits of [`Renames`] that count; the others are those of the time.
const COUNT: u64 = 15;

/// The renames of one task that were reported in the present window: when it began, and their number. Both are in one
/// word, because a thread may rename another one that runs on another CPU.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renames(u64);

/// The fate of a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rename {
    /// It is reported, and so is the next one.
    Reported,
    /// It is reported as the last one of the window.
    Last,
    /// It is not reported: the name counts that the task has when the window ends.
    Merged,
}

impl Renames {
    /// Takes in a rename at a time, `CLOCK_MONOTONIC` nanoseconds.
    #[inline]
    #[must_use]
    pub const fn next(self, at: u64) -> (Self, Rename) {
        let (began, reported) = (self.0 & !COUNT, self.0 & COUNT);
        if reported == 0 || at.wrapping_sub(began) >= WINDOW {
            return (Self(at & !COUNT | 1), Rename::Reported);
        }
        if reported >= REPORTED {
            return (self, Rename::Merged);
        }
        let rename = if reported + 1 == REPORTED {
            Rename::Last
        } else {
            Rename::Reported
        };
        (Self(began | (reported + 1)), rename)
    }
}

#[cfg(test)]
mod tests {
    use super::{Rename, Renames, WINDOW};

    /// The fates of renames at these times.
    fn of<const N: usize>(times: [u64; N]) -> [Rename; N] {
        let mut renames = Renames::default();
        times.map(|at| {
            let (next, rename) = renames.next(at);
            renames = next;
            rename
        })
    }

    #[test]
    fn the_last_rename_that_is_reported_says_so() {
        use Rename::{Last, Merged, Reported};
        let begin = 77 * WINDOW;
        assert_eq!(
            of([begin, begin, begin + 1, begin + 20, begin + 21, begin + WINDOW - 16]),
            [Reported, Reported, Reported, Last, Merged, Merged]
        );
        assert_eq!(of([0, 1, 2, 3, 4]), [Reported, Reported, Reported, Last, Merged]);
    }

    #[test]
    fn a_window_ends_by_the_clock() {
        use Rename::{Last, Reported};
        let begin = 77 * WINDOW;
        let later = begin + WINDOW;
        assert_eq!(
            of([begin, begin, begin, begin, later, later]),
            [Reported, Reported, Reported, Last, Reported, Reported]
        );
        // Another CPU's time may be that of an earlier rename.
        assert_eq!(of([begin, begin - 16]), [Reported, Reported]);
        // A task that is renamed now and then.
        assert_eq!(of([1, 2, 3, 4].map(|n| n * WINDOW)), [Reported; 4]);
    }
}
