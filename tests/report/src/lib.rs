//! The report of the end-to-end tests, and the words that it shares with the command line: verdicts, shapes of VMs.
//! Input: `tracer-tests` writes a report to a file or a tty; `cargo xtask` reads it, maybe from a serial line.
//!
//! A report is lines; some are followed by the announced number of raw bytes and a newline:
//!
//! ```text
//! tracer-tests 1 RELEASE CASES
//! begin NAME
//! tick
//! file NAME LENGTH HASH
//! end NAME passed|failed|skipped|not-applicable MILLISECONDS LENGTH
//! closing PASSED FAILED SKIPPED NOT-APPLICABLE
//! ```

pub mod read;
pub mod shape;
pub mod tally;
pub mod write;

/// Whether a name has only letters, digits and `._-`, and does not start with a dot: such a name cannot leave the
/// directory that it is joined to.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// FNV-1a, 64 bits. It detects a damaged transfer; it need not resist attacks.
fn fnv1a(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::{fnv1a, is_plain_name};

    /// The value is from the reference vectors of FNV-1a.
    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_plain_name_stays_in_its_directory() {
        assert!(is_plain_name("run-1.tracer"));
        assert!(!is_plain_name("../x") && !is_plain_name("..") && !is_plain_name("") && !is_plain_name("a/b"));
    }
}
