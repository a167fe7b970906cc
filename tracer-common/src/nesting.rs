//! Finds the calls of a task that are still open when another one begins, in case the end of one was missed.
//! Used by the BPF side's `state`; it stands here so that it is tested without a kernel.

/// The number of the `depth` calls that are still open when another call begins with its stack at `stack`. The kernel's
/// stack grows down (x86_64, arm64), so a nested call lies below its outer calls: a call that began at the same place,
/// or lower, has ended. `begun_at` returns the place at which each of the first `most` calls began, the outermost
/// first.
#[inline]
pub fn still_open(depth: u32, most: u32, stack: u64, begun_at: impl Fn(u32) -> u64) -> u32 {
    let mut call = 0;
    while call < most {
        if call < depth && begun_at(call) <= stack {
            return call;
        }
        call += 1;
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::still_open;

    const STACKS: [u64; 4] = [0x9000, 0x8000, 0x7000, 0x6000];

    fn open(depth: u32, stack: u64) -> u32 {
        still_open(depth, 4, stack, |call| STACKS[call as usize])
    }

    #[test]
    fn what_lies_below_is_nested() {
        assert_eq!(open(0, 0x9000), 0);
        assert_eq!(open(1, 0x8000), 1);
        assert_eq!(open(4, 0x5000), 4);
        // The nesting is deeper than there is room for.
        assert_eq!(open(6, 0x1000), 6);
    }

    #[test]
    fn a_call_whose_end_was_missed_is_over() {
        // The call begins at the same call site again, and at one further up.
        assert_eq!(open(1, 0x9000), 0);
        assert_eq!(open(1, 0xa000), 0);
        // The outer call goes on, the inner one is over.
        assert_eq!(open(2, 0x8000), 1);
        assert_eq!(open(3, 0x8500), 1);
        // There are as many as there is room for, and more: each call of the thread was lost.
        assert_eq!(open(4, 0x9000), 0);
        assert_eq!(open(9, 0x6800), 3);
    }
}
