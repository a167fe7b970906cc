//! Selects the events that a report is about.
//! Input: the arguments of a report; events.

use std::sync::Arc;

use crate::{
    analysis::groups::{Key, Run, Value},
    event::{Event, Move, failure::Failure, unmapped::UnmappedMove},
    render::text::words,
    run::header::Header,
    section::Cell,
    units::Nanos,
};

/// The conditions for an event; all of them must hold.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The event is about one of these processes; empty for any process.
    pub pids: Vec<u32>,
    /// The event came no earlier than this after the begin of its run.
    pub since: Option<Nanos>,
    /// The event came before this time after the begin of its run.
    pub until: Option<Nanos>,
    /// A key has this value, as tables show it.
    pub conditions: Vec<(Key, String)>,
    /// The run whose events come.
    run: Run,
}

impl Default for Selection {
    fn default() -> Self {
        Self::new(Vec::new(), None, None, Vec::new())
    }
}

impl Selection {
    /// Makes a selection, before any run has begun.
    #[must_use]
    pub fn new(pids: Vec<u32>, since: Option<Nanos>, until: Option<Nanos>, conditions: Vec<(Key, String)>) -> Self {
        let run = Run {
            begun: Nanos(0),
            host: Arc::default(),
        };
        Self {
            pids,
            since,
            until,
            conditions,
            run,
        }
    }

    /// Begins a run.
    pub(super) fn begin(&mut self, header: &Header) {
        self.run = Run::from(header);
    }

    /// Whether some events are left out.
    #[must_use]
    pub fn filters(&self) -> bool {
        self.chooses_moves() || self.since.is_some() || self.until.is_some()
    }

    /// Whether there is a condition that only moves of pages can meet.
    fn chooses_moves(&self) -> bool {
        !self.pids.is_empty() || !self.conditions.is_empty()
    }

    /// Whether an event of the run is selected.
    #[must_use]
    pub fn has(&self, event: &Event) -> bool {
        self.in_time(event.at())
            && match event {
                Event::Move(moved) => self.has_move(moved),
                Event::Unmapped(moved) => self.has_unmapped(moved),
                Event::Failure(failure) => self.conditions.is_empty() && self.has_failure(failure),
                Event::Compaction(_) => !self.chooses_moves(),
            }
    }

    fn in_time(&self, at: Nanos) -> bool {
        let after = at.since(self.run.begun);
        self.since.is_none_or(|since| after >= since) && self.until.is_none_or(|until| after < until)
    }

    fn has_move(&self, moved: &Move) -> bool {
        let of_process = |pid: &u32| moved.owner.as_ref().is_some_and(|owner| owner.tgid.0 == *pid);
        let is_called = |(key, value): &(Key, String)| is_called(&key.of(moved, &self.run), value);
        (self.pids.is_empty() || self.pids.iter().any(of_process)) && self.conditions.iter().all(is_called)
    }

    fn has_unmapped(&self, moved: &UnmappedMove) -> bool {
        let is_called = |(key, value): &(Key, String)| {
            key.of_unmapped(moved, &self.run)
                .is_some_and(|found| is_called(&found, value))
        };
        self.pids.is_empty() && self.conditions.iter().all(is_called)
    }

    fn has_failure(&self, failure: &Failure) -> bool {
        let maps = |pid: &u32| failure.places.iter().any(|place| place.owner.tgid.0 == *pid);
        self.pids.is_empty() || self.pids.iter().any(maps)
    }
}

/// Whether the text names the value: as rows show it, or a process by its number or its name.
fn is_called(value: &Value, text: &str) -> bool {
    let or = match value {
        Value::Process(tgid, comm) => tgid.to_string() == text || comm.as_deref() == Some(text),
        Value::Text(name) => &**name == text,
        Value::Seconds(second, _) => second.to_string() == text,
        Value::Order(order) => order.0.to_string() == text,
        Value::Address(_, vaddr) => vaddr.to_string() == text,
        Value::Nothing | Value::Nobody | Value::Reason(_) | Value::Nodes(..) | Value::Verdict(_) => false,
    };
    or || words(&Cell::from(value.clone())) == text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Tgid;

    #[test]
    fn values_have_short_names() {
        let process = Value::Process(Tgid(4711), Some(Arc::from("postgres")));
        for text in ["4711", "postgres", "postgres[4711]"] {
            assert!(is_called(&process, text), "{text}");
        }
        assert!(!is_called(&process, "471") && !is_called(&Value::Nothing, ""));
        assert!(is_called(&Value::Nothing, "unknown") && is_called(&Value::Seconds(7, 7), "7"));
    }
}
