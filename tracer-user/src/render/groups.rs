//! Tables of moves by what they have in common.
//! Input: groups.

use std::fmt;

use serde_json::{Map, Value as Json, json};

use crate::{
    analysis::groups::{Group, Groups, Key, Sort, Value},
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
        Value::Second(second) => format!("{second} s"),
    }
}

/// Writes the `most` first groups under their heading, the rest as one line.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl fmt::Write, groups: &Groups, sort: Sort, most: usize) -> fmt::Result {
    let rows = groups.sorted(sort);
    if rows.is_empty() {
        return Ok(());
    }
    let names: Vec<Vec<String>> = rows
        .iter()
        .take(most)
        .map(|(values, _)| values.iter().map(words).collect())
        .collect();
    let mut widths: Vec<usize> = groups.keys.iter().map(|key| key.name().len()).collect();
    for name in &names {
        for (width, word) in widths.iter_mut().zip(name) {
            *width = (*width).max(word.chars().count());
        }
    }
    writeln!(out)?;
    for (key, width) in groups.keys.iter().zip(&widths) {
        write!(out, "{:<width$}  ", key.name().to_uppercase())?;
    }
    writeln!(
        out,
        "{:>11} {:>10} {:>11} {:>13} {:>8} {:>8}",
        "PAGES", "SIZE", "EVENTS", "BLACKOUT p50", "p99", "max"
    )?;
    for (name, (_, group)) in names.iter().zip(&rows) {
        for (word, width) in name.iter().zip(&widths) {
            write!(out, "{word:<width$}  ")?;
        }
        numbers(out, group)?;
    }
    let mut rest = groups.others.clone();
    let left_out = rows.len().saturating_sub(most);
    for (_, group) in rows.iter().skip(most) {
        rest.events += group.events;
        rest.pages = rest.pages.saturating_add(group.pages);
        rest.longest = rest.longest.max(group.longest);
    }
    if rest.events > 0 {
        let width = widths.iter().map(|width| width + 2).sum::<usize>() - 2;
        let name = if groups.others.events > 0 {
            "all others".to_owned()
        } else {
            format!("{} others", Count(left_out as u64))
        };
        write!(out, "{name:<width$}  ")?;
        numbers(out, &rest)?;
    }
    Ok(())
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

/// The `most` first groups as an array of objects.
#[must_use]
pub fn json(groups: &Groups, sort: Sort, most: usize) -> Json {
    let rows = groups.sorted(sort);
    let rows = rows.iter().take(most).map(|(values, group)| {
        let mut row = Map::new();
        for (key, value) in groups.keys.iter().zip(*values) {
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
        Value::Second(second) => json!({ name: second }),
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
    use crate::{analysis::groups::Run, render::made_up, units::Nanos};

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
    fn rows_as_json() {
        let all: Vec<Json> = Key::ALL
            .iter()
            .map(|key| json(&groups(&[*key]), Sort::Events, 2))
            .collect();
        insta::assert_snapshot!(serde_json::to_string_pretty(&all).unwrap());
    }
}
