//! Tables of moves, grouped by keys.
//! Input: the moves of one or several runs.

use std::sync::Arc;

use crate::{
    analysis::{
        groups::{DETAILED, Group, GroupRow, GroupTables as Sums, Groups, Key, RunFacts, Sort, time_line},
        question::{Analysis, Audience, Input, Occasion, Question},
    },
    cells,
    event::Event,
    run::header::Header,
    section::{Cell, Column, Note, Section},
    units::{Nanos, PAGE_SIZE},
};

/// The tables of a report, unless others are requested.
const TABLES: [Key; 5] = [Key::Process, Key::Vma, Key::Actor, Key::Address, Key::Second];

struct Tables {
    run: RunFacts,
    sums: Sums,
}

/// Tables are part of reports only.
pub(super) fn new(asked: &Question) -> Option<Box<dyn Analysis>> {
    let keys = if asked.by.is_empty() {
        TABLES.iter().map(|key| vec![*key]).collect()
    } else {
        vec![asked.by.clone()]
    };
    (asked.occasion == Occasion::Report).then(|| {
        let run = RunFacts {
            begun: Nanos(0),
            host: Arc::from("unknown"),
        };
        let sums = Sums::new(keys);
        Box::new(Tables { run, sums }) as Box<dyn Analysis>
    })
}

impl Analysis for Tables {
    fn begin(&mut self, header: &Header) {
        self.run = RunFacts::from(header);
        self.sums.begin_run();
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Move(moved) => self.sums.add(moved, &self.run),
            Event::Unmapped(moved) => self.sums.add_unmapped(moved, &self.run),
            Event::Failure(_) | Event::Compaction(_) => {}
        }
    }

    fn sections(&self, asked: &Question, _input: &Input) -> Vec<Section> {
        match asked.audience {
            Audience::Programs => vec![self.for_programs(asked.sort, asked.rows)],
            Audience::People => self.for_people(asked),
        }
    }
}

impl Tables {
    fn for_programs(&self, sort: Sort, most: usize) -> Section {
        let columns = ["by", "rows", "others"].map(|key| Column::name().key(key));
        let mut section = Section::table("tables", columns.to_vec());
        for groups in &self.sums.tables {
            let by = groups.asked().iter().map(|key| key.name().into()).collect();
            let (rows, others) = table(groups, sort, most, 0, false);
            section.row(cells![Cell::List(by), rows, others.map(Others::section)]);
        }
        if section.rows.iter().all(|row| row.cells.last() == Some(&Cell::None)) {
            section.columns.truncate(2);
        }
        section
    }

    fn for_people(&self, asked: &Question) -> Vec<Section> {
        let mut sections = Vec::new();
        for groups in &self.sums.tables {
            let sort = match groups.asked() {
                [Key::Second] if asked.by.is_empty() => Sort::Name,
                // A list of all addresses was not requested.
                [Key::Address] if asked.by.is_empty() && groups.most_events() < 2 => {
                    if !self.sums.are_empty() {
                        let note = Note::about("ADDRESS", cells!["no page moved twice"]);
                        sections.push(Section::notes(vec![note]).apart());
                    }
                    continue;
                }
                _ => asked.sort,
            };
            let (section, _) = table(groups, sort, asked.rows, groups.shown_from(), true);
            if !section.rows.is_empty() {
                sections.push(section);
            }
        }
        if self.sums.are_empty() && !asked.by.is_empty() {
            let note = Note::plain(cells!["no page move matches"]);
            sections.push(Section::notes(vec![note]));
        }
        sections
    }
}

/// The groups of a table that have no row of their own.
struct Others {
    /// None: some found no room, and were not counted.
    count: Option<u64>,
    sums: Group,
}

impl Others {
    /// Their sums, for programs.
    fn section(self) -> Section {
        let sums = sums_columns().into_iter().zip(sums(&self.sums));
        let sums = sums.filter_map(|(column, cell)| Some((column.key?, cell)));
        Section::record("others", [("groups", self.count.into())].into_iter().chain(sums))
    }
}

/// The first `most` groups with their keys from number `from` on, and the others if there are any. With `rest` the others
/// follow as one row, and a time line is joined into at most `most` stretches.
fn table(groups: &Groups, sort: Sort, most: usize, from: usize, rest: bool) -> (Section, Option<Others>) {
    let keys = &groups.keys()[from..];
    let mut section = Section::table(
        "rows",
        keys.iter().map(|key| column(*key)).chain(sums_columns()).collect(),
    );
    let sorted = groups.sorted(sort, most);
    let mut left_out = (0, Group::default());
    if rest && (keys, sort) == (&[Key::Second], Sort::Name) {
        let stretches = time_line::stretches(&sorted, most);
        let (shown, others) = stretches.split_at(most.min(stretches.len()));
        for (value, group) in shown {
            section.row([value.clone().into()].into_iter().chain(sums(group)).collect());
        }
        for (_, group) in others {
            leave_out(&mut left_out, group);
        }
    } else {
        let (shown, others) = sorted.split_at(most.min(sorted.len()));
        for row in shown {
            let values = row.values().skip(from).map(Cell::from);
            section.row(values.chain(sums(row.group())).collect());
        }
        for row in others {
            leave_out(&mut left_out, row.group());
        }
    }
    let (count, mut group) = left_out;
    group.merge(&groups.others);
    let shown = sorted.iter().take(most).map(GroupRow::group);
    if rest && shown.chain([&group]).any(|group| group.blackouts.are_cut()) {
        section.notes.push(Note::about(
            "note",
            cells![
                "p50 and p99 need all blackouts of a group, which are kept for the first ",
                DETAILED as u64,
                " groups with several"
            ],
        ));
    }
    let others = (group.events > 0).then(|| Others {
        count: (groups.others.events == 0).then_some(count),
        sums: group,
    });
    if let Some(others) = others.as_ref().filter(|_| rest) {
        if others.sums.pages().is_none() {
            let words = cells!["the others share pages: the sum over them is not known"];
            section.notes.push(Note::about("note", words));
        }
        let names = [Cell::Others(others.count)]
            .into_iter()
            .chain(keys.iter().skip(1).map(|_| Cell::Continued));
        section.row(names.chain(sums(&others.sums)).collect());
    }
    (section, others)
}

fn leave_out((count, sums): &mut (u64, Group), group: &Group) {
    *count += 1;
    sums.merge(group);
}

fn column(key: Key) -> Column {
    let column = Column::name().key(key.name());
    match key {
        Key::Process => column.heading("PROCESS"),
        Key::Comm => column.heading("COMM"),
        Key::Vma => column.heading("VMA"),
        Key::Reason => column.heading("REASON"),
        Key::Actor => column.heading("ACTOR").prefix("actor_"),
        Key::Nodes => column.heading("NODES"),
        Key::Order => column.heading("ORDER"),
        Key::Verdict => column.heading("VERDICT"),
        Key::Address => column.heading("ADDRESS"),
        Key::Second => column.heading("SECOND"),
        Key::Host => column.heading("HOST"),
    }
}

fn sums_columns() -> [Column; 7] {
    [
        Column::count().key("pages").heading("PAGES"),
        Column::bytes().heading("SIZE"),
        Column::count().key("mappings").heading("MAPPINGS"),
        Column::count().key("events").heading("MOVES").least(9),
        Column::duration().key("blackout_p50_ns").heading("BLACKOUT p50"),
        Column::duration().key("blackout_p99_ns").heading("p99"),
        Column::duration().key("blackout_max_ns").heading("max"),
    ]
}

/// The sums of a group, one cell for each column.
fn sums(group: &Group) -> [Cell; 7] {
    [
        group.pages().into(),
        group
            .pages()
            .map(|pages| Cell::Bytes(pages.saturating_mul(PAGE_SIZE)))
            .into(),
        group.mappings.into(),
        group.events.into(),
        Cell::duration(group.blackouts.quantile(0.5)),
        Cell::duration(group.blackouts.quantile(0.99)),
        Cell::duration(group.blackouts.longest()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        made_up,
        render::{json, text::plain},
        units::{Order, Tgid},
    };

    fn sums_by(keys: &[Key]) -> Sums {
        let run = RunFacts {
            begun: Nanos(3_000_000_000),
            host: Arc::from("db-1"),
        };
        let mut sums = Sums::new([keys.to_vec()]);
        for moved in [
            made_up::moved(),
            made_up::unknown(),
            made_up::compared(),
            made_up::moved(),
        ] {
            sums.add(&moved, &run);
        }
        sums
    }

    fn shown(sums: &Sums, sort: Sort, most: usize) -> String {
        let groups = &sums.tables[0];
        plain(&[table(groups, sort, most, groups.shown_from(), true).0])
    }

    #[test]
    fn tables() {
        let mut text: String = Key::ALL
            .iter()
            .map(|key| shown(&sums_by(&[*key]), Sort::Pages, 10))
            .collect();
        text += &shown(&sums_by(&[Key::Reason, Key::Nodes]), Sort::Name, 1);
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_time_line_is_whole() {
        let run = RunFacts {
            begun: Nanos(0),
            host: Arc::from("db-1"),
        };
        let mut sums = Sums::new([vec![Key::Second]]);
        for second in (0..100).chain([3000]) {
            let mut moved = made_up::moved();
            moved.at = Nanos(second * 1_000_000_000);
            sums.add(&moved, &run);
        }
        let stretches = |most| {
            let text = shown(&sums, Sort::Name, most);
            let rows = text.lines().skip(2);
            rows.map(|row| row.split("  ").next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(stretches(4), ["0-59 s", "60-119 s", "3000-3059 s"]);
        assert_eq!(stretches(200).len(), 101);
        // The longest stretch is a day.
        assert_eq!(stretches(0), ["1 other"]);
    }

    #[test]
    fn machines_are_told_apart_where_there_are_several() {
        let mut sums = Sums::new([vec![Key::Process, Key::Reason]]);
        let mut pages = Vec::new();
        for host in ["db-1", "db-2"] {
            let run = RunFacts {
                begun: Nanos(0),
                host: Arc::from(host),
            };
            sums.begin_run();
            sums.add(&made_up::moved(), &run);
            let text = shown(&sums, Sort::Name, 5);
            pages.push(text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>());
        }
        assert!(pages[0].len() == 2 && pages[0][0].starts_with("PROCESS"), "{pages:?}");
        assert!(
            pages[1].len() == 3 && pages[1][0].starts_with("HOST  PROCESS"),
            "{pages:?}"
        );
        assert!(
            pages[1][1].starts_with("db-1") && pages[1][2].starts_with("db-2"),
            "{pages:?}"
        );
    }

    #[test]
    fn rows_as_json() {
        let all = Key::ALL.map(|key| table(&sums_by(&[key]).tables[0], Sort::Events, 2, 0, false).0);
        let all = all.map(|section| as_json(section)["rows"].clone());
        insta::assert_snapshot!(serde_json::to_string_pretty(&all).unwrap());
    }

    #[test]
    fn programs_get_the_groups_without_a_row_as_sums() {
        let tables = Tables {
            run: RunFacts::from(&made_up::header()),
            sums: sums_by(&[Key::Process]),
        };
        let table = |most| as_json(tables.for_programs(Sort::Name, most))["tables"][0].clone();
        let (all, one) = (table(9), table(1));
        assert_eq!(all.get("others"), None);
        let rows = all["rows"].as_array().unwrap();
        assert_eq!(one["rows"].as_array().unwrap()[..], rows[..1]);
        let pages = rows[1..].iter().map(|row| row["pages"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(
            (&one["others"]["groups"], &one["others"]["pages"]),
            (&(rows.len() - 1).into(), &pages.into())
        );
    }

    #[test]
    fn a_worker_that_moves_for_a_cpuset_is_named_as_in_rows() {
        let run = RunFacts::from(&made_up::header());
        let mut sums = Sums::new([vec![Key::Actor]]);
        let mut moved = made_up::moved();
        if let Some(actor) = &mut moved.actor {
            actor.comm = Some(Arc::from("kworker/1:2+cpuset_migrate_mm"));
        }
        sums.add(&moved, &run);
        assert!(shown(&sums, Sort::Pages, 1).contains("cpuset (kworker/1:2) "));
        let rows = as_json(table(&sums.tables[0], Sort::Pages, 1, 0, false).0);
        assert_eq!(rows["rows"][0]["actor_comm"], "kworker/1:2+cpuset_migrate_mm");
    }

    #[test]
    fn pages_that_others_share_are_in_no_sum() {
        let run = RunFacts {
            begun: Nanos(0),
            host: Arc::from("db-1"),
        };
        let mut sums = Sums::new([vec![Key::Process], vec![Key::Comm], vec![Key::Second]]);
        // A page that three processes with two names map, at the turn of a second, and a page of a fourth process.
        let mappings = [(1, "a", 1, 1), (2, "a", 2, 1), (3, "b", 3, 2), (4, "c", 1, 2)];
        for (tgid, comm, nth, second) in mappings {
            let mut moved = made_up::moved();
            moved.at = Nanos(second * 1_000_000_000);
            moved.order = Order(0);
            (moved.nth, moved.pages) = (Some(nth), 1);
            if let Some(owner) = &mut moved.owner {
                owner.tgid = Tgid(tgid);
                owner.comm = Some(Arc::from(comm));
            }
            sums.add(&moved, &run);
        }
        let pages = |number: usize, most| {
            let (section, others) = table(&sums.tables[number], Sort::Name, most, 0, false);
            let rows = section.rows.iter().map(|row| {
                row.cells[section
                    .columns
                    .iter()
                    .position(|column| column.key == Some("pages"))
                    .unwrap()]
                .clone()
            });
            (rows.collect::<Vec<_>>(), others.map(|others| others.sums.pages()))
        };
        let one = || Cell::Count(1);
        // Three processes share the page, of which all, two, one or none have no row.
        assert_eq!(pages(0, 0), (vec![], Some(None)));
        assert_eq!(pages(0, 1), (vec![one()], Some(None)));
        assert_eq!(pages(0, 2), (vec![one(), one()], Some(Some(2))));
        assert_eq!(pages(0, 3), (vec![one(); 3], Some(Some(1))));
        assert_eq!(pages(1, 1), (vec![one()], Some(Some(2))));
        // A page is in one second, however many mappings it has.
        assert_eq!(pages(2, 9), (vec![one(), one()], None));
        assert_eq!(pages(2, 0), (vec![], Some(Some(2))));
    }

    fn as_json(section: Section) -> serde_json::Value {
        let mut text = Vec::new();
        json::object(&mut text, &[section]).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}
