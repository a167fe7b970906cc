//! The BPF object: committed, stripped, and tied to its sources by build.rs.
//! Input: tracer-user/bpf/tracer.bpf.o, at compile time.

/// The ELF object, aligned as its parser requires.
pub static BYTES: &[u8] = aya::include_bytes_aligned!("../../../bpf/tracer.bpf.o");
