//! Flags and map counts of the frames that pages moved to.
//! Input: /proc/kpageflags and /proc/kpagecount, as far as they can be read.

use crate::{
    event::{Event, Move, Verdict},
    kernel::release,
    proc::{
        kpage::{FrameFile, KpageError, KpfQuirks, PageFlags},
        pagemap::Pagemap,
    },
    units::{Pfn, Tgid},
};

/// The files of /proc that describe frames.
pub(super) struct Frames {
    flags: Answers,
    counts: Answers,
    quirks: KpfQuirks,
    /// The frames of the next look-up, in ascending order.
    asked: Vec<Pfn>,
}

/// One of the files, and its words for the frames of the last look-up.
struct Answers {
    /// None if it cannot be read.
    file: Option<FrameFile>,
    words: Vec<u64>,
}

impl Frames {
    /// Opens the files. The log reports once which of them cannot be read; events lack their words.
    pub fn open() -> Self {
        let flags = Answers::of(FrameFile::flags(), "page flags");
        let counts = Answers::of(FrameFile::counts(), "map counts");
        let own = Pagemap::open(Tgid(std::process::id())).ok();
        let quirks = own
            .zip(flags.file.as_ref())
            .and_then(|(own, flags)| KpfQuirks::probe(&own, flags))
            .unwrap_or_else(|| KpfQuirks::of(&release::release()));
        Self {
            flags,
            counts,
            quirks,
            asked: Vec::new(),
        }
    }

    /// The number of mappings of a frame; 0 if there are none, or if it cannot be read.
    pub fn map_count(&mut self, pfn: Pfn) -> u64 {
        self.counts.ask(&[pfn]);
        self.counts.words.first().copied().unwrap_or(0)
    }

    /// Adds flags and map counts of frames that still hold the page.
    pub fn add_to(&mut self, events: &mut [Event]) {
        self.asked.clear();
        self.asked.extend(confirmed(events).filter_map(|moved| moved.new_pfn));
        self.asked.sort_unstable();
        self.asked.dedup();
        self.flags.ask(&self.asked);
        self.counts.ask(&self.asked);
        for moved in confirmed(events) {
            if let Some(at) = moved.new_pfn.and_then(|pfn| self.asked.binary_search(&pfn).ok()) {
                let flags = self.flags.words.get(at);
                moved.flags = flags.map(|&word| PageFlags::new(word, self.quirks));
                moved.map_count = self.counts.words.get(at).copied();
            }
        }
    }
}

impl Answers {
    fn of(file: Result<FrameFile, KpageError>, what: &str) -> Self {
        let file = file.map_err(|error| log::warn!("{error}: {what} are missing from events"));
        Self {
            file: file.ok(),
            words: Vec::new(),
        }
    }

    /// Reads one word for each frame; no words if the file cannot be read.
    fn ask(&mut self, frames: &[Pfn]) {
        let answer = self.file.as_ref().map(|file| file.lookup(frames, &mut self.words));
        if let Some(Err(error)) = answer {
            log::debug!("{error}");
            self.words.clear();
        }
    }
}

/// The moves whose pages are still in their new frames.
fn confirmed(events: &mut [Event]) -> impl Iterator<Item = &mut Move> {
    events.iter_mut().filter_map(|event| match event {
        Event::Move(moved) => (moved.verdict == Verdict::Confirmed).then_some(moved),
        Event::Unmapped(_) | Event::Failure(_) | Event::Compaction(_) => None,
    })
}
