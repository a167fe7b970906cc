//! Attributes every physical page move to a process and a virtual address.
//! Input: the kernel's hooks, /proc and /sys, or a recording of them.
//!
//! The path of an event: kernel hook -> wire -> [`source`] -> [`decode`] -> [`correlate`] -> [`pipeline`]
//! -> [`sink`]. [`analysis`] makes [`section`]s, [`render`] prints them, and [`words`] spells their values. See docs/architecture.md.

pub mod analysis;
mod caller;
pub mod cli;
pub mod confinement;
pub mod correlate;
pub mod decode;
pub mod escape;
pub mod event;
pub mod kernel;
#[cfg(test)]
mod made_up;
pub mod output;
pub mod pages;
pub mod pipeline;
pub mod proc;
pub mod recording;
pub mod render;
pub mod run;
pub mod section;
pub mod session;
pub mod sink;
pub mod source;
pub mod units;
pub mod words;
