//! Values that lines of several kinds have.
//! Input: numbers, tasks and VMAs of events.

use serde::{Serialize, Serializer};

use crate::{event::Task, proc::maps::Vma};

/// A number too wide for a JSON reader's doubles, as a hex string.
pub(super) struct Hex(pub u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

#[derive(Serialize)]
pub(super) struct VmaObject<'a> {
    start: Hex,
    end: Hex,
    perms: String,
    name: &'a str,
}

impl<'a> From<&'a Vma> for VmaObject<'a> {
    fn from(vma: &'a Vma) -> Self {
        Self {
            start: Hex(vma.start.0),
            end: Hex(vma.end.0),
            perms: vma.perms.to_string(),
            name: &vma.name,
        }
    }
}

/// The name of a task.
pub(super) fn name(task: &Task) -> Option<&str> {
    task.comm.as_deref()
}
