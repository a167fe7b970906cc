//! The values of tables and their types.
//! Input: values of events.

use std::borrow::Cow;

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// 32 bits, signed.
    Int,
    /// 64 bits, signed; of places in files and inodes the two's complement.
    Long,
    /// 64 bits, unsigned: an address or a frame. Where numbers are signed, the two's complement.
    Address,
    /// True or false.
    Bool,
    /// Text without control characters.
    Text,
    /// Microseconds since 1970 in UTC.
    Time,
}

/// A value. None: not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Of a [`Type::Int`].
    Int(Option<i32>),
    /// Of a [`Type::Long`].
    Long(Option<i64>),
    /// Of a [`Type::Address`].
    Address(Option<u64>),
    /// Of a [`Type::Bool`].
    Bool(Option<bool>),
    /// Of a [`Type::Text`].
    Text(Option<Cow<'a, str>>),
    /// Of a [`Type::Time`].
    Time(Option<i64>),
}
