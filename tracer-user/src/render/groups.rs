//! Tables of moves by what they have in common.
//! Input: groups.

use std::{fmt, slice};

use serde_json::{Map, Value as Json, json};

use crate::{
    analysis::groups::{self, Group, Groups, Key, Sort, Value},
    render::{
        escape::Printable,
        quantity::{Bytes, Count, Duration, PageSize},
        rows,
    },
    units::{NodeId, PAGE_SIZE},
};

/// A value as rows show it.
#[must_use]
pub fn words(value: &Value) -> String {
    let node = |node: &Option<NodeId>| node.map_or_else(|| "?".to_owned(), |node| node.to_string());
    match value {
        Value::Nothing => "unknown".to_owned(),
        Value::Process(tgid, Some(comm)) => format!("{}[{tgid}]", Printable(comm)),
        Value::Process(tgid, None) => format!("?[{tgid}]"),
        Value::Text(text) => Printable(text).to_string(),
        Value::Reason(reason) => rows::reason(reason),
        Value::Nodes(old, new) => format!("{}->{}", node(old), node(new)),
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
        Value::Nothing | Value::Reason(_) | Value::Nodes(..) | Value::Verdict(_) => false,
    };
    or || words(value) == text
}

/// Writes groups under their heading: at most so many, the rest as one line. A time line is made of as many stretches
/// as there may be lines.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl fmt::Write, groups: &Groups, sort: Sort, most: usize) -> fmt::Result {
    let sorted = groups.sorted(sort);
    if sorted.is_empty() {
        return Ok(());
    }
    let from = groups.shown_from();
    let stretches = match (&groups.keys()[from..], sort) {
        ([Key::Second], Sort::Name) => groups::time_line(&sorted, most),
        _ => Vec::new(),
    };
    let rows: Vec<(&[Value], &Group)> = if stretches.is_empty() {
        sorted.iter().map(|(values, group)| (&values[from..], *group)).collect()
    } else {
        stretches
            .iter()
            .map(|(value, group)| (slice::from_ref(value), group))
            .collect()
    };
    table(out, &groups.keys()[from..], &rows, &groups.others, most)
}

fn table(
    out: &mut impl fmt::Write,
    keys: &[Key],
    rows: &[(&[Value], &Group)],
    others: &Group,
    most: usize,
) -> fmt::Result {
    let (shown, left_out) = rows.split_at(most.min(rows.len()));
    let names: Vec<Vec<String>> = shown
        .iter()
        .map(|(values, _)| values.iter().map(words).collect())
        .collect();
    let mut widths: Vec<usize> = keys.iter().map(|key| key.name().len()).collect();
    for name in &names {
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
        "{:>11} {:>10} {:>11} {:>13} {:>8} {:>8}",
        "PAGES", "SIZE", "EVENTS", "BLACKOUT p50", "p99", "max"
    )?;
    for (name, (_, group)) in names.iter().zip(shown) {
        for (word, width) in name.iter().zip(&widths) {
            write!(out, "{word:<width$}  ")?;
        }
        numbers(out, group)?;
    }
    let mut rest = others.clone();
    for (_, group) in left_out {
        rest.merge(group);
    }
    // Of what found no place nobody knows how many they are.
    let name = match (rest.events, others.events) {
        (0, _) => return Ok(()),
        (_, 0) => format!("{} others", Count(left_out.len() as u64)),
        (..) => "all others".to_owned(),
    };
    let width = widths.iter().map(|width| width + 2).sum::<usize>() - 2;
    write!(out, "{name:<width$}  ")?;
    numbers(out, &rest)
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
        "{:>11} {:>10} {:>11} {:>13} {:>8} {longest:>8}",
        Count(group.pages).to_string(),
        Bytes(group.pages.saturating_mul(PAGE_SIZE)).to_string(),
        Count(group.events).to_string(),
        quantile(0.5),
        quantile(0.99),
    )
}

/// The first groups, at most so many, as an array of objects. Those of processes tell their machine.
#[must_use]
pub fn json(groups: &Groups, sort: Sort, most: Option<usize>) -> Json {
    let rows = groups.sorted(sort);
    let rows = rows.iter().take(most.unwrap_or(usize::MAX)).map(|(values, group)| {
        let mut row = Map::new();
        for (key, value) in groups.keys().iter().zip(*values) {
            row.extend(keys(*key, value));
        }
        let quantile = |q| group.quantile(q).map(|nanos| nanos.0);
        row.insert("pages".to_owned(), group.pages.into());
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
        Value::Process(tgid, comm) if key == Key::Actor => {
            json!({ "actor_pid": tgid.0, "actor_comm": comm.as_deref() })
        }
        Value::Process(tgid, comm) => json!({ "pid": tgid.0, "comm": comm.as_deref() }),
        Value::Text(text) => json!({ name: &**text }),
        Value::Reason(reason) => json!({ name: reason.to_string() }),
        Value::Nodes(old, new) => json!({ "old_node": old.map(|node| node.0), "new_node": new.map(|node| node.0) }),
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
        analysis::groups::Run,
        render::made_up,
        units::{Nanos, Tgid},
    };

    fn groups(keys: &[Key]) -> Groups {
        let run = Run {
            begun: Nanos(3_000_000_000),
            host: Arc::from("db-1"),
        };
        let mut groups = Groups::new(keys.to_vec());
        for moved in [made_up::moved(), made_up::unknown(), made_up::moved()] {
            groups.add(&moved, &run);
        }
        groups
    }

    #[test]
    fn tables() {
        let mut text = String::new();
        for key in Key::ALL {
            write(&mut text, &groups(&[key]), Sort::Pages, 10).unwrap();
        }
        write(&mut text, &groups(&[Key::Reason, Key::Nodes]), Sort::Name, 1).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_time_line_is_whole() {
        let run = Run {
            begun: Nanos(0),
            host: Arc::from("db-1"),
        };
        let mut groups = Groups::new(vec![Key::Second]);
        for second in (0..100).chain([3000]) {
            let mut moved = made_up::moved();
            moved.at = Nanos(second * 1_000_000_000);
            groups.add(&moved, &run);
        }
        let stretches = |most| {
            let mut text = String::new();
            write(&mut text, &groups, Sort::Name, most).unwrap();
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
        let mut groups = Groups::new(vec![Key::Process, Key::Reason]);
        let mut shown = Vec::new();
        for host in ["db-1", "db-2"] {
            let run = Run {
                begun: Nanos(0),
                host: Arc::from(host),
            };
            groups.add(&made_up::moved(), &run);
            let mut text = String::new();
            write(&mut text, &groups, Sort::Name, 5).unwrap();
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
            .map(|key| json(&groups(&[*key]), Sort::Events, Some(2)))
            .collect();
        insta::assert_snapshot!(serde_json::to_string_pretty(&all).unwrap());
    }
}
