//! Calls of kernel functions (kfuncs), as the object has them until it is loaded.
//! The compiler cannot write such a call, so each is a call of a helper that no kernel has: by its number user space finds it
//! and puts the kernel's function in its place, or nothing where the kernel has none.

/// `bpf_preempt_disable` (kernel/bpf/helpers.c, 6.10 to 7.3).
pub const PREEMPT_DISABLE: u32 = 0x7ead_0001;
/// `bpf_preempt_enable`.
pub const PREEMPT_ENABLE: u32 = 0x7ead_0002;

/// The functions by their numbers.
pub const ALL: [(u32, &str); 2] = [
    (PREEMPT_DISABLE, "bpf_preempt_disable"),
    (PREEMPT_ENABLE, "bpf_preempt_enable"),
];
