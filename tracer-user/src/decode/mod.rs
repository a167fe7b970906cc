//! Decodes wire bytes into raw events; it trusts no byte, and every input has a result.
//! Input: one record of a ring, or of a recording of it.

use tracer_common::event::{
    CompactionRan, FileSeen, FolioFailed, Kind, MappingMoved, ProcessChange, ProcessSeen, UnmappedMoved, Wire,
};

/// A record, checked but not yet understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw {
    /// A range of mappings moved.
    Mapping(MappingMoved),
    /// A process was made, renamed, ended, or first seen to migrate.
    Process(ProcessChange, ProcessSeen),
    /// A folio without a mapping moved.
    Unmapped(UnmappedMoved),
    /// The file name of a folio without a mapping.
    File(FileSeen),
    /// A folio could not be moved.
    Failure(FolioFailed),
    /// Compaction scanned a zone.
    Compaction(CompactionRan),
}

impl Raw {
    /// The time at which it happened, `CLOCK_MONOTONIC` nanoseconds; None: the name of a file has none.
    #[must_use]
    pub fn at(&self) -> Option<u64> {
        match self {
            Self::Mapping(moved) => Some(moved.at),
            Self::Process(_, seen) => Some(seen.at),
            Self::Unmapped(moved) => Some(moved.at),
            Self::File(_) => None,
            Self::Failure(failed) => Some(failed.at),
            Self::Compaction(ran) => Some(ran.at),
        }
    }
}

/// Why a record is not an event. Such a record is counted as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record is too short for a header, or its length does not fit its kind.
    #[error("a record of {0} bytes")]
    Length(usize),
    /// A kind that this version does not know.
    #[error("unknown kind {0}")]
    Kind(u16),
    /// A process change that this version does not know.
    #[error("unknown process change {0}")]
    Change(u16),
    /// The order is too large for a folio.
    #[error("impossible order {0}")]
    Order(u8),
    /// A span of time that ends before it begins.
    #[error("a span of time that ends before it begins")]
    Span,
    /// The range has no pages, or leaves the address space.
    #[error("impossible range of {0} pages")]
    Range(u32),
}

/// Reads one record.
///
/// # Errors
/// [`DecodeError`] for bytes that tracer's programs never send.
pub fn decode(record: &[u8]) -> Result<Raw, DecodeError> {
    let &[low, high, ..] = record else {
        return Err(DecodeError::Length(record.len()));
    };
    match Kind::try_from(u16::from_ne_bytes([low, high])).map_err(DecodeError::Kind)? {
        Kind::MappingMoved => {
            let event: MappingMoved = read(record)?;
            let end = (event.vaddr >> 12).checked_add(u64::from(event.pages));
            if event.pages == 0 || event.pages > MOST_PAGES || end.is_none_or(|end| end > 1 << 52) {
                return Err(DecodeError::Range(event.pages));
            }
            order(event.order)?;
            Ok(Raw::Mapping(event))
        }
        Kind::ProcessSeen => {
            let event: ProcessSeen = read(record)?;
            let change = ProcessChange::try_from(event.change).map_err(DecodeError::Change)?;
            Ok(Raw::Process(change, event))
        }
        Kind::UnmappedMoved => {
            let event: UnmappedMoved = read(record)?;
            order(event.order)?;
            Ok(Raw::Unmapped(event))
        }
        Kind::FileSeen => Ok(Raw::File(read(record)?)),
        Kind::FolioFailed => {
            let event: FolioFailed = read(record)?;
            order(event.order)?;
            Ok(Raw::Failure(event))
        }
        Kind::CompactionRan => {
            let event: CompactionRan = read(record)?;
            if event.began > event.at {
                return Err(DecodeError::Span);
            }
            Ok(Raw::Compaction(event))
        }
    }
}

/// The largest folio: 16 GiB, `MAX_FOLIO_ORDER` (include/linux/mm.h) and a reserve.
const MOST_ORDER: u8 = 22;
/// Base pages of the largest folio.
const MOST_PAGES: u32 = 1 << MOST_ORDER;

fn order(order: u8) -> Result<(), DecodeError> {
    if order > MOST_ORDER {
        return Err(DecodeError::Order(order));
    }
    Ok(())
}

fn read<T: Wire>(record: &[u8]) -> Result<T, DecodeError> {
    if record.len() != size_of::<T>() {
        return Err(DecodeError::Length(record.len()));
    }
    // SAFETY: `Wire` promises that any bytes of the right size, checked above, are a `T`.
    Ok(unsafe { record.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn bytes<T: Wire>(event: &T) -> Vec<u8> {
        // SAFETY: `Wire` promises that all of its bytes are initialized.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(event).cast(), size_of::<T>()) }.to_vec()
    }

    #[test]
    fn a_mapping_comes_back_as_it_was_sent() {
        let event = MappingMoved {
            kind: Kind::MappingMoved as u16,
            vaddr: 0x7f3a_5c20_0000,
            old_pfn: 1,
            new_pfn: 2,
            pages: 512,
            ..MappingMoved::default()
        };
        assert_eq!(decode(&bytes(&event)), Ok(Raw::Mapping(event)));
        assert_eq!(decode(&bytes(&event)[..63]), Err(DecodeError::Length(63)));
    }

    #[test]
    fn what_nobody_sends_is_an_error() {
        assert_eq!(decode(&[]), Err(DecodeError::Length(0)));
        assert_eq!(decode(&[9, 0]), Err(DecodeError::Kind(9)));
        let empty = MappingMoved {
            kind: Kind::MappingMoved as u16,
            ..MappingMoved::default()
        };
        assert_eq!(decode(&bytes(&empty)), Err(DecodeError::Range(0)));
        let process = ProcessSeen {
            kind: Kind::ProcessSeen as u16,
            change: 77,
            ..ProcessSeen::default()
        };
        assert_eq!(decode(&bytes(&process)), Err(DecodeError::Change(77)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(record in proptest::collection::vec(any::<u8>(), 0..160)) {
            let _ = decode(&record);
        }
    }
}
