//! Finds where the kernel has its direct map and its array of `struct page`: the programs need both to follow pointers.
//! Input: /proc/kcore; where it does not show them, the program `find_bases`.

use aya::{RawTracePointRunOptions, TestRun as _, maps::Array, programs::RawTracePoint};
use tracer_common::{bases::Bases, config::Config, filter::Filter};

use crate::{
    kernel::kcore,
    source::bpf::{attach::chain, ring, rings::RingBytes},
};

/// The program's name in the object. It is attached to no hook.
pub const PROGRAM: &str = "find_bases";

/// The result in the program's map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct InMap(Bases);

// SAFETY: integers only, so any bytes are a value.
unsafe impl aya::Pod for InMap {}

/// Gives the programs both bases; they stay 0 if nothing shows them. The configuration's other fields must be set.
pub fn add(config: &mut Config) {
    let shown = match kcore::read(1 << config.page_struct_shift) {
        Ok(None) => Err("/proc/kcore does not show where struct pages are".to_owned()),
        Ok(Some(bases)) => Ok(bases),
        Err(error) => Err(format!("cannot read /proc/kcore: {error}")),
    };
    let found = shown.or_else(|shown| {
        log::info!("{shown}");
        search(config)
    });
    match found {
        Ok(bases) => (config.vmemmap_base, config.page_offset_base) = (bases.vmemmap, bases.page_offset),
        Err(why) => log::info!("the kernel's memory map is not known: {why}"),
    }
}

/// Has the kernel run the program that finds both.
fn search(config: &Config) -> Result<Bases, String> {
    let mut bpf = ring::load(config, &Filter::EVERYTHING, RingBytes::LEAST).map_err(|error| error.to_string())?;
    let program: &mut RawTracePoint = bpf
        .program_mut(PROGRAM)
        .ok_or("the object has no such program")?
        .try_into()
        .map_err(|error| chain(&error))?;
    program.load().map_err(|error| chain(&error))?;
    program
        .test_run(RawTracePointRunOptions::new())
        .map_err(|error| chain(&error))?;
    let map = bpf.take_map("BASES").ok_or("the object has no such map")?;
    let map: Array<_, InMap> = map.try_into().map_err(|error| chain(&error))?;
    match map.get(&0, 0).map_err(|error| chain(&error))? {
        InMap(Bases { vmemmap: 0, .. }) => Err("the pages of a kernel stack do not show it".to_owned()),
        InMap(bases) => Ok(bases),
    }
}
