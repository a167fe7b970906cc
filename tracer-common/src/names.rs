//! Patterns of task names, compiled so that one pass over a name tests all of them without a branch on its content.
//! Written by `cli::filters`, used by both sides: by the programs where a name changes, by user space at the start.

use core::fmt;

/// `TASK_COMM_LEN`, include/linux/sched.h: 15 bytes and a NUL.
pub const COMM_LEN: usize = 16;

/// A set of patterns: `*` stands for any bytes, `?` for one byte, any other byte for itself.
///
/// A nondeterministic automaton of 64 states, one bit each. The patterns stand side by side in it; one of n bytes and
/// question marks takes n + 1 states. State i is taken when everything before token i was matched.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// The states at which the patterns begin.
    pub starts: u64,
    /// States that any byte leaves as they are: a `*` stands there.
    pub stars: u64,
    /// The states at which the patterns end.
    pub accepts: u64,
    /// For each byte, the states that it leaves for the next one.
    pub bytes: [u64; 256],
}

/// Why a pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// It has no characters.
    Empty,
    /// It wants more than 15 bytes, which no name has.
    Long,
    /// There is no room for it beside the others.
    Full,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "an empty name",
            Self::Long => "the kernel keeps 15 bytes of a name: give those, or fewer and a *",
            Self::Full => "too many names: together they may have 64 characters, each counting one more than it has",
        })
    }
}

impl core::error::Error for PatternError {}

impl Names {
    /// No pattern: matches nothing.
    pub const NONE: Self = Self {
        starts: 0,
        stars: 0,
        accepts: 0,
        bytes: [0; 256],
    };

    /// Whether there is no pattern.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.accepts == 0
    }

    /// Adds a pattern.
    ///
    /// # Errors
    /// [`PatternError`]; the set is as before.
    pub fn add(&mut self, pattern: &[u8]) -> Result<(), PatternError> {
        let tokens = pattern.iter().filter(|&&token| token != b'*').count();
        let first = (u64::BITS - self.accepts.leading_zeros()) as usize;
        match tokens {
            _ if pattern.is_empty() => return Err(PatternError::Empty),
            COMM_LEN.. => return Err(PatternError::Long),
            _ if first + tokens >= u64::BITS as usize => return Err(PatternError::Full),
            _ => {}
        }
        self.starts |= 1 << first;
        let mut state = first;
        for &token in pattern {
            match token {
                b'*' => {
                    self.stars |= 1 << state;
                    continue;
                }
                b'?' => self.bytes.iter_mut().for_each(|leaves| *leaves |= 1 << state),
                byte => self.bytes[usize::from(byte)] |= 1 << state,
            }
            state += 1;
        }
        self.accepts |= 1 << state;
        Ok(())
    }

    /// Whether one of the patterns matches the whole name, NUL-padded as the kernel keeps it.
    #[must_use]
    pub fn matches(&self, comm: [u8; COMM_LEN]) -> bool {
        accepts(
            self.starts,
            self.stars,
            self.accepts,
            |byte| self.bytes[usize::from(byte)],
            comm,
        )
    }
}

/// The automaton itself, independent of the place of its tables: the programs read theirs from `.rodata`.
#[expect(clippy::inline_always, reason = "the tables are closures over another address space")]
#[inline(always)]
#[must_use]
pub fn accepts(starts: u64, stars: u64, ends: u64, leaves: impl Fn(u8) -> u64, comm: [u8; COMM_LEN]) -> bool {
    let mut states = starts;
    let mut i = 0;
    while i < COMM_LEN {
        if comm[i] == 0 {
            break;
        }
        states = (states & leaves(comm[i])) << 1 | states & stars;
        i += 1;
    }
    states & ends != 0
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({:x}, {:x}, {:x})", self.starts, self.stars, self.accepts)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::{Just, Strategy, prop_oneof, proptest};

    use super::*;

    fn comm(name: &[u8]) -> [u8; COMM_LEN] {
        let mut comm = [0; COMM_LEN];
        comm[..name.len()].copy_from_slice(name);
        comm
    }

    fn names(patterns: &[&str]) -> Names {
        let mut names = Names::NONE;
        for pattern in patterns {
            names.add(pattern.as_bytes()).unwrap();
        }
        names
    }

    /// Matches a glob by trying every way.
    fn reference(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], rest) => rest.is_empty(),
            ([b'*', pattern @ ..], rest) => (0..=rest.len()).any(|taken| reference(pattern, &rest[taken..])),
            ([b'?', pattern @ ..], [_, rest @ ..]) => reference(pattern, rest),
            ([token, pattern @ ..], [byte, rest @ ..]) => token == byte && reference(pattern, rest),
            (_, []) => false,
        }
    }

    #[test]
    fn a_pattern_matches_the_whole_name() {
        let one = names(&["nginx"]);
        assert!(one.matches(comm(b"nginx")));
        for other in [&b"nginx2"[..], b"ngin", b"", b"Nginx", b"xnginx"] {
            assert!(!one.matches(comm(other)));
        }
        assert!(names(&["*"]).matches(comm(b"")));
        assert!(!names(&["?"]).matches(comm(b"")));
        assert!(names(&["kcompactd*"]).matches(comm(b"kcompactd0")));
        assert!(names(&["fifteen-bytes-x"]).matches(*b"fifteen-bytes-x\0"));
    }

    #[test]
    fn patterns_side_by_side_do_not_mix() {
        let both = names(&["ab", "cd*"]);
        assert!(both.matches(comm(b"ab")) && both.matches(comm(b"cdx")));
        for other in [&b"abcd"[..], b"cab", b"a", b"c", b"b"] {
            assert!(!both.matches(comm(other)));
        }
    }

    #[test]
    fn what_cannot_match_or_has_no_room_is_refused() {
        let mut names = Names::NONE;
        assert_eq!(names.add(b""), Err(PatternError::Empty));
        assert_eq!(names.add(b"sixteen-bytes-xx"), Err(PatternError::Long));
        assert!(names.is_empty());
        for _ in 0..4 {
            names.add(b"*fifteen-bytes-x*").unwrap();
        }
        assert_eq!(names.add(b"a"), Err(PatternError::Full));
        assert!(names.matches(*b"fifteen-bytes-x\0"));
    }

    fn bytes(alphabet: &'static [u8], most: usize) -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![proptest::sample::select(alphabet), Just(b'a')];
        proptest::collection::vec(byte, 0..=most)
    }

    proptest! {
        #[test]
        fn the_automaton_is_the_reference(
            patterns in proptest::collection::vec(bytes(b"ab*?\xff", 12), 1..5),
            name in bytes(b"ab\xff", 15),
        ) {
            let mut names = Names::NONE;
            let mut expected = false;
            for pattern in &patterns {
                if names.add(pattern).is_ok() {
                    expected |= reference(pattern, &name);
                }
            }
            assert_eq!(names.matches(comm(&name)), expected, "{patterns:?} {name:?}");
        }
    }
}
