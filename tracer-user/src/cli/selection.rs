//! The selection of recordings and of their events: the arguments that `cat` and `report` share.
//! Input: words of the command line.

use std::path::PathBuf;

use clap::{ValueEnum, builder::PossibleValue};

use crate::{
    analysis::{
        groups::Key,
        selection::{Condition, Selection},
    },
    cli::{error::Refused, values},
    units::Nanos,
};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Recordings, the files of a rotation in any order; - is standard input
    #[arg(value_name = "FILE", default_value = "tracer.data")]
    pub files: Vec<PathBuf>,

    /// Only moves of these processes (comma-separated)
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// Only events at this time after the begin of the run, or later
    #[arg(long, value_name = "SECONDS", value_parser = values::moment)]
    pub since: Option<Nanos>,

    /// Only events before this time after the begin of the run
    #[arg(long, value_name = "SECONDS", value_parser = values::moment)]
    pub until: Option<Nanos>,

    /// Only moves whose KEY is VALUE as tables show it, or a process's number or name; several must all hold
    #[arg(long = "where", value_name = "KEY=VALUE", value_parser = condition)]
    pub conditions: Vec<(Key, String)>,
}

impl Args {
    /// The selected events.
    ///
    /// # Errors
    /// When no event can match.
    pub(super) fn selection(&self) -> Result<Selection, Refused> {
        if self.since.zip(self.until).is_some_and(|(since, until)| since >= until) {
            let nothing = "--until is not after --since: nothing is between them";
            return Err(Refused(nothing.to_owned()));
        }
        let conditions = self.conditions.iter().cloned();
        let conditions = conditions.map(|(key, value)| Condition::new(key, value));
        let (since, until) = (self.since, self.until);
        Ok(Selection::new(self.pid.clone(), since, until, conditions.collect()))
    }
}

impl ValueEnum for Key {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// A key and its required value. Impossible values are refused; other values are compared with the recordings.
fn condition(text: &str) -> Result<(Key, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE, as in reason=compaction")?;
    let known = || Key::ALL.map(Key::name).join(", ");
    let key = Key::from_str(key, true).map_err(|_| format!("no key {key:?}; there are {}", known()))?;
    match key {
        Key::Order => values::order(value).map(drop)?,
        Key::Nodes if !value.contains("->") => return Err("nodes are OLD->NEW, as in nodes=0->1".to_owned()),
        _ => {}
    }
    Ok((key, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_keys_with_values() {
        assert_eq!(condition("nodes=0->1"), Ok((Key::Nodes, "0->1".to_owned())));
        assert_eq!(condition("comm=a=b"), Ok((Key::Comm, "a=b".to_owned())));
        for order in ["order=9", "order=2M"] {
            assert!(condition(order).is_ok());
        }
        for bad in ["comm", "colour=red", "nodes=1", "order=huge"] {
            assert!(condition(bad).is_err(), "{bad}");
        }
    }
}
