//! Tables of moves by what they have in common.
//! Input: groups.

use std::fmt;

use serde_json::{Map, Value as Json, json};

use crate::{
    analysis::groups::{Group, Groups, Key, Row, Sort, Value, time_line},
    escape::Printable,
    event::Residence,
    render::{
        quantity::{Bytes, Count, Duration, PageSize},
        rows,
    },
    units::PAGE_SIZE,
};

/// A value as rows show it.
#[must_use]
pub fn words(value: &Value) -> String {
    match value {
        Value::Nothing => "unknown".to_owned(),
        Value::Nobody => "nobody".to_owned(),
        Value::Process(tgid, Some(comm)) => format!("{}[{tgid}]", Printable(comm)),
        Value::Process(tgid, None) => format!("?[{tgid}]"),
        Value::Text(text) => Printable(text).to_string(),
        Value::Reason(reason) => rows::reason(reason),
        Value::Nodes(old, new) => format!("{old}->{new}"),
        Value::Order(order) => PageSize(*order).to_string(),
        Value::Verdict(verdict) => verdict.words().to_owned(),
        Value::Address(Some(tgid), vaddr) => format!("{vaddr} of {tgid}"),
        Value::Address(None, vaddr) => vaddr.to_string(),
        Value::Seconds(first, last) if first == last => format!("{first} s"),
        Value::Seconds(first, last) => format!("{first}-{last} s"),
    }
}

/// Whether somebody may call the value so: as rows show it, or a process by its number or its name.
#[must_use]
pub fn is_called(value: &Value, text: &str) -> bool {
    let or = match value {
        Value::Process(tgid, comm) => tgid.to_string() == text || comm.as_deref() == Some(text),
        Value::Text(name) => &**name == text,
        Value::Seconds(second, _) => second.to_string() == text,
        Value::Order(order) => order.0.to_string() == text,
        Value::Address(_, vaddr) => vaddr.to_string() == text,
        Value::Nothing | Value::Nobody | Value::Reason(_) | Value::Nodes(..) | Value::Verdict(_) => false,
    };
    or || words(value) == text
}

/// Writes groups under their heading: at most so many, the rest as one line. A time line is made of as many stretches
/// as there may be lines.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl fmt::Write, groups: &Groups, sort: Sort, most: usize) -> fmt::Result {
    let sorted = groups.sorted(sort, most);
    if sorted.is_empty() {
        return Ok(());
    }
    let from = groups.shown_from();
    let keys = &groups.keys()[from..];
    let mut table = Table::default();
    if (keys, sort) == (&[Key::Second], Sort::Name) {
        let stretches = time_line::stretches(&sorted, most);
        let (shown, left_out) = stretches.split_at(most.min(stretches.len()));
        table
            .rows
            .extend(shown.iter().map(|(value, group)| (vec![words(value)], group.clone())));
        for (_, group) in left_out {
            table.leave_out(group);
        }
    } else {
        let (shown, left_out) = sorted.split_at(most.min(sorted.len()));
        let names = |row: &Row<'_>| row.values().skip(from).map(|value| words(&value)).collect();
        table
            .rows
            .extend(shown.iter().map(|row| (names(row), row.group().clone())));
        for row in left_out {
            table.leave_out(row.group());
        }
    }
    table.write(out, keys, &groups.others)
}

/// What a table shows.
#[derive(Default)]
struct Table {
    rows: Vec<(Vec<String>, Group)>,
    /// The sums of those that it leaves out, and how many they are.
    rest: Group,
    left_out: u64,
}

impl Table {
    fn leave_out(&mut self, group: &Group) {
        self.rest.merge(group);
        self.left_out += 1;
    }

    fn write(mut self, out: &mut impl fmt::Write, keys: &[Key], others: &Group) -> fmt::Result {
        let mut widths: Vec<usize> = keys.iter().map(|key| key.name().len()).collect();
        for (name, _) in &self.rows {
            for (width, word) in widths.iter_mut().zip(name) {
                *width = (*width).max(word.chars().count());
            }
        }
        writeln!(out)?;
        for (key, width) in keys.iter().zip(&widths) {
            write!(out, "{:<width$}  ", key.name().to_uppercase())?;
        }
        writeln!(
            out,
            "{:>11} {:>10} {:>11} {:>9} {:>13} {:>8} {:>8}",
            "PAGES", "SIZE", "MAPPINGS", "EVENTS", "BLACKOUT p50", "p99", "max"
        )?;
        for (name, group) in &self.rows {
            for (word, width) in name.iter().zip(&widths) {
                write!(out, "{word:<width$}  ")?;
            }
            numbers(out, group)?;
        }
        self.rest.merge(others);
        // Of what found no place nobody knows how many they are.
        let name = match (self.rest.events, others.events) {
            (0, _) => return Ok(()),
            (_, 0) => format!("{} others", Count(self.left_out)),
            (..) => "all others".to_owned(),
        };
        let width = widths.iter().map(|width| width + 2).sum::<usize>() - 2;
        write!(out, "{name:<width$}  ")?;
        numbers(out, &self.rest)
    }
}

fn numbers(out: &mut impl fmt::Write, group: &Group) -> fmt::Result {
    let quantile = |q| {
        let nanos = group.quantile(q);
        nanos.map_or_else(|| "-".to_owned(), |nanos| Duration(nanos).to_string())
    };
    let longest = group
        .longest
        .map_or_else(|| "-".to_owned(), |nanos| Duration(nanos).to_string());
    writeln!(
        out,
        "{:>11} {:>10} {:>11} {:>9} {:>13} {:>8} {longest:>8}",
        Count(group.pages).to_string(),
        Bytes(group.pages.saturating_mul(PAGE_SIZE)).to_string(),
        Count(group.mappings).to_string(),
        Count(group.events).to_string(),
        quantile(0.5),
        quantile(0.99),
    )
}

/// The first groups, at most so many, as an array of objects. Those of processes tell their machine.
#[must_use]
pub fn json(groups: &Groups, sort: Sort, most: Option<usize>) -> Json {
    let most = most.unwrap_or(usize::MAX);
    let rows = groups.sorted(sort, most);
    let rows = rows.iter().take(most).map(|of| {
        let (mut row, group) = (Map::new(), of.group());
        for (key, value) in groups.keys().iter().zip(of.values()) {
            row.extend(keys(*key, &value));
        }
        let quantile = |q| group.quantile(q).map(|nanos| nanos.0);
        row.insert("pages".to_owned(), group.pages.into());
        row.insert("mappings".to_owned(), group.mappings.into());
        row.insert("events".to_owned(), group.events.into());
        row.insert("blackout_p50_ns".to_owned(), quantile(0.5).into());
        row.insert("blackout_p99_ns".to_owned(), quantile(0.99).into());
        row.insert("blackout_max_ns".to_owned(), group.longest.map(|nanos| nanos.0).into());
        Json::Object(row)
    });
    rows.collect()
}

/// A value by the keys that it has in the lines of `--json`.
fn keys(key: Key, value: &Value) -> Map<String, Json> {
    let name = key.name();
    let object = match value {
        Value::Nothing => json!({ name: null }),
        Value::Nobody => json!({ name: "nobody" }),
        Value::Process(tgid, comm) if key == Key::Actor => {
            json!({ "actor_pid": tgid.0, "actor_comm": comm.as_deref() })
        }
        Value::Process(tgid, comm) => json!({ "pid": tgid.0, "comm": comm.as_deref() }),
        Value::Text(text) => json!({ name: &**text }),
        Value::Reason(reason) => json!({ name: reason.to_string() }),
        Value::Nodes(old, new) => {
            let number = |residence: &Residence| residence.node().map(|node| node.0);
            json!({ "old_node": number(old), "new_node": number(new) })
        }
        Value::Order(order) => json!({ name: order.0 }),
        Value::Verdict(verdict) => json!({ name: verdict.name() }),
        Value::Address(tgid, vaddr) => json!({ "pid": tgid.map(|tgid| tgid.0), "vaddr": vaddr.to_string() }),
        Value::Seconds(first, _) => json!({ name: first }),
    };
    match object {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        analysis::groups::{Run, Tables},
        made_up,
        units::{Nanos, Tgid},
    };

    fn groups(keys: &[Key]) -> Tables {
        let run = Run {
            begun: Nanos(3_000_000_000),
            host: Arc::from("db-1"),
        };
        let mut tables = Tables::new([keys.to_vec()]);
        for moved in [made_up::moved(), made_up::unknown(), made_up::moved()] {
            tables.add(&moved, &run);
        }
        tables
    }

    #[test]
    fn tables() {
        let mut text = String::new();
        for key in Key::ALL {
            write(&mut text, &groups(&[key]).tables[0], Sort::Pages, 10).unwrap();
        }
        write(&mut text, &groups(&[Key::Reason, Key::Nodes]).tables[0], Sort::Name, 1).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_time_line_is_whole() {
        let run = Run {
            begun: Nanos(0),
            host: Arc::from("db-1"),
        };
        let mut groups = Tables::new([vec![Key::Second]]);
        for second in (0..100).chain([3000]) {
            let mut moved = made_up::moved();
            moved.at = Nanos(second * 1_000_000_000);
            groups.add(&moved, &run);
        }
        let stretches = |most| {
            let mut text = String::new();
            write(&mut text, &groups.tables[0], Sort::Name, most).unwrap();
            let rows = text.lines().skip(2);
            rows.map(|row| row.split("  ").next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(stretches(4), ["0-59 s", "60-119 s", "3000-3059 s"]);
        assert_eq!(stretches(200).len(), 101);
        // Nothing is longer than a day.
        assert_eq!(stretches(0), ["1 others"]);
    }

    #[test]
    fn machines_are_told_apart_where_there_are_several() {
        let mut groups = Tables::new([vec![Key::Process, Key::Reason]]);
        let mut shown = Vec::new();
        for host in ["db-1", "db-2"] {
            let run = Run {
                begun: Nanos(0),
                host: Arc::from(host),
            };
            groups.begin_run();
            groups.add(&made_up::moved(), &run);
            let mut text = String::new();
            write(&mut text, &groups.tables[0], Sort::Name, 5).unwrap();
            shown.push(text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>());
        }
        assert!(shown[0].len() == 2 && shown[0][0].starts_with("PROCESS"), "{shown:?}");
        assert!(
            shown[1].len() == 3 && shown[1][0].starts_with("HOST  PROCESS"),
            "{shown:?}"
        );
        assert!(
            shown[1][1].starts_with("db-1") && shown[1][2].starts_with("db-2"),
            "{shown:?}"
        );
    }

    #[test]
    fn values_have_short_names() {
        let process = Value::Process(Tgid(4711), Some(Arc::from("postgres")));
        for text in ["4711", "postgres", "postgres[4711]"] {
            assert!(is_called(&process, text), "{text}");
        }
        assert!(!is_called(&process, "471") && !is_called(&Value::Nothing, ""));
        assert!(is_called(&Value::Nothing, "unknown") && is_called(&Value::Seconds(7, 7), "7"));
    }

    #[test]
    fn rows_as_json() {
        let all: Vec<Json> = Key::ALL
            .iter()
            .map(|key| json(&groups(&[*key]).tables[0], Sort::Events, Some(2)))
            .collect();
        insta::assert_snapshot!(serde_json::to_string_pretty(&all).unwrap());
    }
}
