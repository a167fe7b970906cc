//! Data sets of many recordings: OUT/date=DATE/host=HOST/part-RECORDING-N.EXT, the layout of Hive that others read,
//! too.
//! Input: events; output: files.

use std::{ffi::OsStr, fmt::Write as _, io, path::PathBuf};

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    event::Event,
    output::{Destination, Directory, Draft, Writer, about},
    run::{header::Header, kept::Unfinished, summary::Summary},
    sink::{
        Sink,
        export::{Export, RunColumns},
        table::TableKind,
    },
};

/// The most days that are written at once: at midnight there are two.
const MOST: usize = 8;
const DAY: i64 = 86_400_000_000;
/// Hive's name for the partition of unknown values.
const UNKNOWN: &str = "__HIVE_DEFAULT_PARTITION__";

/// Makes a file's format.
pub type MakeFormat = Box<dyn Fn(Writer) -> io::Result<Box<dyn Export>>>;

/// The layout of a data set.
pub struct Layout {
    /// The directory.
    pub root: PathBuf,
    /// The kind of its rows.
    pub kind: TableKind,
    /// The extension of its files.
    pub extension: &'static str,
    /// Whether existing files are replaced.
    pub force: bool,
    /// The most files.
    pub most: usize,
    /// The format of each file. It has no column of the host, which the directory names.
    pub format: MakeFormat,
}

/// Writes the runs of recordings into a data set. The files of a run appear when the run has ended.
pub struct Partitions {
    layout: Layout,
    header: Header,
    run: RunColumns,
    parts: Vec<Partition>,
    /// The number of files so far.
    files: usize,
    /// The error for the first existing file, and the number of existing files.
    kept: Option<(io::Error, usize)>,
}

/// The rows of one day of a run.
struct Partition {
    /// Days since 1970, in UTC; None: unknown.
    day: Option<i64>,
    /// None: its file exists already.
    open: Option<(Draft, Box<dyn Export>)>,
}

impl Partition {
    fn end(self) -> io::Result<()> {
        let Some((draft, mut export)) = self.open else {
            return Ok(());
        };
        export.close()?;
        draft.publish()
    }
}

impl Partitions {
    /// Writes no file before there is a row.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            header: Header::unknown(),
            run: RunColumns::default(),
            parts: Vec::new(),
            files: 0,
            kept: None,
        }
    }

    fn begin_part(&mut self, day: Option<i64>, first: &Event) -> io::Result<Partition> {
        let Layout {
            root,
            extension,
            force,
            most,
            format,
            ..
        } = &self.layout;
        if self.files == *most {
            let message = format!("the data set has more than {most} files: --max-files allows more");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, message));
        }
        self.files += 1;
        let mut dir = Directory::make_all(root).map_err(|error| about(root, "create", &error))?;
        for (name, value) in [
            ("date", day.and_then(date)),
            ("host", self.run.host.as_deref().map(safe)),
        ] {
            let name = format!("{name}={}", value.as_deref().unwrap_or(UNKNOWN));
            dir = dir
                .make(OsStr::new(&name))
                .map_err(|error| about(&dir.path().join(&name), "create", &error))?;
        }
        let id = self.run.id.as_deref().map_or_else(|| "unknown".to_owned(), safe);
        // The name is the same whenever the file is exported, and different for each file of a rotation.
        let name = format!("part-{id}-{:x}.{extension}", first.at().0);
        let draft = match Draft::at(Destination::within(dir, name.into()), *force) {
            // The rest of the data set is written nevertheless.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let (first, count) = self.kept.take().unwrap_or((error, 0));
                self.kept = Some((first, count + 1));
                return Ok(Partition { day, open: None });
            }
            other => other?,
        };
        let mut export = format(draft.writer()?)?;
        export.begin(&self.header)?;
        let open = Some((draft, export));
        Ok(Partition { day, open })
    }

    fn end_run(&mut self) -> io::Result<()> {
        self.parts.drain(..).try_for_each(Partition::end)
    }
}

fn date(day: i64) -> Option<String> {
    let time = Timestamp::from_microsecond(day.checked_mul(DAY)?).ok()?;
    Some(time.to_zoned(TimeZone::UTC).date().to_string())
}

/// A value as a part of a path. It is percent-encoded, as readers expect (`%2F` for a slash), and never empty, `.` or
/// `..`.
fn safe(text: &str) -> String {
    let mut name = String::new();
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(byte.into()),
            b'.' if index > 0 => name.push('.'),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(name, "%{byte:02X}");
            }
        }
    }
    name
}

impl Sink for Partitions {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.header = header.clone();
        self.run = RunColumns::from(header);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let day = self.run.time(event.at()).map(|time| time.div_euclid(DAY));
        let known = self.parts.iter().position(|part| part.day == day);
        let place = if let Some(place) = known {
            place
        } else {
            if self.parts.len() == MOST {
                self.parts.remove(0).end()?;
            }
            let part = self.begin_part(day, event)?;
            self.parts.push(part);
            self.parts.len() - 1
        };
        match &mut self.parts[place].open {
            Some((_, export)) => export.event(event),
            None => Ok(()),
        }
    }

    fn abandon(&mut self, _unfinished: &Unfinished) -> io::Result<()> {
        self.end_run()
    }

    fn finish(&mut self, _summary: &Summary) -> io::Result<()> {
        self.end_run()
    }
}

impl Export for Partitions {
    fn takes(&self, event: &Event) -> bool {
        TableKind::of(event) == self.layout.kind
    }

    fn close(&mut self) -> io::Result<()> {
        self.end_run()?;
        match self.kept.take() {
            None => Ok(()),
            Some((first, 1)) => Err(first),
            Some((first, count)) => {
                let more = match count - 1 {
                    1 => "1 other file".to_owned(),
                    more => format!("{more} other files"),
                };
                let message = format!("{first}; {more}, too");
                Err(io::Error::new(first.kind(), message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{
        event::Move,
        made_up,
        sink::{csv::Csv, table::Table},
        units::Nanos,
    };

    fn data_set(root: &Path, force: bool) -> Partitions {
        let kind = TableKind::Moves;
        Partitions::new(Layout {
            root: root.to_owned(),
            kind,
            extension: "csv",
            force,
            most: 2,
            format: Box::new(move |writer| Ok(Box::new(Csv::new(writer, Table { kind, host: false })?))),
        })
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.push(path);
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_run_over_midnight_is_two_files() {
        let root = std::env::temp_dir().join(format!("tracer-partitions-{}", std::process::id()));
        let header = Header {
            host: "../db".to_owned(),
            clock_offset: 0,
            ..made_up::header()
        };
        let at = |at| {
            Event::Move(Move {
                at: Nanos(at),
                ..made_up::moved()
            })
        };
        let midnight = 86_400_000_000_000;
        let export = |force| {
            let there = root.exists();
            let mut set = data_set(&root, force);
            set.begin(&header)?;
            for event in [midnight - 2000, midnight, midnight - 1000, midnight + 1].map(at) {
                set.event(&event)?;
            }
            assert!(there || files(&root).is_empty());
            set.finish(&made_up::summary())?;
            set.close()
        };
        export(false).unwrap();
        let found = files(&root);
        let id = "d4f5bc26-54ad-4aa4-9b2e-0d1a5fbf5e0c-124101100";
        let expected = [("1970-01-01", midnight - 2000), ("1970-01-02", midnight)];
        let expected =
            expected.map(|(date, first)| root.join(format!("date={date}/host=%2E.%2Fdb/part-{id}-{first:x}.csv")));
        assert_eq!(found, expected);
        for path in &found {
            let text = fs::read_to_string(path).unwrap();
            assert!(text.lines().count() == 3 && !text.contains("host"), "{text}");
        }
        // Existing files are left alone, missing ones are written.
        fs::write(&found[0], "older").unwrap();
        fs::remove_file(&found[1]).unwrap();
        assert!(export(false).unwrap_err().to_string().contains("--force"));
        assert_eq!(files(&root), found);
        let length = |path: &PathBuf| fs::metadata(path).unwrap().len();
        assert!(length(&found[0]) == 5 && length(&found[1]) > 5);
        let error = export(false).unwrap_err().to_string();
        assert!(error.contains("1 other file"), "{error}");
        export(true).unwrap();
        assert_eq!(files(&root), found);
        assert!(found.iter().all(|path| length(path) > 5));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_run_that_is_not_known_has_a_place() {
        let root = std::env::temp_dir().join(format!("tracer-partitions-unknown-{}", std::process::id()));
        let mut set = data_set(&root, false);
        set.begin(&Header::unknown()).unwrap();
        set.event(&Event::Move(made_up::moved())).unwrap();
        set.abandon(&Unfinished::default()).unwrap();
        let place = format!("date={UNKNOWN}/host={UNKNOWN}/part-unknown-12a05f200.csv");
        assert_eq!(files(&root), [root.join(place)]);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_data_set_has_a_limit() {
        let root = std::env::temp_dir().join(format!("tracer-partitions-many-{}", std::process::id()));
        let mut set = data_set(&root, false);
        set.begin(&made_up::header()).unwrap();
        let days = (0..3).map(|day| {
            set.event(&Event::Move(Move {
                at: Nanos(day * 86_400_000_000_000),
                ..made_up::moved()
            }))
        });
        let outcomes: Vec<_> = days.collect();
        assert!(outcomes[0].is_ok() && outcomes[1].is_ok());
        let error = outcomes[2].as_ref().unwrap_err().to_string();
        assert!(error.contains("--max-files"), "{error}");
        drop(set);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn no_name_leaves_the_data_set() {
        assert_eq!(safe("db-1.example.org"), "db-1.example.org");
        assert_eq!(safe(".."), "%2E.");
        assert_eq!(safe("a/b=c\0%\n"), "a%2Fb%3Dc%00%25%0A");
        assert_eq!(safe("ö"), "%C3%B6");
    }
}
