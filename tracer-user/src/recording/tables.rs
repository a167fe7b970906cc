//! Tables of the values that rows name by number: strings, tasks, mappings, reasons. Each block has its own tables, so
//! that it can be read without any other.
//! Input: values of events; the bytes of a block.

use std::{collections::HashMap, sync::Arc};

use crate::{
    event::{Reason, Task},
    proc::maps::{Perms, Vma},
    recording::{
        Damage,
        columns::{
            Codec::{Delta, Plain, Runs},
            Reader, Rows, Writer, put,
        },
    },
    units::{Tgid, Tid, VirtAddr},
};

/// tgid, tid, comm.
const TASK: [super::columns::Codec; 3] = [Plain, Plain, Plain];
/// start, length, access rights, offset, device's major and minor number, inode, name.
const VMA: [super::columns::Codec; 8] = [Delta, Plain, Runs, Plain, Runs, Runs, Plain, Plain];
/// number, name.
const REASON: [super::columns::Codec; 2] = [Plain, Plain];

/// The most rows of each of these tables, which bounds a reader's memory. A block is full long before.
const MAX_NAMES: u64 = 1 << 20;
/// The most bytes of a string. The longest is a file's path, `PATH_MAX` with up to four bytes for each.
const MAX_STRING: usize = 1 << 16;
/// The most bytes of the name of a task or of a reason, which the kernel keeps to 16 (`TASK_COMM_LEN`) and to a word.
const MAX_WORD: usize = 1 << 8;
/// The most reasons: their numbers are bytes.
const MAX_REASONS: u64 = 1 << 8;

/// The role of a task in an event. The last task of each role is remembered.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// The owner of the pages.
    Owner,
    /// The task that moves them.
    Actor,
}

/// Tables that are being filled. Numbers begin with 1; 0 means none.
pub struct Filling {
    strings: Vec<u8>,
    string_numbers: HashMap<Arc<str>, u64>,
    tasks: Writer<3>,
    task_numbers: HashMap<(Tgid, Tid, u64), u64>,
    last_tasks: [Option<(Task, u64)>; 2],
    vmas: Writer<8>,
    /// By address: the mappings are kept as long as their numbers.
    vma_numbers: HashMap<*const Vma, (Arc<Vma>, u64)>,
    last_vma: Option<(Arc<Vma>, u64)>,
    reasons: Writer<2>,
    reason_numbers: [u64; 256],
}

impl Default for Filling {
    /// Empty tables.
    fn default() -> Self {
        Self {
            strings: Vec::new(),
            string_numbers: HashMap::new(),
            tasks: Writer::new(&TASK),
            task_numbers: HashMap::new(),
            last_tasks: [None, None],
            vmas: Writer::new(&VMA),
            vma_numbers: HashMap::new(),
            last_vma: None,
            reasons: Writer::new(&REASON),
            reason_numbers: [0; 256],
        }
    }
}

impl Filling {
    /// The number of a string.
    pub fn string(&mut self, string: Option<&str>) -> u64 {
        let Some(string) = string else { return 0 };
        let string = cut(string, MAX_STRING);
        if let Some(number) = self.string_numbers.get(string) {
            return *number;
        }
        put(&mut self.strings, string.len() as u64);
        self.strings.extend(string.as_bytes());
        let number = self.string_numbers.len() as u64 + 1;
        self.string_numbers.insert(Arc::from(string), number);
        number
    }

    /// The number of a task.
    pub fn task(&mut self, task: &Task, role: Role) -> u64 {
        if let Some((last, number)) = &self.last_tasks[role as usize]
            && last == task
        {
            return *number;
        }
        let comm = self.string(task.comm.as_deref().map(|comm| cut(comm, MAX_WORD)));
        let next = self.task_numbers.len() as u64 + 1;
        let number = *self.task_numbers.entry((task.tgid, task.tid, comm)).or_insert(next);
        if number == next {
            self.tasks.push([task.tgid.0.into(), task.tid.0.into(), comm]);
        }
        self.last_tasks[role as usize] = Some((task.clone(), number));
        number
    }

    /// The number of a mapping.
    pub fn vma(&mut self, vma: Option<&Arc<Vma>>) -> u64 {
        let Some(vma) = vma else { return 0 };
        if let Some((last, number)) = &self.last_vma
            && Arc::ptr_eq(last, vma)
        {
            return *number;
        }
        let number = if let Some((_, number)) = self.vma_numbers.get(&Arc::as_ptr(vma)) {
            *number
        } else {
            let name = self.string(Some(&vma.name));
            let perms = u32::from_le_bytes(vma.perms.bytes());
            self.vmas.push([
                vma.start.0,
                vma.end.0.wrapping_sub(vma.start.0),
                perms.into(),
                vma.offset,
                vma.dev.0.into(),
                vma.dev.1.into(),
                vma.inode,
                name,
            ]);
            let number = self.vma_numbers.len() as u64 + 1;
            self.vma_numbers.insert(Arc::as_ptr(vma), (vma.clone(), number));
            number
        };
        self.last_vma = Some((vma.clone(), number));
        number
    }

    /// The number of a reason.
    pub fn reason(&mut self, reason: &Reason) -> u64 {
        let at = usize::from(reason.number);
        if self.reason_numbers[at] == 0 {
            let name = self.string(reason.name.as_deref().map(|name| cut(name, MAX_WORD)));
            self.reasons.push([reason.number.into(), name]);
            self.reason_numbers[at] = self.reason_numbers.iter().filter(|number| **number != 0).count() as u64 + 1;
        }
        self.reason_numbers[at]
    }

    /// Rows of the longest table.
    #[must_use]
    pub fn names(&self) -> usize {
        let others = self.task_numbers.len().max(self.vma_numbers.len());
        self.string_numbers.len().max(others)
    }

    /// Bytes of text so far.
    #[must_use]
    pub fn text(&self) -> usize {
        self.strings.len()
    }

    /// The approximate number of other bytes so far.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.tasks.bytes() + self.vmas.bytes()
    }

    /// Appends the tables and empties them.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        put(out, self.string_numbers.len() as u64);
        out.append(&mut self.strings);
        self.string_numbers.clear();
        self.tasks.finish(out);
        self.task_numbers.clear();
        self.last_tasks = [None, None];
        self.vmas.finish(out);
        self.vma_numbers.clear();
        self.last_vma = None;
        self.reasons.finish(out);
        self.reason_numbers = [0; 256];
    }
}

/// Tables that were read.
pub struct Tables {
    strings: Vec<Arc<str>>,
    tasks: Vec<Task>,
    vmas: Vec<Arc<Vma>>,
    reasons: Vec<Reason>,
}

const UNKNOWN: Damage = Damage("it names something that it does not have");
const TOO_LARGE: Damage = Damage("a number in it is too large");
const TOO_LONG: Damage = Damage("a name in it is too long");

/// The begin of a name, at most that many bytes.
fn cut(name: &str, most: usize) -> &str {
    &name[..name.floor_char_boundary(most)]
}

impl Tables {
    /// Reads the output of [`Filling::finish`] from `reader`.
    ///
    /// # Errors
    /// [`Damage`] if the bytes are something else.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Damage> {
        let mut tables = Self {
            strings: Vec::new(),
            tasks: Vec::new(),
            vmas: Vec::new(),
            reasons: Vec::new(),
        };
        let strings = reader.number()?;
        // Each has a length, which takes at least a byte.
        if strings > MAX_NAMES.min(reader.0.len() as u64) {
            return Err(TOO_LARGE);
        }
        for _ in 0..strings {
            let bytes = reader.bytes()?;
            if bytes.len() > MAX_STRING {
                return Err(TOO_LONG);
            }
            let text = str::from_utf8(bytes).map_err(|_| Damage("a name in it is no text"))?;
            tables.strings.push(Arc::from(text));
        }
        let mut rows = Rows::new(&TASK, reader, MAX_NAMES)?;
        while rows.left() > 0 {
            let [tgid, tid, comm] = rows.take()?;
            tables.tasks.push(Task {
                tgid: Tgid(narrow(tgid)?),
                tid: Tid(narrow(tid)?),
                comm: tables.word(comm)?,
            });
        }
        rows.end()?;
        let mut rows = Rows::new(&VMA, reader, MAX_NAMES)?;
        while rows.left() > 0 {
            let [start, length, perms, offset, major, minor, inode, name] = rows.take()?;
            tables.vmas.push(Arc::new(Vma {
                start: VirtAddr(start),
                end: VirtAddr(start.wrapping_add(length)),
                perms: Perms::from_bytes(&narrow::<u32>(perms)?.to_le_bytes()).ok_or(UNKNOWN)?,
                offset,
                dev: (narrow(major)?, narrow(minor)?),
                inode,
                name: tables.string(name)?.ok_or(UNKNOWN)?,
            }));
        }
        rows.end()?;
        let mut rows = Rows::new(&REASON, reader, MAX_REASONS)?;
        while rows.left() > 0 {
            let [number, name] = rows.take()?;
            tables.reasons.push(Reason {
                number: narrow(number)?,
                name: tables.word(name)?,
            });
        }
        rows.end()?;
        Ok(tables)
    }

    /// The name of a task or of a reason; None: the number is 0.
    fn word(&self, number: u64) -> Result<Option<Arc<str>>, Damage> {
        let word = self.string(number)?;
        if word.as_ref().is_some_and(|word| word.len() > MAX_WORD) {
            return Err(TOO_LONG);
        }
        Ok(word)
    }

    /// The string with that number; None: the number is 0.
    ///
    /// # Errors
    /// [`Damage`] if there is no such string.
    pub fn string(&self, number: u64) -> Result<Option<Arc<str>>, Damage> {
        get(&self.strings, number)
    }

    /// The task with that number; None: the number is 0.
    ///
    /// # Errors
    /// [`Damage`] if there is no such task.
    pub fn task(&self, number: u64) -> Result<Option<Task>, Damage> {
        get(&self.tasks, number)
    }

    /// The mapping with that number; None: the number is 0.
    ///
    /// # Errors
    /// [`Damage`] if there is no such mapping.
    pub fn vma(&self, number: u64) -> Result<Option<Arc<Vma>>, Damage> {
        get(&self.vmas, number)
    }

    /// The reason with that number; None: the number is 0.
    ///
    /// # Errors
    /// [`Damage`] if there is no such reason.
    pub fn reason(&self, number: u64) -> Result<Option<Reason>, Damage> {
        get(&self.reasons, number)
    }
}

fn get<T: Clone>(table: &[T], number: u64) -> Result<Option<T>, Damage> {
    let Some(at) = number.checked_sub(1) else {
        return Ok(None);
    };
    let at = usize::try_from(at).map_err(|_| UNKNOWN)?;
    table.get(at).cloned().map(Some).ok_or(UNKNOWN)
}

/// A value that must be present.
///
/// # Errors
/// [`Damage`] if it is not.
pub fn some<T>(found: Result<Option<T>, Damage>) -> Result<T, Damage> {
    found?.ok_or(UNKNOWN)
}

/// A number of fewer bits.
///
/// # Errors
/// [`Damage`] if it has more.
pub fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T, Damage> {
    T::try_from(number).map_err(|_| TOO_LARGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let mut tables = Filling::default();
        // Each character takes three bytes, so that none ends at the limit.
        let long = "→".repeat(MAX_STRING);
        let number = tables.string(Some(&long));
        let mut content = Vec::new();
        tables.finish(&mut content);
        let read = Tables::read(&mut Reader(&content)).unwrap();
        let name = read.string(number).unwrap().unwrap();
        assert!(long.starts_with(&*name) && name.len() == MAX_STRING / 3 * 3);
    }

    #[test]
    fn tables_that_would_fill_the_memory_are_refused() {
        let strings = |count: u64, length: usize| {
            let mut content = Vec::new();
            put(&mut content, count);
            for _ in 0..count {
                put(&mut content, length as u64);
                content.resize(content.len() + length, b'a');
            }
            content.extend([0; 64]);
            Tables::read(&mut Reader(&content)).is_ok()
        };
        assert!(strings(1, MAX_STRING) && !strings(1, MAX_STRING + 1));
        assert!(strings(MAX_NAMES, 0) && !strings(MAX_NAMES + 1, 0));
    }
}
