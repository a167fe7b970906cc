//! The BPF object: committed, stripped, and tied to its sources by build.rs; its calls of kernel functions are linked
//! here, because the numbers of these are the running kernel's.

use tracer_common::kfunc::{self, Kfunc};

/// The ELF object, aligned as its parser wants it.
pub static BYTES: &[u8] = aya::include_bytes_aligned!("../../bpf/tracer.bpf.o");

/// Length of an instruction in bytes, and what the object aligns it to.
const INSTRUCTION: usize = 8;

/// The object with its calls of kernel functions, each by its id; of those without one nothing is left.
pub(super) fn linked(id: impl Fn(Kfunc) -> Option<u32>) -> Vec<u8> {
    let calls = Kfunc::ALL.map(|function| {
        let call = id(function).map_or(kfunc::NOTHING, kfunc::call);
        (function.placeholder().to_le_bytes(), call.to_le_bytes())
    });
    let mut bytes = BYTES.to_vec();
    for instruction in bytes.chunks_exact_mut(INSTRUCTION) {
        if let Some((_, call)) = calls.iter().find(|(placeholder, _)| instruction == placeholder) {
            instruction.copy_from_slice(call);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(bytes: &[u8], instruction: u64) -> usize {
        let instruction = instruction.to_le_bytes();
        bytes
            .windows(INSTRUCTION)
            .filter(|window| *window == instruction)
            .count()
    }

    #[test]
    fn every_call_is_linked() {
        let calls = Kfunc::ALL.map(|function| count(BYTES, function.placeholder()));
        assert!(calls[0] > 0 && calls[0] == calls[1], "{calls:?}");
        let linked = linked(|function| Some(function as u32 + 1_000_000));
        for function in Kfunc::ALL {
            assert_eq!(count(&linked, function.placeholder()), 0);
            assert_eq!(count(&linked, kfunc::call(function as u32 + 1_000_000)), calls[0]);
        }
    }

    #[test]
    fn nothing_is_called_that_the_kernel_does_not_have() {
        let linked = linked(|_| None);
        for function in Kfunc::ALL {
            assert_eq!(count(&linked, function.placeholder()), 0);
        }
        assert_eq!(linked.len(), BYTES.len());
    }
}
