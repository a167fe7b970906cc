//! Sections as text and as JSON, and the rows of events. This room does no analysis and no I/O of its own.
//! Input: sections, events.

pub mod json;
pub mod pages;
pub mod rows;
pub mod text;
