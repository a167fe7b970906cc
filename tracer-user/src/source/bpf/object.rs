//! The BPF object: committed, stripped, and tied to its sources by build.rs.
//! Input: tracer-user/bpf/tracer.bpf.o, at compile time.

use tracer_common::kfunc;

/// The ELF object, aligned as its parser requires.
pub static BYTES: &[u8] = aya::include_bytes_aligned!("../../../bpf/tracer.bpf.o");

/// Bytes of an instruction: an operation, registers, an offset, and a number (`struct bpf_insn`, include/uapi/linux/bpf.h).
const INSTRUCTION: usize = 8;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL` as the source register: the number is that of a function in the kernel's BTF.
const OF_KERNEL: u8 = 2 << 4;
/// `BPF_ALU64 | BPF_MOV | BPF_K`: with the registers and number 0, what a function would return is 0.
const NOTHING: [u8; INSTRUCTION] = [0xb7, 0, 0, 0, 0, 0, 0, 0];

/// The object with calls of the kernel's functions. `id` returns a function's number in the kernel's BTF; without one,
/// calls of it are left out.
pub fn linked(id: impl Fn(&str) -> Option<u32>) -> Vec<u8> {
    // The allocator aligns so large a block at least as an instruction, which is what the parser requires.
    let mut bytes = BYTES.to_vec();
    let functions = kfunc::ALL.map(|(number, name)| {
        let instruction = id(name).map_or(NOTHING, |id| call(OF_KERNEL, id));
        (call(0, number), instruction)
    });
    let (instructions, _) = bytes.as_chunks_mut::<INSTRUCTION>();
    for instruction in instructions {
        if let Some((_, linked)) = functions.iter().find(|(unlinked, _)| unlinked == instruction) {
            *instruction = *linked;
        }
    }
    bytes
}

fn call(registers: u8, number: u32) -> [u8; INSTRUCTION] {
    let [a, b, c, d] = number.to_ne_bytes();
    [CALL, registers, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(bytes: &[u8], instruction: [u8; INSTRUCTION]) -> usize {
        bytes
            .windows(INSTRUCTION)
            .filter(|window| *window == instruction)
            .count()
    }

    #[test]
    fn every_call_of_a_kernel_function_is_linked() {
        let calls = kfunc::ALL.map(|(number, _)| count(BYTES, call(0, number)));
        let [disable, enable] = calls;
        assert!(disable > 0 && disable == enable, "{calls:?}");
        let linked_to = |known: &str| linked(|name| (name == known).then_some(7));
        for (number, name) in kfunc::ALL {
            let linked = linked_to(name);
            assert_eq!(linked.len(), BYTES.len());
            assert_eq!(count(&linked, call(0, number)), 0);
            assert_eq!(count(&linked, call(OF_KERNEL, 7)), disable);
            assert_eq!(count(&linked, NOTHING), disable + count(BYTES, NOTHING));
        }
    }
}
