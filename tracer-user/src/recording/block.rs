//! Blocks: the unit that is written whole, checked whole, and lost whole.
//! Input: payloads; bytes of a file.

use crate::{
    recording::{Damage, VERSION},
    units::Nanos,
};

/// Every block begins with these bytes. They are not text, so that no text file looks like a block.
pub const MAGIC: [u8; 4] = *b"\xd7TR\x1a";
/// Length of the header before the payload.
pub const HEADER: usize = 56;
/// The longest payload, packed or not. It bounds a reader's memory.
pub const MAX_PAYLOAD: usize = 1 << 26;
/// The longest JSON payload. Once parsed, it takes several times as much memory.
pub const MAX_JSON: usize = 1 << 22;
/// The first bytes of a zstd frame.
const FRAME: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// The most rows of a block.
pub const MAX_ROWS: u32 = 1 << 18;
/// The fewest bytes of an event: each kind has at least two columns in which each row takes a byte.
const LEAST_ROW: usize = 2;

/// The kind of a block's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// How the run was made, as JSON. First in each file.
    Header,
    /// Events in columns.
    Events,
    /// An interval of the books, as JSON.
    Interval,
    /// The totals, as JSON. Last in each file that was finished.
    End,
}

impl BlockKind {
    /// All that this version knows.
    pub const ALL: [Self; 4] = [Self::Header, Self::Events, Self::Interval, Self::End];

    fn number(self) -> u16 {
        match self {
            Self::Header => 1,
            Self::Events => 2,
            Self::Interval => 3,
            Self::End => 4,
        }
    }

    /// The name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Events => "events",
            Self::Interval => "books",
            Self::End => "end",
        }
    }
}

/// The header before a block's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// None: a kind that this version does not know.
    pub kind: Option<BlockKind>,
    /// The version of the format.
    pub version: u16,
    /// Counts the blocks of a file from 0, so that a missing block shows.
    pub sequence: u32,
    /// Events in it.
    pub rows: u32,
    /// Bytes of the payload.
    pub packed: usize,
    /// Bytes of the payload when unpacked.
    pub unpacked: usize,
    /// The earliest of its times.
    pub first: Nanos,
    /// The latest.
    pub last: Nanos,
    payload_crc: u32,
}

impl BlockHeader {
    /// Reads a header. None: these bytes do not begin a block.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let (body, crc) = bytes.split_at(HEADER - 4);
        if body[..4] != MAGIC || word(crc, 0) != crc32fast::hash(body) {
            return None;
        }
        let number = u16::from_le_bytes([body[4], body[5]]);
        let header = Self {
            kind: BlockKind::ALL.into_iter().find(|kind| kind.number() == number),
            version: u16::from_le_bytes([body[6], body[7]]),
            sequence: word(body, 8),
            rows: word(body, 12),
            packed: word(body, 16) as usize,
            unpacked: word(body, 20) as usize,
            first: Nanos(long(body, 24)),
            last: Nanos(long(body, 32)),
            payload_crc: word(body, 40),
        };
        let fits = header.packed <= MAX_PAYLOAD && header.unpacked <= MAX_PAYLOAD && header.rows <= MAX_ROWS;
        fits.then_some(header)
    }

    /// Checks that a payload is what was written, and one frame of the declared size. It is not unpacked.
    ///
    /// # Errors
    /// [`Damage`] if it is not.
    pub fn check(&self, packed: &[u8]) -> Result<(), Damage> {
        if crc32fast::hash(packed) != self.payload_crc {
            return Err(Damage("the checksum of its content is wrong"));
        }
        let length = zstd::zstd_safe::find_frame_compressed_size(packed).unwrap_or_default();
        if !packed.starts_with(&FRAME) || length != packed.len() {
            return Err(Damage("its content is not one zstd frame"));
        }
        match zstd::zstd_safe::get_frame_content_size(packed) {
            Ok(Some(unpacked)) if unpacked != self.unpacked as u64 => Err(Damage("its content has another size")),
            _ => Ok(()),
        }
    }

    /// Checks the number of events against the kind of the block, and against the size of its content.
    ///
    /// # Errors
    /// [`Damage`] if the block cannot hold that number.
    pub fn check_rows(&self) -> Result<(), Damage> {
        match (self.kind, self.rows) {
            (Some(BlockKind::Events), 0) => Err(Damage("it declares no events")),
            (Some(BlockKind::Events), rows) if self.unpacked / LEAST_ROW < rows as usize => {
                Err(Damage("it declares more events than its content can hold"))
            }
            (Some(BlockKind::Header | BlockKind::Interval | BlockKind::End), 1..) => {
                Err(Damage("it declares events, but its kind has none"))
            }
            (Some(_) | None, _) => Ok(()),
        }
    }
}

/// The fields of a block's header that depend on its content.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// Events in it.
    pub rows: u32,
    /// The earliest of its times.
    pub first: Nanos,
    /// The latest.
    pub last: Nanos,
}

/// Packs payloads into blocks.
pub struct Packer(zstd::bulk::Compressor<'static>);

impl Packer {
    /// A packer with zstd's fastest level: the columns have done most of the work.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new() -> std::io::Result<Self> {
        zstd::bulk::Compressor::new(1).map(Self)
    }

    /// Appends a block to `out`.
    ///
    /// # Errors
    /// A payload longer than [`MAX_PAYLOAD`].
    pub fn pack(
        &mut self,
        kind: BlockKind,
        sequence: u32,
        span: Span,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        if payload.len() > MAX_PAYLOAD {
            return Err(std::io::Error::other("a block became too long"));
        }
        let start = out.len();
        out.resize(start + HEADER + zstd::zstd_safe::compress_bound(payload.len()), 0);
        let packed = self.0.compress_to_buffer(payload, &mut out[start + HEADER..])?;
        out.truncate(start + HEADER + packed);
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
        let mut header = Vec::with_capacity(HEADER);
        header.extend(MAGIC);
        header.extend(kind.number().to_le_bytes());
        header.extend(VERSION.to_le_bytes());
        header.extend(sequence.to_le_bytes());
        header.extend(span.rows.to_le_bytes());
        header.extend(length(packed));
        header.extend(length(payload.len()));
        header.extend(span.first.0.to_le_bytes());
        header.extend(span.last.0.to_le_bytes());
        header.extend(crc32fast::hash(&out[start + HEADER..]).to_le_bytes());
        header.extend([0; 8]);
        header.extend(crc32fast::hash(&header).to_le_bytes());
        out[start..start + HEADER].copy_from_slice(&header);
        Ok(())
    }
}

/// Gives a whole block, of whatever kind, another number.
///
/// # Panics
/// If the block is shorter than its header.
pub fn renumber(block: &mut [u8], sequence: u32) {
    block[8..12].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32fast::hash(&block[..HEADER - 4]);
    block[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
}

/// Unpacks the payloads of blocks.
pub struct Unpacker(zstd::bulk::Decompressor<'static>);

impl Unpacker {
    /// An unpacker.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new() -> std::io::Result<Self> {
        zstd::bulk::Decompressor::new().map(Self)
    }

    /// Checks a payload and unpacks it into `out`.
    ///
    /// # Errors
    /// [`Damage`] if it differs from what was written.
    pub fn unpack(&mut self, header: &BlockHeader, packed: &[u8], out: &mut Vec<u8>) -> Result<(), Damage> {
        header.check(packed)?;
        out.clear();
        out.reserve(header.unpacked);
        match self.0.decompress_to_buffer(packed, out) {
            Ok(length) if length == header.unpacked => Ok(()),
            _ => Err(Damage("it cannot be unpacked")),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(payload: &[u8]) -> Vec<u8> {
        let span = Span {
            rows: 3,
            first: Nanos(1),
            last: Nanos(u64::MAX),
        };
        let mut out = b"before".to_vec();
        Packer::new()
            .unwrap()
            .pack(BlockKind::Events, 7, span, payload, &mut out)
            .unwrap();
        out.split_off(6)
    }

    fn read(bytes: &[u8]) -> Option<(BlockHeader, Result<Vec<u8>, Damage>)> {
        let header = BlockHeader::parse(bytes.first_chunk()?)?;
        let mut out = Vec::new();
        let unpacked = Unpacker::new().unwrap().unpack(&header, &bytes[HEADER..], &mut out);
        Some((header, unpacked.map(|()| out)))
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        for payload in [&b""[..], b"columns", &vec![0; 100_000]] {
            let bytes = block(payload);
            let (header, unpacked) = read(&bytes).unwrap();
            assert_eq!(
                (header.kind, header.sequence, header.rows),
                (Some(BlockKind::Events), 7, 3)
            );
            assert_eq!((header.first, header.last), (Nanos(1), Nanos(u64::MAX)));
            assert_eq!(unpacked.as_deref(), Ok(payload));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = block(b"some columns, and more of them");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let whole = matches!(read(&flipped), Some((_, Ok(_))));
            assert!(!whole, "bit {bit}");
        }
    }
}
