//! Encodes recordings as docs/recording-format.md describes them, and shares no code with the product.
//! Input: numbers and bytes that a test makes up, sensible or not.

/// Kinds of blocks.
pub const HEADER: u16 = 1;
pub const EVENTS: u16 = 2;
pub const BOOKS: u16 = 3;
pub const END: u16 = 4;

/// CRC-32 (IEEE), a bit at a time.
pub fn crc(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    !bytes
        .iter()
        .fold(!0, |crc: u32, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

pub fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(content, 3).unwrap()
}

/// The numbers of a block's first 56 bytes.
pub struct Head {
    pub kind: u16,
    pub sequence: u32,
    pub rows: u32,
    pub packed: u32,
    pub unpacked: u32,
    pub crc: u32,
}

impl Head {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0xd7, 0x54, 0x52, 0x1a];
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(1u16.to_le_bytes());
        for number in [self.sequence, self.rows, self.packed, self.unpacked] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend([0; 16]);
        bytes.extend(self.crc.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(crc(&bytes).to_le_bytes());
        bytes
    }
}

/// A block whose content in the file is `packed`.
pub fn packed(kind: u16, sequence: u32, rows: u32, packed: &[u8], unpacked: usize) -> Vec<u8> {
    let length = |bytes: usize| u32::try_from(bytes).unwrap();
    let head = Head {
        kind,
        sequence,
        rows,
        packed: length(packed.len()),
        unpacked: length(unpacked),
        crc: crc(packed),
    };
    [&head.bytes(), packed].concat()
}

/// A file that is being written.
#[derive(Clone, Default)]
pub struct Recording {
    pub bytes: Vec<u8>,
    /// The number of the next block.
    pub sequence: u32,
    /// Events in it.
    pub events: u64,
}

impl Recording {
    /// A recording with its first two headers.
    pub fn begun(begun: u64) -> Self {
        let mut recording = Self::default();
        recording.block(HEADER, 0, header(begun, "[\"tracer\"]").as_bytes());
        recording.block(HEADER, 0, header(begun, "[\"tracer\"]").as_bytes());
        recording
    }

    pub fn block(&mut self, kind: u16, rows: u32, content: &[u8]) -> &mut Self {
        let block = packed(kind, self.sequence, rows, &zstd(content), content.len());
        self.bytes.extend(block);
        self.sequence += 1;
        self
    }

    /// A block with these events.
    pub fn events(&mut self, content: &Content) -> &mut Self {
        let rows = u32::try_from(content.moves).unwrap();
        self.events += content.moves;
        self.block(EVENTS, rows, &content.bytes())
    }

    /// Ends the file: its end has that many events more than it.
    pub fn end(&mut self, more: i64) -> &mut Self {
        let events = self.events.checked_add_signed(more).unwrap();
        self.block(END, 0, end(events, "").as_bytes())
    }
}

pub fn header(begun: u64, command_line: &str) -> String {
    format!(
        "{{\"header\":{{\"version\":\"1\",\"host\":\"db-1\",\"boot_id\":\"b\",\"kernel\":\"6.12\",\"nodes\":1,\
         \"frames\":[],\"command_line\":{command_line},\"begun\":{begun},\"backend\":\"exact\",\"kinds\":[\"move\"],\
         \"fallbacks\":[],\"refused\":[],\"targets\":\"all\",\"clock_offset\":0}},\"part\":0,\"joined\":0,\
         \"redacted\":false}}"
    )
}

/// The end of a file of a run that continues; with `more` keys.
pub fn end(events: u64, more: &str) -> String {
    format!("{{\"events\":{events},\"unwritten\":0,\"finished\":null{more}}}")
}

pub fn number(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub fn signed(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// A column of a table.
#[derive(Clone)]
pub enum Column {
    /// The numbers as they are: of a plain column, or the signed differences of a delta column.
    Numbers(Vec<u64>),
    /// Values with the number of times that each follows.
    Runs(Vec<(u64, u64)>),
    /// Any bytes.
    Bytes(Vec<u8>),
}

impl Column {
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Numbers(values) => values.iter().for_each(|value| number(&mut out, *value)),
            Self::Runs(runs) => {
                for (value, times) in runs {
                    number(&mut out, *value);
                    number(&mut out, *times);
                }
            }
            Self::Bytes(bytes) => out.clone_from(bytes),
        }
        out
    }
}

fn table(out: &mut Vec<u8>, rows: u64, columns: &[Column]) {
    number(out, rows);
    for column in columns {
        let bytes = column.bytes();
        number(out, bytes.len() as u64);
        out.extend(bytes);
    }
}

/// One value in each row of a table.
fn same(rows: u64, value: u64) -> Column {
    Column::Runs(if rows == 0 { vec![] } else { vec![(value, rows)] })
}

fn each(rows: u64, value: u64) -> Column {
    Column::Numbers(vec![value; usize::try_from(rows).unwrap()])
}

/// A delta column, or a plain one of differences: the same in each row.
pub fn differences(rows: u64, difference: i64) -> Column {
    each(rows, signed(difference))
}

/// The content of a block with moves only.
#[derive(Clone)]
pub struct Content {
    pub strings: Vec<Vec<u8>>,
    /// The declared number of strings, if it is not the real one.
    pub declared_strings: Option<u64>,
    /// Process, thread, name.
    pub tasks: Vec<[u64; 3]>,
    /// The number of each mapping's name.
    pub mappings: Vec<u64>,
    /// Number and name.
    pub reasons: Vec<[u64; 2]>,
    pub moves: u64,
    /// The declared number of rows of the table of moves, if it is not the real one.
    pub declared_moves: Option<u64>,
    /// The 20 columns of the moves.
    pub columns: Vec<Column>,
    /// Bytes after the last table.
    pub after: Vec<u8>,
}

/// Places of columns among those of a move.
pub const TIME: usize = 0;
pub const KNOWN: usize = 1;
pub const OWNER: usize = 2;
pub const ADDRESS: usize = 4;
pub const OLD_NODE: usize = 9;
pub const REASON: usize = 11;
pub const BLACKOUT: usize = 13;
pub const MAPPING: usize = 14;
pub const NTH: usize = 18;

impl Content {
    /// Moves of one page each, of a process whose name is "a", one nanosecond after the other.
    pub fn moves(moves: u64) -> Self {
        let mut columns: Vec<Column> = (0..20)
            .map(|column| match column {
                ADDRESS | 7 | 8 | BLACKOUT => each(moves, 0),
                TIME => each(moves, signed(1)),
                OWNER | 5 => same(moves, 1),
                _ => same(moves, 0),
            })
            .collect();
        columns[3] = same(moves, 4);
        Self {
            strings: vec![b"a".to_vec()],
            declared_strings: None,
            tasks: vec![[1, 1, 1]],
            mappings: Vec::new(),
            reasons: Vec::new(),
            moves,
            declared_moves: None,
            columns,
            after: Vec::new(),
        }
    }

    pub fn with(mut self, column: usize, values: Column) -> Self {
        self.columns[column] = values;
        self
    }

    /// The numbers from 1 to that of the moves in one column of runs.
    pub fn counting(self, column: usize) -> Self {
        let runs = (1..=self.moves).map(|row| (row, 1)).collect();
        self.with(column, Column::Runs(runs))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        number(&mut out, self.declared_strings.unwrap_or(self.strings.len() as u64));
        for string in &self.strings {
            number(&mut out, string.len() as u64);
            out.extend(string);
        }
        let plain = |rows: &[[u64; 3]], column: usize| Column::Numbers(rows.iter().map(|row| row[column]).collect());
        let tasks = [0, 1, 2].map(|column| plain(&self.tasks, column));
        table(&mut out, self.tasks.len() as u64, &tasks);
        let count = self.mappings.len() as u64;
        let access = u64::from(u32::from_le_bytes(*b"rw-p"));
        let start = each(count, signed(4096));
        let mappings = [
            start,
            each(count, 4096),
            same(count, access),
            each(count, 0),
            same(count, 8),
            same(count, 1),
            each(count, 1),
            Column::Numbers(self.mappings.clone()),
        ];
        table(&mut out, count, &mappings);
        let reasons = [0, 1].map(|column| Column::Numbers(self.reasons.iter().map(|row| row[column]).collect()));
        table(&mut out, self.reasons.len() as u64, &reasons);
        table(&mut out, self.moves, &[same(self.moves, 0)]);
        table(&mut out, self.declared_moves.unwrap_or(self.moves), &self.columns);
        for columns in [14, 17, 4, 13] {
            table(&mut out, 0, &vec![Column::Runs(Vec::new()); columns]);
        }
        out.extend(&self.after);
        out
    }
}
