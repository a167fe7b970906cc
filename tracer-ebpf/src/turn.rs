//! Programs that are attached twice, for kernels that may preempt a task inside one.
//! Input: both copies of every program that `twice` declares.
//!
//! Until the preempted task goes on, the kernel skips the program for other tasks on the CPU (`__bpf_prog_enter_recur`,
//! kernel/bpf/trampoline.c; `__bpf_trace_run`, kernel/trace/bpf_trace.c, where tracepoints are preemptible: 7.x). The
//! other copy still runs.

use aya_ebpf::{EbpfContext, btf_maps::LruHashMap, macros::btf_map};
use tracer_common::counter::Counter;

use crate::{
    counters,
    kernel::{self, config},
};

/// Tasks that have run a program recently; user space sets the map's size where programs are attached twice.
const MAX_TASKS: usize = 1;

/// The program that a task ran last, its arguments, and the copy that ran.
#[repr(C)]
#[derive(Clone, Copy)]
struct Turn {
    /// 0: both copies have had their turn.
    program: u32,
    again: u32,
    /// Distinguishes several runs of the same program in a row.
    arguments: [u64; 2],
}

/// Key: tid.
#[btf_map]
static TURNS: LruHashMap<u32, Turn, MAX_TASKS> = LruHashMap::new();

/// Whether this copy does the work: it does, unless the other one has done it right before. `again`: this is the second
/// copy, which runs after the first.
#[inline(always)]
pub fn comes(ctx: &impl EbpfContext, program: u32, again: bool) -> bool {
    if config!(twice) == 0 {
        return true;
    }
    let (_, tid) = kernel::current();
    let mine = Turn {
        program,
        again: u32::from(again),
        arguments: kernel::read(ctx.as_ptr() as u64, 0),
    };
    if let Some(last) = TURNS.get_ptr_mut(tid) {
        // SAFETY: a live value of the map, which only this task uses.
        let last = unsafe { &mut *last };
        if last.program == program && last.again != mine.again && last.arguments == mine.arguments {
            last.program = 0;
            return false;
        }
        *last = mine;
    } else if TURNS.insert(tid, mine, 0).is_err() && again {
        return false;
    }
    if again {
        counters::add(Counter::StoodIn, 1);
    }
    true
}

/// A number for a program, by its name (FNV-1a).
pub const fn number(name: &str) -> u32 {
    let (bytes, mut hash, mut i) = (name.as_bytes(), 0x811c_9dc5_u32, 0);
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    hash
}

/// Declares the two programs of a function of this module: one with its name, and a second copy. `if`: a function of
/// the context that returns whether there is anything to do. It saves most runs the look-up of the last turn.
macro_rules! twice {
    (#[$attach:meta] $name:ident, $again:ident: $context:ty) => {
        $crate::turn::twice!(#[$attach] $name, $again: $context, if |_| true);
    };
    (#[$attach:meta] $name:ident, $again:ident: $context:ty, if $there_is:expr) => {
        mod $name {
            use super::*;

            const NUMBER: u32 = $crate::turn::number(stringify!($name));

            #[inline(always)]
            fn there_is(ctx: &$context) -> bool {
                let there_is: fn(&$context) -> bool = $there_is;
                there_is(ctx)
            }

            #[$attach]
            pub fn $name(ctx: $context) -> i32 {
                if there_is(&ctx) && $crate::turn::comes(&ctx, NUMBER, false) {
                    super::$name(&ctx);
                }
                0
            }

            #[$attach]
            pub fn $again(ctx: $context) -> i32 {
                if there_is(&ctx) && $crate::turn::comes(&ctx, NUMBER, true) {
                    super::$name(&ctx);
                }
                0
            }
        }
    };
}
pub(crate) use twice;
