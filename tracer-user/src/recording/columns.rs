//! Columns of numbers: each takes the values of one field, row by row, and gives them back in that order.
//! Input: numbers; the bytes of a block.

use crate::recording::Damage;

/// How the numbers of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Each number as it is: for values without a pattern.
    Plain,
    /// The difference to the previous number: for values that grow.
    Delta,
    /// Each value once, with its number of repetitions: for values that seldom change.
    Runs,
}

/// Appends a number in groups of seven bits, the lowest first; each byte but the last has its highest bit set (LEB128).
#[inline]
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Moves the sign into the lowest bit, so that small negative numbers are short, too.
#[inline]
#[must_use]
pub fn zigzag(value: u64) -> u64 {
    (value << 1) ^ (value.cast_signed() >> 63).cast_unsigned()
}

/// Undoes [`zigzag`].
#[inline]
#[must_use]
pub fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// A column that is being written.
struct Writing {
    bytes: Vec<u8>,
    last: u64,
    run: u64,
}

impl Writing {
    #[inline]
    fn push(&mut self, codec: Codec, value: u64) {
        if codec == Codec::Runs && self.run != 0 && self.last == value {
            self.run += 1;
        } else {
            self.write(codec, value);
        }
    }

    /// Writes a value that does not continue a run. It is separate so that the common case is short enough to inline.
    #[inline(never)]
    fn write(&mut self, codec: Codec, value: u64) {
        match codec {
            Codec::Plain => put(&mut self.bytes, value),
            Codec::Delta => {
                put(&mut self.bytes, zigzag(value.wrapping_sub(self.last)));
                self.last = value;
            }
            Codec::Runs => {
                self.end_run();
                (self.last, self.run) = (value, 1);
            }
        }
    }

    fn end_run(&mut self) {
        if self.run != 0 {
            put(&mut self.bytes, self.last);
            put(&mut self.bytes, self.run);
        }
    }
}

/// Rows of `N` numbers that are being written.
pub struct Writer<const N: usize> {
    codecs: &'static [Codec; N],
    columns: [Writing; N],
    rows: u64,
}

impl<const N: usize> Writer<N> {
    /// A writer without rows.
    #[must_use]
    pub fn new(codecs: &'static [Codec; N]) -> Self {
        let columns = codecs.map(|_| Writing {
            bytes: Vec::new(),
            last: 0,
            run: 0,
        });
        Self {
            codecs,
            columns,
            rows: 0,
        }
    }

    /// Adds a row.
    #[inline]
    pub fn push(&mut self, row: [u64; N]) {
        for ((column, codec), value) in self.columns.iter_mut().zip(self.codecs).zip(row) {
            column.push(*codec, value);
        }
        self.rows += 1;
    }

    /// The approximate number of bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.bytes.len()).sum()
    }

    /// Appends the number of rows, then each column after its length, and empties the writer.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        put(out, std::mem::take(&mut self.rows));
        for column in &mut self.columns {
            column.end_run();
            put(out, column.bytes.len() as u64);
            out.append(&mut column.bytes);
            (column.last, column.run) = (0, 0);
        }
    }
}

/// Bytes that are being read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

const SHORT: Damage = Damage("its content ends too early");

impl<'a> Reader<'a> {
    /// The next number.
    ///
    /// # Errors
    /// [`Damage`] at the end of the bytes, and for a number of more than 64 bits.
    #[inline]
    pub fn number(&mut self) -> Result<u64, Damage> {
        if let [byte @ 0..0x80, rest @ ..] = self.0 {
            self.0 = rest;
            return Ok(u64::from(*byte));
        }
        self.long_number()
    }

    /// The next number of several bytes. It is separate so that the common case is short enough to inline.
    #[inline(never)]
    fn long_number(&mut self) -> Result<u64, Damage> {
        let (mut value, mut shift) = (0u64, 0);
        for (at, &byte) in self.0.iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
            shift += 7;
            if shift > 63 {
                break;
            }
        }
        Err(if self.0.len() < 10 {
            SHORT
        } else {
            Damage("a number in it is too large")
        })
    }

    /// The next bytes, after their number.
    ///
    /// # Errors
    /// [`Damage`] if there are fewer.
    pub fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let length = usize::try_from(self.number()?).map_err(|_| SHORT)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[derive(Clone, Copy)]
struct ColumnReader<'a> {
    bytes: Reader<'a>,
    last: u64,
    run: u64,
}

impl ColumnReader<'_> {
    fn begin_run(&mut self) -> Result<(), Damage> {
        self.last = self.bytes.number()?;
        self.run = self.bytes.number()?;
        if self.run == 0 {
            return Err(Damage("a run in it is empty"));
        }
        Ok(())
    }
}

/// Rows of `N` numbers that are being read. Columns of runs are read only when a run ends: in most rows none does.
pub struct Rows<'a, const N: usize> {
    codecs: &'static [Codec; N],
    columns: [ColumnReader<'a>; N],
    /// The other columns, by number; the first `varying_count` entries are used.
    varying: [usize; N],
    varying_count: usize,
    row: [u64; N],
    left: u64,
    /// Rows from the last end of a run to the next one.
    steady: u64,
    /// How many of the `steady` rows are left.
    steady_left: u64,
}

impl<'a, const N: usize> Rows<'a, N> {
    /// Reads the output of [`Writer::finish`] from `reader`, with at most `most` rows.
    ///
    /// # Errors
    /// [`Damage`] if the bytes are something else.
    pub fn new(codecs: &'static [Codec; N], reader: &mut Reader<'a>, most: u64) -> Result<Self, Damage> {
        let left = reader.number()?;
        if left > most {
            return Err(Damage("it has more rows than it says"));
        }
        let mut columns = [ColumnReader {
            bytes: Reader(&[]),
            last: 0,
            run: 0,
        }; N];
        for (column, codec) in columns.iter_mut().zip(codecs) {
            column.bytes = Reader(reader.bytes()?);
            // A row takes at least a byte, unless it continues a run.
            let fits = *codec == Codec::Runs || left <= column.bytes.0.len() as u64;
            if !fits {
                return Err(Damage("it has fewer rows than it says"));
            }
        }
        let (mut varying, mut varying_count) = ([0; N], 0);
        for at in (0..N).filter(|at| codecs[*at] != Codec::Runs) {
            varying[varying_count] = at;
            varying_count += 1;
        }
        Ok(Self {
            codecs,
            columns,
            varying,
            varying_count,
            row: [0; N],
            left,
            steady: 0,
            steady_left: 0,
        })
    }

    /// Rows that are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next row.
    ///
    /// # Errors
    /// [`Damage`] if there is none.
    #[inline]
    pub fn take(&mut self) -> Result<[u64; N], Damage> {
        self.step().map(|_| self.row)
    }

    /// Goes on to the next row, and returns whether its columns of runs may differ from those of the previous row.
    ///
    /// # Errors
    /// [`Damage`] if there is none.
    #[inline]
    pub fn step(&mut self) -> Result<bool, Damage> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or(Damage("it has fewer rows than it says"))?;
        let changes = self.steady_left == 0;
        if changes {
            self.begin_runs()?;
        }
        self.steady_left -= 1;
        for &at in &self.varying[..self.varying_count] {
            let column = &mut self.columns[at];
            let number = column.bytes.number()?;
            self.row[at] = if self.codecs[at] == Codec::Delta {
                column.last = column.last.wrapping_add(unzigzag(number));
                column.last
            } else {
                number
            };
        }
        Ok(changes)
    }

    /// Checks that nothing follows the last row.
    ///
    /// # Errors
    /// [`Damage`] if something does.
    pub fn end(&self) -> Result<(), Damage> {
        let of_run = self.steady - self.steady_left;
        let at_end = |(column, codec): (&ColumnReader<'_>, &Codec)| {
            column.bytes.0.is_empty() && (*codec != Codec::Runs || column.run == of_run)
        };
        if self.left > 0 || !self.columns.iter().zip(self.codecs).all(at_end) {
            return Err(Damage("it has more rows than it says"));
        }
        Ok(())
    }

    /// The row of the last step.
    #[must_use]
    pub fn row(&self) -> &[u64; N] {
        &self.row
    }

    /// Begins the next run in each column whose run has ended.
    #[inline(never)]
    fn begin_runs(&mut self) -> Result<(), Damage> {
        let mut steady = u64::MAX;
        let columns = self.columns.iter_mut().zip(self.codecs).zip(&mut self.row);
        for ((column, _), value) in columns.filter(|((_, codec), _)| **codec == Codec::Runs) {
            column.run -= self.steady;
            if column.run == 0 {
                column.begin_run()?;
                *value = column.last;
            }
            steady = steady.min(column.run);
        }
        (self.steady, self.steady_left) = (steady, steady);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODECS: [Codec; 3] = [Codec::Plain, Codec::Delta, Codec::Runs];

    fn any_number() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..4, any::<u64>(), Just(u64::MAX)]
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in prop::collection::vec([any_number(), any_number(), any_number()], 0..50)) {
            let mut writer = Writer::new(&CODECS);
            // Twice, because `finish` empties the writer.
            for _ in 0..2 {
                for row in &rows {
                    writer.push(*row);
                }
                let mut bytes = Vec::new();
                writer.finish(&mut bytes);
                let mut reader = Reader(&bytes);
                let mut read = Rows::new(&CODECS, &mut reader, 50).unwrap();
                prop_assert!(reader.0.is_empty());
                for row in &rows {
                    prop_assert_eq!(read.take(), Ok(*row));
                }
                prop_assert_eq!(read.end(), Ok(()));
                prop_assert!(read.take().is_err());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader(&bytes);
            if let Ok(mut rows) = Rows::new(&CODECS, &mut reader, 1 << 20) {
                while rows.left() > 0 && rows.take().is_ok() {}
            }
        }
    }

    #[test]
    fn signs_go_to_the_lowest_bit() {
        for (value, coded) in [(0, 0), (u64::MAX, 1), (1, 2), (1 << 63, u64::MAX)] {
            assert_eq!(zigzag(value), coded);
            assert_eq!(unzigzag(coded), value);
        }
    }
}
