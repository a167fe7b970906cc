//! The order of recordings that are read together: the files of a rotated run are sorted, whatever their names.
//! Input: the first header of each file.

use std::io::Read;

use crate::recording::{
    header::Begin,
    reader::{Item, RecordingFile},
};

/// The first header of a recording; None: it has no readable one, which its reader reports.
pub fn first_header(input: impl Read) -> Option<Begin> {
    let mut recording = RecordingFile::undecoded(input).ok()?;
    while let Ok(Some(item)) = recording.next_item() {
        if let Item::Begin(begin) = item {
            return Some(*begin);
        }
    }
    None
}

/// The order in which to read recordings, as indices into `firsts`. Runs keep the order in which they were named; the
/// files of each run are sorted by number. A recording without a readable first header keeps its place: a stream cannot
/// be read twice.
#[must_use]
pub fn order(firsts: &[Option<Begin>]) -> Vec<usize> {
    let same_run = |a: &Option<Begin>, b: &Begin| a.as_ref().is_some_and(|a| a.header.same_run(&b.header));
    let key = |place: usize| match &firsts[place] {
        None => (place, 0),
        Some(begin) => {
            let run = firsts.iter().position(|other| same_run(other, begin));
            (run.unwrap_or(place), begin.part)
        }
    };
    let mut order: Vec<usize> = (0..firsts.len()).collect();
    order.sort_by_cached_key(|place| key(*place));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{made_up, recording::writer::Writer};

    fn begin(later: u64, part: u32) -> Begin {
        let mut begin = Begin::of(made_up::header());
        begin.header.begun.0 += later;
        begin.part = part;
        begin
    }

    #[test]
    fn files_of_a_run_come_together_by_their_numbers() {
        // A shell sorts these names as r.data r.data.1 r.data.10 r.data.2; a stream and another run are among them.
        let firsts = [
            Some(begin(7, 20)),
            Some(begin(7, 19)),
            None,
            Some(begin(7, 10)),
            Some(begin(0, 0)),
            Some(begin(7, 18)),
        ];
        assert_eq!(order(&firsts), [3, 5, 1, 0, 2, 4]);
        assert_eq!(order(&[]), [0; 0]);
    }

    #[test]
    fn a_header_is_found_behind_damage() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        writer.begin(&made_up::header()).unwrap();
        writer.finish(&made_up::summary()).unwrap();
        assert_eq!(first_header(&file[..]), Some(Begin::of(made_up::header())));
        file[70] ^= 1;
        assert_eq!(first_header(&file[..]), Some(Begin::of(made_up::header())));
        assert_eq!(first_header(&b"no recording"[..]), None);
    }
}
