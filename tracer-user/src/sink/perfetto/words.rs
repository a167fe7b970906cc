//! Texts that are written once and then referred to by number.
//! Input: names and values; output: the interned data of the packet that needs them.

use std::collections::HashMap;

use super::proto::Message;

/// InternedData (protos/perfetto/trace/interned_data/interned_data.proto): the field of each table. In each of them
/// field 1 is the number, field 2 the text.
const CATEGORIES: u64 = 1;
const NAMES: u64 = 2;
const ANNOTATIONS: u64 = 3;
const VALUES: u64 = 29;

/// The number of texts after which all are forgotten, and their bytes.
const MOST: usize = 1 << 16;
const MOST_BYTES: usize = 1 << 23;

/// The texts that were written to the trace.
#[derive(Default)]
pub struct Words {
    names: HashMap<Box<str>, u64>,
    values: HashMap<Box<str>, u64>,
    bytes: usize,
    /// New texts for the next packet.
    pub untold: Message,
}

impl Words {
    /// Only the categories and the names of annotations, numbered from 1.
    pub fn new(categories: &[&str], annotations: &[&str]) -> Self {
        let mut words = Self::default();
        for (table, texts) in [(CATEGORIES, categories), (ANNOTATIONS, annotations)] {
            for (number, text) in (1..).zip(texts) {
                tell(&mut words.untold, table, number, text);
            }
        }
        words
    }

    /// Whether there are too many texts, so that all must be forgotten.
    pub fn is_full(&self) -> bool {
        self.names.len() + self.values.len() >= MOST || self.bytes >= MOST_BYTES
    }

    /// The number of an event's name.
    pub fn name(&mut self, text: &str) -> u64 {
        number(NAMES, text, &mut self.names, &mut self.untold, &mut self.bytes)
    }

    /// The number of an annotation's value.
    pub fn value(&mut self, text: &str) -> u64 {
        number(VALUES, text, &mut self.values, &mut self.untold, &mut self.bytes)
    }
}

fn number(table: u64, text: &str, known: &mut HashMap<Box<str>, u64>, untold: &mut Message, bytes: &mut usize) -> u64 {
    if let Some(number) = known.get(text) {
        return *number;
    }
    // A usize has at most 64 bits on any machine.
    let number = known.len() as u64 + 1;
    known.insert(text.into(), number);
    *bytes += text.len();
    tell(untold, table, number, text);
    number
}

fn tell(message: &mut Message, table: u64, number: u64, text: &str) {
    message.message(table, |entry| {
        entry.number(1, number);
        entry.bytes(2, text.as_bytes());
    });
}
