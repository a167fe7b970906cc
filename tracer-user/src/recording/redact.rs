//! Stand-ins for frames and for everything that names files, so that a recording does not reveal them.
//! Input: a run's header and events; random bytes, which are kept no longer than the redactor.

mod frames;
mod key;

use std::{collections::HashMap, sync::Arc};

use crate::{
    event::{
        Event, Move,
        failure::{FailedPlace, Failure},
        unmapped::{Device, FilePlace, UnmappedMove},
    },
    proc::maps::Vma,
    recording::header::Begin,
    run::header::{Header, MissingHook},
};
use frames::StandIns;
pub use key::Key;

/// Names that the kernel gives to mappings without a file.
const KERNELS: [&str; 11] = [
    "",
    "[heap]",
    "[stack]",
    "[vdso]",
    "[vvar]",
    "[vvar_vclock]",
    "[vsyscall]",
    "[uprobes]",
    "[sigpage]",
    "[vectors]",
    "[shadow stack]",
];
/// Names that a program gives to its memory.
const PROGRAMS: [&str; 2] = ["[anon:", "[anon_shmem:"];
const HIDDEN: &str = "(redacted)";

/// Redacts a run.
pub struct Redactor<'k> {
    key: &'k Key,
    frames: StandIns<'k>,
    /// The mappings of a block by address, with their stand-ins.
    vmas: HashMap<*const Vma, (Arc<Vma>, Arc<Vma>)>,
}

impl<'k> Redactor<'k> {
    /// A redactor of the run with that header.
    #[must_use]
    pub fn new(key: &'k Key, header: &Header) -> Self {
        Self {
            key,
            frames: StandIns::new(key, &header.frames),
            vmas: HashMap::new(),
        }
    }

    /// The redacted header. Host, boot and kernel remain, and so do the times.
    #[must_use]
    pub fn begin(&self, begin: &Begin) -> Begin {
        let header = &begin.header;
        let without_paths = |missing: &MissingHook| MissingHook {
            reason: without_paths(&missing.reason),
            ..missing.clone()
        };
        Begin {
            header: Header {
                frames: self.frames.table(),
                command_line: vec![HIDDEN.to_owned()],
                targets: HIDDEN.to_owned(),
                fallbacks: header.fallbacks.iter().map(|text| self::without_paths(text)).collect(),
                refused: header.refused.iter().map(without_paths).collect(),
                ..header.clone()
            },
            redacted: true,
            ..begin.clone()
        }
    }

    /// Called before the events of another block, which share no mapping with those of the previous one.
    pub fn next_block(&mut self) {
        self.vmas.clear();
    }

    /// The redacted event.
    #[must_use]
    pub fn event(&mut self, event: &Event) -> Event {
        match event {
            Event::Move(moved) => Event::Move(Move {
                old_pfn: moved.old_pfn.and_then(|pfn| self.frames.stand_in(pfn)),
                new_pfn: moved.new_pfn.and_then(|pfn| self.frames.stand_in(pfn)),
                vma: moved.vma.as_ref().map(|vma| self.vma(vma)),
                ..moved.clone()
            }),
            Event::Unmapped(moved) => Event::Unmapped(UnmappedMove {
                old_pfn: moved.old_pfn.and_then(|pfn| self.frames.stand_in(pfn)),
                new_pfn: moved.new_pfn.and_then(|pfn| self.frames.stand_in(pfn)),
                file: moved.file.as_ref().map(|file| self.file(file)),
                ..moved.clone()
            }),
            Event::Failure(failure) => Event::Failure(Failure {
                pfn: failure.pfn.and_then(|pfn| self.frames.stand_in(pfn)),
                places: failure.places.iter().map(|place| self.place(place)).collect(),
                ..failure.clone()
            }),
            Event::Compaction(pass) => Event::Compaction(pass.clone()),
        }
    }

    fn place(&mut self, place: &FailedPlace) -> FailedPlace {
        FailedPlace {
            vma: place.vma.as_ref().map(|vma| self.vma(vma)),
            ..place.clone()
        }
    }

    fn vma(&mut self, vma: &Arc<Vma>) -> Arc<Vma> {
        if let Some((_, known)) = self.vmas.get(&Arc::as_ptr(vma)) {
            return known.clone();
        }
        let (major, minor) = vma.dev;
        let device = Device(major << 20 | minor & 0xf_ffff);
        let has_file = (vma.dev, vma.inode) != ((0, 0), 0);
        let redacted = Arc::new(Vma {
            dev: if has_file { (0, self.device(device).0) } else { vma.dev },
            inode: if has_file { self.inode(device, vma.inode) } else { 0 },
            name: self.name(vma, device),
            ..vma.as_ref().clone()
        });
        self.vmas.insert(Arc::as_ptr(vma), (vma.clone(), redacted.clone()));
        redacted
    }

    fn name(&self, vma: &Vma, device: Device) -> Arc<str> {
        let name = &*vma.name;
        if KERNELS.contains(&name) {
            return vma.name.clone();
        }
        if let Some(begin) = PROGRAMS.iter().find(|begin| name.starts_with(**begin)) {
            return Arc::from(format!("{begin}{:012x}]", self.key.hash("name", &[name.as_bytes()])));
        }
        let deleted = if name.ends_with(" (deleted)") { " (deleted)" } else { "" };
        let number = match vma.inode {
            0 => self.key.hash("name", &[name.as_bytes()]),
            inode => self.inode(device, inode),
        };
        Arc::from(format!("{}{deleted}", file_name(number)))
    }

    fn file(&self, file: &FilePlace) -> FilePlace {
        let inode = self.inode(file.dev, file.inode);
        FilePlace {
            dev: self.device(file.dev),
            inode,
            offset: file.offset,
            name: file.name.as_ref().map(|_| Arc::from(file_name(inode))),
        }
    }

    fn device(&self, device: Device) -> Device {
        let number = self.key.hash("device", &[&device.0.to_le_bytes()]);
        // A minor number has 20 bits.
        Device((number & 0xf_ffff) as u32)
    }

    fn inode(&self, device: Device, inode: u64) -> u64 {
        self.key.hash("inode", &[&device.0.to_le_bytes(), &inode.to_le_bytes()])
    }
}

/// The name is the same for a mapping of the file and for its page cache.
fn file_name(number: u64) -> String {
    format!("file-{number:012x}")
}

/// An error message may name a file: a path extends to the closing quote, else to the reason after it.
fn without_paths(text: &str) -> String {
    let (mut kept, mut rest) = (String::new(), text);
    while let Some(at) = path(rest) {
        let (before, hidden) = rest.split_at(at);
        let quote = before
            .chars()
            .next_back()
            .filter(|last| matches!(last, '\'' | '"' | '`'));
        let length = match quote {
            Some(quote) => hidden.find(quote),
            None => hidden.find(": "),
        };
        kept.push_str(before);
        kept.push_str(HIDDEN);
        rest = length.map_or("", |length| &hidden[length..]);
    }
    kept + rest
}

/// The begin of a path: a slash that does not continue a word, as it does in `fentry/migrate_pages`.
fn path(text: &str) -> Option<usize> {
    let mut before = None;
    text.char_indices().find_map(|(at, letter)| {
        let of_word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let begins = letter == '/' && !before.is_some_and(of_word);
        before = Some(letter);
        begins.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{made_up, units::Pfn};

    #[test]
    fn nothing_of_a_file_remains() {
        let key = Key::new().unwrap();
        let mut redactor = Redactor::new(&key, &made_up::header());
        let mut events = made_up::others();
        events.push(Event::Move(made_up::moved()));
        let mut names = Vec::new();
        for event in &events {
            let redacted = redactor.event(event);
            let shown = format!("{redacted:?}");
            for secret in [
                "libLLVM",
                "/usr",
                "base.db",
                "inode: 1234,",
                "Pfn(2032544)",
                "Pfn(639262)",
                "Pfn(639260)",
            ] {
                assert!(!shown.contains(secret), "{secret} in {shown}");
            }
            match redacted {
                Event::Move(moved) => names.push(moved.vma.unwrap().name.to_string()),
                Event::Unmapped(moved) => names.extend(moved.file.map(|file| file.name.unwrap().to_string())),
                Event::Failure(failure) => {
                    names.extend(
                        failure
                            .places
                            .iter()
                            .map(|place| place.vma.as_ref().unwrap().name.to_string()),
                    );
                }
                Event::Compaction(_) => {}
            }
        }
        // The mapping and the page cache name the same file.
        assert_eq!(names.len(), 3);
        assert!(names.iter().all(|name| *name == names[0] && name.starts_with("file-")));
        let begin = redactor.begin(&Begin::of(made_up::header()));
        let shown = format!("{begin:?}");
        assert!(!shown.contains("4711") && !shown.contains("Pfn(4096)") && begin.redacted);
    }

    #[test]
    fn names_of_the_kernel_remain() {
        let key = Key::new().unwrap();
        let mut redactor = Redactor::new(&key, &made_up::header());
        let mut name = |name: &str| {
            let mut moved = made_up::moved();
            let vma = moved.vma.as_ref().unwrap().as_ref().clone();
            moved.vma = Some(Arc::new(Vma {
                name: Arc::from(name),
                dev: (0, 0),
                inode: 0,
                ..vma
            }));
            let Event::Move(moved) = redactor.event(&Event::Move(moved)) else {
                unreachable!()
            };
            let vma = moved.vma.unwrap();
            assert_eq!((vma.dev, vma.inode), ((0, 0), 0));
            vma.name.to_string()
        };
        assert_eq!(name("[heap]"), "[heap]");
        assert_eq!(name(""), "");
        assert!(name("[anon:secret]").starts_with("[anon:") && !name("[anon:secret]").contains("secret"));
        assert_eq!(name("[anon:secret]"), name("[anon:secret]"));
        assert!(!name("[stack:4711]").contains("4711"));
        assert!(name("/SYSV00000000 (deleted)").ends_with(" (deleted)"));
        assert_ne!(name("/a"), name("/b"));
    }

    #[test]
    fn texts_keep_what_is_no_path() {
        for (text, expected) in [
            (
                "cannot attach fentry/x: cannot read '/my files/a' of \"/b/c d\": Permission denied",
                "cannot attach fentry/x: cannot read '(redacted)' of \"(redacted)\": Permission denied",
            ),
            (
                "cannot read /my files/x: denied: no",
                "cannot read (redacted): denied: no",
            ),
            ("cannot read ../x /y", "cannot read ..(redacted)"),
            ("no '/end", "no '(redacted)"),
            ("fexit/move_to_new_folio", "fexit/move_to_new_folio"),
        ] {
            assert_eq!(without_paths(text), expected);
        }
    }

    #[test]
    fn what_is_redacted_can_be_redacted_again() {
        let (one, other) = (Key::new().unwrap(), Key::new().unwrap());
        let mut first = Redactor::new(&one, &made_up::header());
        let begin = first.begin(&Begin::of(made_up::header()));
        let mut second = Redactor::new(&other, &begin.header);
        let Event::Move(once) = first.event(&Event::Move(made_up::moved())) else {
            unreachable!()
        };
        let Event::Move(twice) = second.event(&Event::Move(once.clone())) else {
            unreachable!()
        };
        for (once, twice) in [(once.old_pfn, twice.old_pfn), (once.new_pfn, twice.new_pfn)] {
            let (once, twice) = (once.unwrap(), twice.unwrap());
            let table = &second.begin(&begin).header.frames;
            let node = |pfn: Pfn| table.iter().position(|span| span.first <= pfn && pfn < span.end);
            assert!(once != twice && node(once) == node(twice) && once.0 % 512 == twice.0 % 512);
        }
    }

    #[test]
    fn keys_differ() {
        let (one, other) = (Key::new().unwrap(), Key::new().unwrap());
        let frame = |key| StandIns::new(key, &[]).stand_in(Pfn(0x1f_03a0));
        assert_ne!(frame(&one), frame(&other));
        assert_eq!(frame(&one), frame(&one));
    }
}
