//! Tests that damaged recordings are read as far as they are valid.
//! Input: made-up runs.

use std::collections::BTreeSet;

use super::*;
use crate::{
    event::{Event, Move},
    made_up,
    recording::{
        block::{Packer, Span},
        blocks::Blocks,
        header::Finished,
        store::Store,
        writer::Writer,
    },
    units::VirtAddr,
};

/// Runs of a few events, each in its own block.
fn batches() -> Vec<Vec<Event>> {
    let later = |by: u64| {
        let mut event = made_up::moved();
        event.at.0 += by;
        event.vaddr = VirtAddr(event.vaddr.0 + 0x2000 * by);
        Event::Move(event)
    };
    vec![
        vec![
            Event::Move(made_up::moved()),
            Event::Move(made_up::unknown()),
            Event::Move(made_up::compared()),
        ],
        made_up::others(),
        (1..40).map(later).collect(),
    ]
}

/// A recording as tracer writes it.
fn recorded() -> Vec<u8> {
    let mut bytes = Vec::new();
    record(&mut bytes).unwrap();
    bytes
}

/// Records as tracer does: the first error ends the run, which is finished nevertheless.
fn record(store: impl Store) -> io::Result<()> {
    let mut sink = Writer::new(store).unwrap();
    sink.begin(&made_up::header())?;
    let fed = batches().iter().try_for_each(|batch| {
        batch.iter().try_for_each(|event| sink.event(event))?;
        sink.flush()?;
        sink.interval(&made_up::interval())
    });
    fed.and(sink.finish(&made_up::summary()))
}

/// A disk that writes a few bytes at a time, is interrupted, and fails once.
struct Reluctant<'a> {
    bytes: &'a mut Vec<u8>,
    /// Bytes of complete blocks.
    good: usize,
    /// Bytes before the error; None: it has occurred, or never does.
    fails_at: Option<usize>,
    can_cut_back: bool,
    interrupted: bool,
}

impl<'a> Reluctant<'a> {
    fn new(bytes: &'a mut Vec<u8>, fails_at: Option<usize>, can_cut_back: bool) -> Self {
        Self {
            bytes,
            good: 0,
            fails_at,
            can_cut_back,
            interrupted: false,
        }
    }
}

impl io::Write for Reluctant<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let room = self.fails_at.map_or(7, |at| at - self.bytes.len());
        if room == 0 {
            self.fails_at = None;
            return Err(rustix::io::Errno::IO.into());
        }
        let written = bytes.len().min(room).min(7);
        self.bytes.extend(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store for Reluctant<'_> {
    fn block_done(&mut self) -> io::Result<()> {
        self.good = self.bytes.len();
        Ok(())
    }

    fn cut_back(&mut self) -> io::Result<()> {
        if !self.can_cut_back {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.bytes.truncate(self.good);
        Ok(())
    }
}

#[derive(Debug, Default, PartialEq)]
struct Found {
    begins: Vec<Begin>,
    batches: Vec<Vec<Event>>,
    intervals: usize,
    end: Option<End>,
    missing: Vec<Missing>,
}

fn read(bytes: &[u8]) -> Result<Found, ReadError> {
    let mut recording = RecordingFile::new(bytes)?;
    let mut found = Found::default();
    while let Some(item) = recording.next_item()? {
        match item {
            Item::Begin(begin) => found.begins.push(*begin),
            Item::Events => {
                let (mut batch, mut events) = (Vec::new(), recording.events());
                while let Some(Step::Event(event)) = events.next() {
                    batch.push(event.clone());
                }
                // The turn is the last item.
                assert!(events.next().is_none());
                found.batches.push(batch);
            }
            Item::Interval(interval) => {
                assert_eq!(*interval, made_up::interval());
                found.intervals += 1;
            }
            Item::End(end) => found.end = Some(*end),
            Item::Missing(missing) => found.missing.push(missing),
            Item::Unknown => {}
        }
    }
    assert_eq!(recording.position(), bytes.len() as u64);
    Ok(found)
}

#[test]
fn everything_comes_back() {
    let found = read(&recorded()).unwrap();
    assert_eq!(found.batches, batches());
    assert!(found.begins.iter().all(|begin| begin.header == made_up::header()));
    assert_eq!((found.begins.len(), found.intervals), (2, 3));
    let end = found.end.unwrap();
    assert_eq!(
        end.events,
        batches().iter().map(|batch| batch.len() as u64).sum::<u64>()
    );
    assert_eq!(end.finished, Some(Finished::from(&made_up::summary())));
    assert_eq!(found.missing, []);
}

/// The begin of each block, and the end of the last one.
fn bounds(bytes: &[u8]) -> BTreeSet<usize> {
    let mut at = 0;
    let mut bounds = BTreeSet::from([0]);
    while let Some(rest) = bytes[at..].first_chunk() {
        at += HEADER + BlockHeader::parse(rest).unwrap().packed;
        bounds.insert(at);
    }
    bounds
}

#[test]
fn cut_off_anywhere_the_blocks_before_are_whole() {
    let bytes = recorded();
    let bounds = bounds(&bytes);
    for length in 0..bytes.len() {
        let blocks = bounds.range(..=length).count() - 1;
        let result = read(&bytes[..length]);
        if length < HEADER {
            assert!(matches!(result, Err(ReadError::Empty | ReadError::Foreign)), "{length}");
            continue;
        }
        let found = result.unwrap();
        let have = found.begins.len() + found.batches.len() + found.intervals;
        assert_eq!(have, blocks, "{length}");
        assert_eq!(found.batches, batches()[..found.batches.len()]);
        assert!(!found.missing.is_empty() && found.end.is_none(), "{length}");
    }
}

#[test]
fn a_flipped_bit_costs_its_block() {
    let bytes = recorded();
    let blocks = bounds(&bytes).len() - 1;
    // One bit of each byte is flipped here; `block` covers all of them.
    for bit in (0..bytes.len()).map(|byte| 8 * byte + byte % 8) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let found = match read(&flipped) {
            Ok(found) => found,
            Err(error) => panic!("bit {bit}: {error}"),
        };
        let have = found.begins.len() + found.batches.len() + found.intervals + usize::from(found.end.is_some());
        assert_eq!(have, blocks - 1, "bit {bit}: {:?}", found.missing);
        // The events come in order, and none is made up.
        let mut written = batches().into_iter();
        assert!(
            found.batches.iter().all(|batch| written.any(|one| one == *batch)),
            "bit {bit}"
        );
        let damage = found.missing.first().unwrap();
        let place = bit as u64 / 8;
        assert!(
            damage.at <= place && place < damage.at + damage.bytes,
            "bit {bit}: {damage:?}"
        );
    }
}

#[test]
fn bytes_that_are_gone_cost_their_block() {
    let bytes = recorded();
    let bounds: Vec<usize> = bounds(&bytes).into_iter().collect();
    // The first block with events, and the last block.
    for block in [2, bounds.len() - 2] {
        for gone in 1..bounds[block + 1] - bounds[block] {
            let shorter = [&bytes[..bounds[block + 1] - gone], &bytes[bounds[block + 1]..]].concat();
            let found = read(&shorter).unwrap();
            let have = found.begins.len() + found.batches.len() + found.intervals + usize::from(found.end.is_some());
            assert_eq!(have, bounds.len() - 2, "{block}, {gone}: {:?}", found.missing);
            assert!(!found.missing.is_empty());
        }
    }
}

#[test]
fn what_could_not_be_written_is_missing() {
    let mut bytes = Vec::new();
    let mut blocks = Blocks::new(&mut bytes).unwrap();
    blocks.begin(Begin::of(made_up::header())).unwrap();
    blocks.end_after(0, 7, None).unwrap();
    let found = read(&bytes).unwrap();
    let [missing] = &found.missing[..] else {
        panic!("{:?}", found.missing)
    };
    assert_eq!(missing.events, Some(7));
}

#[test]
fn a_disk_that_writes_by_and_by_makes_the_same_recording() {
    let mut bytes = Vec::new();
    record(Reluctant::new(&mut bytes, None, false)).unwrap();
    assert!(bytes == recorded());
}

#[test]
fn an_error_of_the_disk_is_told_and_costs_what_was_being_written() {
    let whole = recorded();
    let bounds = bounds(&whole);
    // The cut is before each block, in its header, after that, in its content, and before its last byte.
    let within = |(begin, end): (&usize, &usize)| [*begin, begin + 1, begin + HEADER, (begin + end) / 2, end - 1];
    for fails_at in bounds.iter().zip(bounds.iter().skip(1)).flat_map(within) {
        for can_cut_back in [true, false] {
            let mut bytes = Vec::new();
            let error = record(Reluctant::new(&mut bytes, Some(fails_at), can_cut_back)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
            let good = *bounds.range(..=fails_at).next_back().unwrap();
            assert!(bytes[..good] == whole[..good]);
            let found = match read(&bytes) {
                Ok(found) => found,
                // Without a complete header, the recording has not begun.
                Err(error) => {
                    assert!(good == 0, "{error}");
                    continue;
                }
            };
            let batches = batches();
            let before = read(&whole[..good]).map(|found| found.batches).unwrap_or_default();
            assert_eq!(found.batches, before);
            if bytes.len() == good && found.end.is_none() {
                // Either the end itself was cut off, or nothing follows the begin.
                assert!(
                    found.missing.iter().any(|missing| missing.what.contains("no end")),
                    "{found:?}"
                );
                continue;
            }
            assert_eq!(found.end.is_some(), can_cut_back, "at byte {fails_at}");
            if let Some(end) = found.end {
                let read: usize = found.batches.iter().map(Vec::len).sum();
                let unwritten = batches.get(found.batches.len()).map_or(0, Vec::len) as u64;
                // The missing block may have been an interval of the books as well.
                assert!(
                    end.events == read as u64 && [0, unwritten].contains(&end.unwritten),
                    "{end:?}"
                );
                assert_eq!(end.unwritten > 0, !found.missing.is_empty());
            } else {
                assert!(!found.missing.is_empty());
            }
        }
    }
}

#[test]
fn what_stands_between_blocks_is_skipped() {
    let mut bytes = recorded();
    let bounds: Vec<usize> = bounds(&bytes).into_iter().collect();
    let noise: Vec<u8> = MAGIC.into_iter().cycle().take(1 << 20).collect();
    bytes.splice(bounds[3]..bounds[3], noise.iter().copied());
    let found = read(&bytes).unwrap();
    assert_eq!(found.batches, batches());
    let [missing] = &found.missing[..] else {
        panic!("{:?}", found.missing)
    };
    assert_eq!((missing.at, missing.bytes), (bounds[3] as u64, noise.len() as u64));
}

#[test]
fn a_block_that_is_not_there_is_missed() {
    let bytes = recorded();
    let bounds: Vec<usize> = bounds(&bytes).into_iter().collect();
    let without = [&bytes[..bounds[2]], &bytes[bounds[3]..]].concat();
    let found = read(&without).unwrap();
    assert_eq!(found.batches, batches()[1..]);
    assert_eq!(found.missing.len(), 1);
}

#[test]
fn events_that_are_not_as_many_as_the_block_says_are_read_as_far_as_can_be() {
    let bytes = recorded();
    let bounds: Vec<usize> = bounds(&bytes).into_iter().collect();
    let (before, after) = (&bytes[..bounds[2]], &bytes[bounds[3]..]);
    let block = &bytes[bounds[2]..bounds[3]];
    let header = BlockHeader::parse(block.first_chunk().unwrap()).unwrap();
    let mut content = Vec::new();
    let mut unpacker = Unpacker::new().unwrap();
    unpacker.unpack(&header, &block[HEADER..], &mut content).unwrap();
    for (rows, read_of_it, unread) in [(4, 3, Some(1)), (1, 1, None)] {
        let span = Span {
            rows,
            first: header.first,
            last: header.last,
        };
        let mut changed = before.to_vec();
        let mut packer = Packer::new().unwrap();
        packer
            .pack(BlockKind::Events, header.sequence, span, &content, &mut changed)
            .unwrap();
        changed.extend(after);
        let found = read(&changed).unwrap();
        assert_eq!(found.batches[0], batches()[0][..read_of_it]);
        assert_eq!(found.batches[1..], batches()[1..]);
        let [missing] = &found.missing[..] else {
            panic!("{:?}", found.missing)
        };
        assert_eq!((missing.at, missing.events), (bounds[2] as u64, unread));
    }
}

#[test]
fn what_is_no_recording_is_told_apart() {
    assert!(matches!(read(b""), Err(ReadError::Empty)));
    assert!(matches!(read(b"PERFILE2 and so on"), Err(ReadError::Foreign)));
    assert!(matches!(read(&[0; 4096]), Err(ReadError::Foreign)));
    assert!(matches!(read(&MAGIC), Err(ReadError::Foreign)));
    let mut newer = recorded();
    newer[6] = 9;
    let crc = crc32fast::hash(&newer[..HEADER - 4]);
    newer[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(read(&newer), Err(ReadError::Newer(9))));
}

#[test]
fn moves_of_any_kind_come_back() {
    use proptest::prelude::*;
    let numbers = prop::array::uniform8(prop_oneof![0u64..3, any::<u64>(), Just(u64::MAX)]);
    let moves = prop::collection::vec((numbers, any::<u16>()), 1..20);
    proptest!(|(moves in moves)| {
        let events: Vec<Event> = moves.iter().map(|row| Event::Move(any_move(row))).collect();
        let mut bytes = Vec::new();
        let mut sink = Writer::new(&mut bytes).unwrap();
        sink.begin(&made_up::header()).unwrap();
        for event in &events {
            sink.event(event).unwrap();
        }
        sink.flush().unwrap();
        sink.finish(&made_up::summary()).unwrap();
        prop_assert_eq!(read(&bytes).unwrap().batches, vec![events]);
    });
}

fn any_move((numbers, bits): &([u64; 8], u16)) -> Move {
    let made_up = if bits & 1 == 0 {
        made_up::moved()
    } else {
        made_up::unknown()
    };
    let some = |bit: u16, number: u64| (bits & (1 << bit) != 0).then_some(number);
    Move {
        at: crate::units::Nanos(numbers[0]),
        vaddr: VirtAddr(numbers[1]),
        pages: numbers[2],
        old_pfn: some(1, numbers[3]).map(crate::units::Pfn),
        new_pfn: some(2, numbers[4]).map(crate::units::Pfn),
        blackout: some(3, numbers[5]).map(crate::units::Nanos),
        map_count: some(4, numbers[6]),
        ambiguous: bits & 32 != 0,
        nth: some(6, 0).map(|_| numbers[7].to_le_bytes()[0]),
        cpu: *bits,
        ..made_up
    }
}
