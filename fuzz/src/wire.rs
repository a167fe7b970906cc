//! Decodes records of the ring of any content: what no program of tracer's sends is an error.
//! Input: bytes of libFuzzer: records, each behind its length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_user::decode::decode;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Some((&length, behind)) = rest.split_first() {
        let (record, next) = behind.split_at(behind.len().min(length.into()));
        let _ = decode(record);
        rest = next;
    }
});
