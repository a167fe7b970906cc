//! Reads, shows and redacts a recording of any bytes, without a panic and in bounded memory.
//! Input: bytes of libFuzzer. The mutator makes blocks in them valid again.
#![no_main]

use std::io::{self, Cursor};

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use tracer_user::{
    analysis::contents,
    pipeline::replay::replay,
    recording::{
        block::{BlockHeader, HEADER, MAGIC, Packer, Span, Unpacker},
        blocks::Blocks,
        contents::Contents,
        merge,
        reader::RecordingFile,
        redact::Key,
        store::Store,
        writer::Writer,
    },
    render::{json, text},
    sink::{Sink, json::JsonLines, text::Text},
};

fuzz_target!(|bytes: &[u8]| {
    show(bytes, &mut Text::new(Harmless, true, None));
    show(bytes, &mut Text::new(Harmless, false, None));
    show(bytes, &mut JsonLines::new(Harmless));
    if let Ok(mut sink) = Writer::new(Nowhere) {
        show(bytes, &mut sink);
    }
    look_in(bytes);
    join(bytes, None);
    join(bytes, Key::new().ok().as_ref());
});

fn show(bytes: &[u8], sink: &mut dyn Sink) {
    if let Ok(mut recording) = RecordingFile::new(bytes) {
        // Bytes that cannot be read, or not be written again, are an error.
        let _ = replay(&mut recording, sink, |_| {});
    }
}

fn look_in(bytes: &[u8]) {
    let Ok(mut recording) = RecordingFile::new(bytes) else {
        return;
    };
    let mut found = Contents::default();
    while let Ok(Some(item)) = recording.next_item() {
        found.add(&item, &mut recording);
    }
    assert!(is_harmless(
        text::plain(&contents::sections(&found, "recording")).as_bytes()
    ));
    assert!(is_harmless(json::contents(&found).as_bytes()));
}

/// Joins the bytes with themselves.
fn join(bytes: &[u8], key: Option<&Key>) {
    let pieces = [0, 1].map(|number| merge::survey(bytes, number, key.is_some(), |_| {}).unwrap_or_default());
    let runs = merge::arrange(pieces.concat(), |_| {});
    let Ok(mut out) = Blocks::new(Nowhere) else { return };
    for run in &runs {
        let _ = merge::write(run, &mut [Cursor::new(bytes), Cursor::new(bytes)], key, &mut out);
    }
}

/// A terminal that detects harmful characters. Colours are tracer's own.
struct Harmless;

fn is_harmless(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| matches!(byte, b'\n' | 0x1b) || !byte.is_ascii_control())
}

impl io::Write for Harmless {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(is_harmless(bytes), "{}", String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A store that discards all blocks.
struct Nowhere;

impl io::Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store for Nowhere {}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // A quarter of the inputs changes anywhere, to test damage. The others change inside a valid block, to test its
    // content.
    if seed % 4 == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    match mutated_within(&data[..size], seed) {
        Some(mutated) if mutated.len() <= max_size.min(data.len()) => {
            data[..mutated.len()].copy_from_slice(&mutated);
            mutated.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});

/// The bytes with one block changed in its content or in its header, and valid checksums.
fn mutated_within(bytes: &[u8], seed: u32) -> Option<Vec<u8>> {
    let blocks: Vec<usize> = (0..bytes.len().saturating_sub(HEADER))
        .filter(|&at| bytes[at..].starts_with(&MAGIC))
        .collect();
    let at = *blocks.get(seed as usize / 4 % blocks.len().max(1))?;
    let header = BlockHeader::parse(bytes[at..].first_chunk()?)?;
    let end = at + HEADER + header.packed;
    let mut content = Vec::new();
    Unpacker::new()
        .ok()?
        .unpack(&header, bytes.get(at + HEADER..end)?, &mut content)
        .ok()?;
    let size = content.len();
    content.resize(size + 64, 0);
    let most = content.len();
    let size = fuzzer_mutate(&mut content, size, most);
    content.truncate(size);
    let mut span = Span {
        rows: header.rows,
        first: header.first,
        last: header.last,
    };
    if seed % 4 == 3 {
        span.rows = span.rows.wrapping_add(seed >> 8) % 8;
    }
    let mut mutated = bytes[..at].to_vec();
    Packer::new()
        .ok()?
        .pack(header.kind?, header.sequence, span, &content, &mut mutated)
        .ok()?;
    mutated.extend(&bytes[end..]);
    Some(mutated)
}
