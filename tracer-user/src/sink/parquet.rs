//! Parquet: a table in columns, packed with zstd, in groups of rows. An unknown value is null.
//! Input: events; output: any writer.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::Arc,
};

use parquet::{
    basic::{Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::{ColumnPath, Type as Schema},
};

use crate::{
    event::Event,
    run::header::Header,
    sink::{
        Sink,
        export::{Export, RunColumns},
        table::{Cell, Table, TableKind, Type},
    },
};

/// Rows that are held back and then written as one group, which readers can skip as a whole.
const GROUP_ROWS: usize = 1 << 17;
/// Bytes of text at which a group is written early. This bounds the memory of a group, however long the names are.
const GROUP_TEXT: usize = 1 << 25;
/// The most bytes of distinct numbers for which a column is written with a dictionary.
const NUMBERS: usize = 1 << 16;

/// The values of a column that are held back.
struct Held {
    values: Values,
    /// By row: 1 if there is a value, else 0.
    there: Vec<i16>,
}

enum Values {
    Int(Vec<i32>),
    Long(Vec<i64>),
    Bool(Vec<bool>),
    Text(Vec<ByteArray>),
}

impl Held {
    fn new(kind: Type) -> Self {
        Self {
            values: match kind {
                Type::Int => Values::Int(Vec::new()),
                Type::Long | Type::Address | Type::Time => Values::Long(Vec::new()),
                Type::Bool => Values::Bool(Vec::new()),
                Type::Text => Values::Text(Vec::new()),
            },
            there: Vec::new(),
        }
    }

    fn push(&mut self, cell: &Cell<'_>, texts: &mut Texts) {
        let there = match (&mut self.values, cell) {
            (Values::Int(values), Cell::Int(Some(value))) => push(values, *value),
            (Values::Long(values), Cell::Long(Some(value)) | Cell::Time(Some(value))) => push(values, *value),
            (Values::Long(values), Cell::Address(Some(value))) => push(values, value.cast_signed()),
            (Values::Bool(values), Cell::Bool(Some(value))) => push(values, *value),
            (Values::Text(values), Cell::Text(Some(text))) => push(values, texts.shared(text)),
            _ => 0,
        };
        self.there.push(there);
    }

    fn write<W: Write + Send>(&mut self, group: &mut SerializedRowGroupWriter<'_, W>) -> Result<(), ParquetError> {
        if let Some(mut column) = group.next_column()? {
            let there = Some(&self.there[..]);
            match &mut self.values {
                Values::Int(values) => column.typed::<Int32Type>().write_batch(values, there, None)?,
                Values::Long(values) => column.typed::<Int64Type>().write_batch(values, there, None)?,
                Values::Bool(values) => column.typed::<BoolType>().write_batch(values, there, None)?,
                Values::Text(values) => column.typed::<ByteArrayType>().write_batch(values, there, None)?,
            };
            column.close()?;
        }
        match &mut self.values {
            Values::Int(values) => values.clear(),
            Values::Long(values) => values.clear(),
            Values::Bool(values) => values.clear(),
            Values::Text(values) => values.clear(),
        }
        self.there.clear();
        Ok(())
    }
}

fn push<T>(values: &mut Vec<T>, value: T) -> i16 {
    values.push(value);
    1
}

/// The texts of a group, each once.
#[derive(Default)]
struct Texts {
    known: HashMap<Box<str>, ByteArray>,
    bytes: usize,
}

impl Texts {
    fn shared(&mut self, text: &str) -> ByteArray {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        let shared = ByteArray::from(text);
        self.known.insert(text.into(), shared.clone());
        self.bytes += text.len();
        shared
    }
}

/// Writes one table.
pub struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    table: Table,
    run: RunColumns,
    held: Vec<Held>,
    texts: Texts,
    rows: usize,
}

impl<W: Write + Send> Parquet<W> {
    /// `writer` may be unbuffered.
    ///
    /// # Errors
    /// When the begin of the file cannot be written.
    pub fn new(writer: W, table: Table) -> io::Result<Self> {
        let columns = table.columns();
        let (schema, properties) = schema(table.kind.name(), &columns).map_err(io_error)?;
        let writer = SerializedFileWriter::new(writer, Arc::new(schema), Arc::new(properties)).map_err(io_error)?;
        Ok(Self {
            writer,
            table,
            run: RunColumns::default(),
            held: columns.iter().map(|(_, kind)| Held::new(*kind)).collect(),
            texts: Texts::default(),
            rows: 0,
        })
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for held in &mut self.held {
            held.write(&mut group)?;
        }
        group.close()?;
        self.texts = Texts::default();
        self.rows = 0;
        Ok(())
    }
}

/// The columns as Parquet describes them, and their encoding.
fn schema(name: &str, columns: &[(&'static str, Type)]) -> Result<(Schema, WriterProperties), ParquetError> {
    let mut fields = Vec::new();
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("tracer ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?));
    for (name, kind) in columns {
        let (physical, logical) = match kind {
            Type::Int => (Physical::INT32, None),
            Type::Long | Type::Address => (Physical::INT64, None),
            Type::Bool => (Physical::BOOLEAN, None),
            Type::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Type::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
        };
        let field = Schema::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical);
        fields.push(Arc::new(field.build()?));
        if matches!(kind, Type::Int | Type::Long | Type::Address | Type::Time) {
            // Neighbours differ little in a column with many distinct values.
            let path = ColumnPath::from(*name);
            properties = properties
                .set_column_dictionary_page_size_limit(path.clone(), NUMBERS)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    let schema = Schema::group_type_builder(name).with_fields(fields).build()?;
    Ok((schema, properties.build()))
}

/// Keeps the kind of a system error, so that a broken pipe is recognized.
fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

impl<W: Write + Send> Sink for Parquet<W> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.run = RunColumns::from(header);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let Self {
            table,
            run,
            held,
            texts,
            rows,
            ..
        } = self;
        table.rows(event, run, |cells| {
            for (held, cell) in held.iter_mut().zip(cells) {
                held.push(cell, texts);
            }
            *rows += 1;
            Ok(())
        })?;
        if self.rows >= GROUP_ROWS || self.texts.bytes >= GROUP_TEXT {
            self.write_group().map_err(io_error)?;
        }
        Ok(())
    }
}

impl<W: Write + Send> Export for Parquet<W> {
    fn takes(&self, event: &Event) -> bool {
        TableKind::of(event) == self.table.kind
    }

    fn close(&mut self) -> io::Result<()> {
        if self.rows > 0 {
            self.write_group().map_err(io_error)?;
        }
        self.writer.finish().map(drop).map_err(io_error)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use parquet::{
        file::{
            metadata::RowGroupMetaData,
            reader::{FileReader as _, SerializedFileReader},
        },
        record::Field,
    };
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::{event::Move, made_up, units::VirtAddr};

    /// A pipe whose reader is gone.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn feed<W: Write + Send>(parquet: &mut Parquet<W>, events: &[Event]) -> io::Result<()> {
        parquet.begin(&made_up::header())?;
        for event in events {
            parquet.event(event)?;
        }
        parquet.finish(&made_up::summary())?;
        parquet.close()
    }

    fn exported(table: Table, events: &[Event]) -> SerializedFileReader<File> {
        let file = File::from(memfd_create("export", MemfdFlags::CLOEXEC).unwrap());
        let mut parquet = Parquet::new(file.try_clone().unwrap(), table).unwrap();
        feed(&mut parquet, events).unwrap();
        SerializedFileReader::try_from(file).unwrap()
    }

    /// A value as the Parquet reader returns it.
    fn field(cell: &Cell<'_>) -> Field {
        match cell {
            Cell::Int(Some(value)) => Field::Int(*value),
            Cell::Long(Some(value)) => Field::Long(*value),
            Cell::Address(Some(value)) => Field::Long(value.cast_signed()),
            Cell::Bool(Some(value)) => Field::Bool(*value),
            Cell::Time(Some(value)) => Field::TimestampMicros(*value),
            Cell::Text(Some(value)) => Field::Str(value.to_string()),
            _ => Field::Null,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut events = made_up::others();
        events.extend([made_up::moved(), made_up::unknown(), made_up::compared()].map(Event::Move));
        let run = RunColumns::from(&made_up::header());
        for (kind, host) in TableKind::ALL.into_iter().zip([true, true, false, false]) {
            let table = Table { kind, host };
            let mut expected = Vec::new();
            for event in &events {
                let take = |cells: &[Cell<'_>]| {
                    expected.push(cells.iter().map(field).collect::<Vec<_>>());
                    Ok(())
                };
                table.rows(event, &run, take).unwrap();
            }
            let read: Vec<Vec<Field>> = exported(table, &events)
                .get_row_iter(None)
                .unwrap()
                .map(|row| {
                    row.unwrap()
                        .into_columns()
                        .into_iter()
                        .map(|(_, field)| field)
                        .collect()
                })
                .collect();
            assert_eq!(read, expected, "{kind:?}");
        }
    }

    #[test]
    fn many_rows_are_several_groups() {
        let table = Table {
            kind: TableKind::Moves,
            host: true,
        };
        let at = |page: u64| {
            Event::Move(Move {
                vaddr: VirtAddr(page.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                ..made_up::moved()
            })
        };
        let events: Vec<Event> = (0..=GROUP_ROWS as u64).map(at).collect();
        let reader = exported(table, &events);
        let groups: Vec<i64> = reader
            .metadata()
            .row_groups()
            .iter()
            .map(RowGroupMetaData::num_rows)
            .collect();
        assert_eq!(groups, [1 << 17, 1]);
        let place = table.columns().iter().position(|(name, _)| *name == "vaddr").unwrap();
        for (row, event) in reader.get_row_iter(None).unwrap().zip(&events) {
            let Event::Move(moved) = event else { panic!("{event:?}") };
            let row = row.unwrap().into_columns();
            assert_eq!(row[place].1, Field::Long(moved.vaddr.0.cast_signed()));
        }
    }

    #[test]
    fn a_broken_pipe_is_told_as_one() {
        let table = Table {
            kind: TableKind::Moves,
            host: true,
        };
        let told =
            Parquet::new(Gone, table).and_then(|mut parquet| feed(&mut parquet, &[Event::Move(made_up::moved())]));
        assert_eq!(told.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
