//! Protocol Buffers, as far as a trace needs them: numbers and bytes by field, and nested messages.
//! Input: values; output: bytes, encoded as protobuf.dev/programming-guides/encoding describes.

/// Wire types: the form of the value after a field's number.
const VARINT: u64 = 0;
const FIXED: u64 = 1;
const BYTES: u64 = 2;

/// The fields of a message.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// Any integer or boolean; a signed one as its two's complement.
    pub fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | VARINT);
        self.varint(value);
    }

    /// A number that uses all of its 64 bits.
    pub fn fixed(&mut self, field: u64, value: u64) {
        self.varint(field << 3 | FIXED);
        self.0.extend(value.to_le_bytes());
    }

    /// Text, or the fields of a complete message.
    pub fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | BYTES);
        self.length(bytes.len());
        self.0.extend(bytes);
    }

    /// A message; `fill` adds its fields.
    pub fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        self.varint(field << 3 | BYTES);
        let begin = self.0.len();
        fill(self);
        let end = self.0.len();
        self.length(end - begin);
        // The length precedes the message.
        let width = self.0.len() - end;
        self.0[begin..].rotate_right(width);
    }

    /// The fields of another message, as if they had been added here.
    pub fn append(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// The encoded fields.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all fields.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn length(&mut self, length: usize) {
        // A usize has at most 64 bits on any machine.
        self.varint(length as u64);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

#[cfg(test)]
pub mod reader {
    //! The decoder, for the tests.

    /// A field's value.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Value<'a> {
        Number(u64),
        Fixed(u64),
        Bytes(&'a [u8]),
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    /// The fields of a message, in their order.
    pub fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let value = match tag & 7 {
                super::VARINT => Value::Number(varint(&mut bytes)),
                super::FIXED => {
                    let (head, tail) = bytes.split_at(8);
                    bytes = tail;
                    Value::Fixed(u64::from_le_bytes(head.try_into().unwrap()))
                }
                super::BYTES => {
                    let length = usize::try_from(varint(&mut bytes)).unwrap();
                    let (head, tail) = bytes.split_at(length);
                    bytes = tail;
                    Value::Bytes(head)
                }
                other => panic!("wire type {other}"),
            };
            found.push((tag >> 3, value));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{reader::Value, *};

    #[test]
    fn the_bytes_of_the_encoding() {
        let mut message = Message::default();
        message.number(1, 150);
        message.bytes(2, b"testing");
        assert_eq!(message.as_bytes(), b"\x08\x96\x01\x12\x07testing");
        message.clear();
        message.fixed(47, 2);
        message.number(4, (-2_i64).cast_unsigned());
        assert_eq!(
            message.as_bytes(),
            b"\xf9\x02\x02\0\0\0\0\0\0\0\x20\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
        );
    }

    #[test]
    fn a_message_knows_its_length_whatever_that_is() {
        for length in [0, 1, 127, 128, 20_000] {
            let text = vec![b'x'; length];
            let mut message = Message::default();
            message.message(3, |inner| inner.message(16, |inner| inner.bytes(1, &text)));
            message.number(5, 7);
            let fields = reader::fields(message.as_bytes());
            assert_eq!(fields[1], (5, Value::Number(7)));
            let (3, Value::Bytes(inner)) = fields[0] else {
                panic!("{length}: {fields:?}")
            };
            let inner = reader::fields(inner);
            let (16, Value::Bytes(inner)) = inner[0] else {
                panic!("{length}: {inner:?}")
            };
            assert_eq!(reader::fields(inner), [(1, Value::Bytes(&text))]);
        }
    }
}
