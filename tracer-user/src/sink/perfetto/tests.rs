//! Tests what a reader sees in a trace: packets are resolved to lines.
//! Input: made-up events.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use super::{
    Perfetto,
    proto::reader::{Value, fields},
};
use crate::{
    event::{Event, Move, Task},
    made_up,
    run::{header::Header, kept::Unfinished},
    sink::{Sink, export::Export},
    units::{Nanos, Tgid, Tid, VirtAddr},
};

/// The state of a sequence that the next packet refers to.
#[derive(Default)]
struct Known {
    /// The interned texts by table and number.
    words: BTreeMap<(u64, u64), String>,
    /// Full names, with those of the parents.
    tracks: BTreeMap<u64, String>,
}

type Fields<'a> = Vec<(u64, Value<'a>)>;

fn number(of: &Fields<'_>, wanted: u64) -> Option<u64> {
    of.iter().find_map(|(field, value)| match value {
        Value::Number(value) | Value::Fixed(value) if *field == wanted => Some(*value),
        _ => None,
    })
}

fn each<'a>(of: &Fields<'a>, wanted: u64) -> Vec<&'a [u8]> {
    let bytes = |(field, value): &(u64, Value<'a>)| match value {
        Value::Bytes(bytes) if *field == wanted => Some(*bytes),
        _ => None,
    };
    of.iter().filter_map(bytes).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Known {
    fn learn(&mut self, packet: &Fields<'_>) {
        for interned in each(packet, 12) {
            for (table, entry) in fields(interned) {
                let Value::Bytes(entry) = entry else {
                    panic!("table {table}")
                };
                let entry = fields(entry);
                let word = text(each(&entry, 2)[0]);
                let before = self.words.insert((table, number(&entry, 1).unwrap()), word);
                assert_eq!(before, None, "written twice");
            }
        }
    }

    fn line(&mut self, packet: &Fields<'_>) -> String {
        let mut line = String::new();
        if number(packet, 13) == Some(1) {
            self.words.clear();
            self.learn(packet);
            let defaults = fields(each(packet, 59)[0]);
            return format!("cleared, clock {}", number(&defaults, 58).unwrap());
        }
        self.learn(packet);
        for snapshot in each(packet, 6) {
            let snapshot = fields(snapshot);
            for clock in each(&snapshot, 1).into_iter().map(fields) {
                let _ = write!(
                    line,
                    "clock {} {} ",
                    number(&clock, 1).unwrap(),
                    number(&clock, 2).unwrap()
                );
            }
            let _ = write!(line, "primary {}", number(&snapshot, 2).unwrap());
        }
        for track in each(packet, 60).into_iter().map(fields) {
            let mut name = number(&track, 5).map_or_else(String::new, |above| format!("{} / ", self.tracks[&above]));
            for process in each(&track, 3).into_iter().map(fields) {
                let pid = number(&process, 1).unwrap();
                let _ = write!(name, "{} (process {pid})", text(each(&process, 6)[0]));
            }
            for own in each(&track, 2) {
                name.push_str(&text(own));
            }
            for counter in each(&track, 8).into_iter().map(fields) {
                let _ = write!(name, " (counter of {})", text(each(&counter, 6)[0]));
            }
            let _ = write!(line, "track {name}");
            self.tracks.insert(number(&track, 1).unwrap(), name);
        }
        for event in each(packet, 11).into_iter().map(fields) {
            self.event(&mut line, packet, &event);
        }
        line
    }

    fn event(&self, line: &mut String, packet: &Fields<'_>, event: &Fields<'_>) {
        let kind = ["", "begin", "end", "instant", "counter"][usize::try_from(number(event, 9).unwrap()).unwrap()];
        let track = &self.tracks[&number(event, 11).unwrap()];
        let _ = write!(line, "{} {kind} on {track}", number(packet, 8).unwrap());
        for (field, value) in event {
            let _ = match (field, value) {
                (3, Value::Number(category)) => write!(line, ", {}", self.words[&(1, *category)]),
                (10, Value::Number(name)) => write!(line, " {:?}", self.words[&(2, *name)]),
                (30, Value::Number(value)) => write!(line, " = {value}"),
                (47, Value::Fixed(flow)) => write!(line, ", flow {flow} from here"),
                (48, Value::Fixed(flow)) => write!(line, ", flow {flow} to here"),
                (4, Value::Bytes(annotation)) => self.annotation(line, &fields(annotation)),
                (9 | 11, _) => Ok(()),
                other => panic!("{other:?}"),
            };
        }
    }

    fn annotation(&self, line: &mut String, annotation: &Fields<'_>) -> std::fmt::Result {
        let [(1, Value::Number(name)), (kind, Value::Number(value))] = annotation[..] else {
            panic!("{annotation:?}")
        };
        let name = &self.words[&(3, name)];
        match kind {
            2 => write!(line, ", {name} {}", value == 1),
            4 => write!(line, ", {name} {}", value.cast_signed()),
            7 => write!(line, ", {name} {value:#x}"),
            17 => write!(line, ", {name} {}", self.words[&(29, value)]),
            other => panic!("field {other}"),
        }
    }
}

/// The packets, one line each: sequence, machine, and content.
fn lines(feed: impl FnOnce(&mut Perfetto<&mut Vec<u8>>)) -> Vec<String> {
    let mut out = Vec::new();
    let mut perfetto = Perfetto::new(&mut out);
    feed(&mut perfetto);
    perfetto.close().unwrap();
    let mut known: BTreeMap<u64, Known> = BTreeMap::new();
    let packets = fields(&out);
    packets
        .iter()
        .map(|packet| {
            let (1, Value::Bytes(packet)) = packet else {
                panic!("{packet:?}")
            };
            let packet = fields(packet);
            let sequence = number(&packet, 10).unwrap();
            let machine = number(&packet, 98).unwrap_or_default();
            let line = known.entry(sequence).or_default().line(&packet);
            format!("{} {machine} {line}", sequence - super::packets::SEQUENCES)
        })
        .collect()
}

#[test]
fn every_packet() {
    let lines = lines(|perfetto| {
        perfetto.begin(&made_up::header()).unwrap();
        for moved in [made_up::moved(), made_up::unknown(), made_up::compared()] {
            perfetto.event(&Event::Move(moved)).unwrap();
        }
        for event in made_up::others() {
            assert!(perfetto.takes(&event));
            perfetto.event(&event).unwrap();
        }
        perfetto.interval(&made_up::interval()).unwrap();
        perfetto.finish(&made_up::summary()).unwrap();
    });
    insta::assert_snapshot!("every_packet", lines.join("\n"));
}

#[test]
fn a_pid_of_two_runs_is_two_processes_and_a_rotation_is_one_run() {
    let other = Header {
        host: "db-2".to_owned(),
        begun: Nanos(7),
        clock_offset: i128::MIN,
        ..made_up::header()
    };
    let headers = [
        made_up::header(),
        made_up::header(),
        other,
        Header::unknown(),
        Header::unknown(),
    ];
    let lines = lines(|perfetto| {
        for header in &headers {
            perfetto.begin(header).unwrap();
            perfetto.event(&Event::Move(made_up::moved())).unwrap();
            perfetto.abandon(&Unfinished::default()).unwrap();
        }
    });
    let found = |part: &str| -> Vec<&str> {
        let found = lines.iter().filter(|line| line.contains(part));
        found.map(String::as_str).collect()
    };
    assert_eq!(
        found("track ")
            .into_iter()
            .filter(|line| line.ends_with("(process 4194303)"))
            .collect::<Vec<_>>(),
        [
            "1 0 track db-1: fifteen-letters (process 4194303)",
            "2 2 track db-2: fifteen-letters (process 4194303)",
            "3 3 track fifteen-letters (process 4194303)",
            "4 4 track fifteen-letters (process 4194303)",
        ]
    );
    assert_eq!(
        found("primary"),
        [
            "1 0 clock 64 4900000000 clock 1 1700000004900000000 primary 1",
            "2 2 clock 64 7 clock 1 7 primary 1",
            "3 3 clock 64 0 clock 1 0 primary 1",
            "4 4 clock 64 0 clock 1 0 primary 1",
        ]
    );
    let begins = lines.iter().filter(|line| line.contains(" begin on "));
    assert_eq!(begins.count(), headers.len());
}

#[test]
fn slices_of_a_track_do_not_overlap() {
    let lines = lines(|perfetto| {
        perfetto.begin(&made_up::header()).unwrap();
        for page in 0..100 {
            let moved = Move {
                at: Nanos(1_000 + page),
                blackout: Some(Nanos(50)),
                ..made_up::moved()
            };
            perfetto.event(&Event::Move(moved)).unwrap();
        }
    });
    let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    // The 32 lanes are free again 50 ns later.
    assert_eq!(count("track db-1: fifteen-letters (process 4194303) / moves"), 32 + 1);
    assert_eq!((count(" begin on "), count(" end on ")), (64, 64));
    assert_eq!(
        count("instant on db-1: fifteen-letters (process 4194303) / moves as instants"),
        36
    );
}

#[test]
fn names_that_mean_harm_and_names_that_are_too_many() {
    const MANY: u32 = 1500;
    let lines = lines(|perfetto| {
        perfetto.begin(&made_up::header()).unwrap();
        for number in 0..MANY {
            let moved = Move {
                at: Nanos(u64::from(number) * 1_000_000),
                owner: Some(Task {
                    tgid: Tgid(number % 7),
                    tid: Tid(number % 7),
                    // All texts are forgotten together, after a thousand of these names.
                    comm: Some(Arc::from(format!("\u{1b}[31m{number:08000}"))),
                }),
                vaddr: VirtAddr(u64::MAX),
                ..made_up::moved()
            };
            perfetto.event(&Event::Move(moved)).unwrap();
        }
    });
    // Each packet can be read, whatever was forgotten before it.
    let begins: Vec<&String> = lines.iter().filter(|line| line.contains(" begin on ")).collect();
    assert_eq!(begins.len(), 1500);
    assert!(begins[1499].contains(", comm \\x1b[31m0000"));
    assert!(begins[1499].contains("1499, owner_source pagemap, vaddr 0xffffffffffffffff, "));
    assert_eq!(lines.iter().filter(|line| line.contains("cleared")).count(), 2);
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')));
}

#[test]
fn the_counter_has_a_shared_page_once() {
    let lines = lines(|perfetto| {
        perfetto.begin(&made_up::header()).unwrap();
        for nth in 1..=3 {
            let nth = Some(nth);
            perfetto
                .event(&Event::Move(Move {
                    nth,
                    ..made_up::moved()
                }))
                .unwrap();
        }
        perfetto.finish(&made_up::summary()).unwrap();
    });
    let counted: Vec<_> = lines
        .iter()
        .filter_map(|line| line.split_once("(counter of pages) = "))
        .collect();
    assert_eq!(counted.first().map(|(_, pages)| *pages), Some("2"), "{counted:?}");
}
