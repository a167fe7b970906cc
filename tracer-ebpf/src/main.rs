//! The BPF programs: they turn the kernel's hooks into wire events.
//! One hook family per file under `probes`; everything that is sent goes through `emit`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod bases;
mod counters;
mod emit;
mod filter;
mod kernel;
mod owner;
mod probes;
mod restored;
mod rmap;
mod state;
mod turn;
mod walk;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// GPL-only helpers are used; the programs are dual-licensed.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
