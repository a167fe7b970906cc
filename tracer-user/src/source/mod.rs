//! Where raw events come from. Today one source: the ring that the BPF programs fill.

pub mod attach;
pub mod object;
pub mod recording;
pub mod ring;
pub mod trial;
