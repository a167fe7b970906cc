//! Kernel functions that the BPF side calls: in the object there is a placeholder for each call, which user space
//! replaces before the object is loaded.

/// A kernel function for BPF programs (kernel/bpf/helpers.c, since 6.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kfunc {
    /// `bpf_preempt_disable`
    PreemptDisable = 1,
    /// `bpf_preempt_enable`
    PreemptEnable = 2,
}

impl Kfunc {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::PreemptDisable, Self::PreemptEnable];

    /// Its name in the kernel's BTF.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PreemptDisable => "bpf_preempt_disable",
            Self::PreemptEnable => "bpf_preempt_enable",
        }
    }

    /// The instruction that stands for its call in the object: the call of a function that no kernel has.
    #[must_use]
    pub const fn placeholder(self) -> u64 {
        call(0x7472_6300 | self as u32)
    }
}

/// The instruction that calls the function of this id in the kernel's BTF (`BPF_PSEUDO_KFUNC_CALL`,
/// include/uapi/linux/bpf.h), as the eight bytes of a little-endian object.
#[must_use]
pub const fn call(id: u32) -> u64 {
    (id as u64) << 32 | 0x2085
}

/// The instruction `r0 = 0`, for a call that is not wanted.
pub const NOTHING: u64 = 0x00b7;
