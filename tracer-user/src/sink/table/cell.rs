//! The values of tables and their types.
//! Input: values of events.

use std::borrow::Cow;

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// 32 bits, signed.
    Int,
    /// 64 bits, signed; offsets in files and inodes as the two's complement.
    Long,
    /// 64 bits, unsigned: an address or a frame. Formats with signed numbers have the two's complement.
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
    /// A [`Type::Int`].
    Int(Option<i32>),
    /// A [`Type::Long`].
    Long(Option<i64>),
    /// A [`Type::Address`].
    Address(Option<u64>),
    /// A [`Type::Bool`].
    Bool(Option<bool>),
    /// A [`Type::Text`].
    Text(Option<Cow<'a, str>>),
    /// A [`Type::Time`].
    Time(Option<i64>),
}
