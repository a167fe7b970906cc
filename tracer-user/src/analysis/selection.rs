//! Selects the events that a report is about.
//! Input: the arguments of a report; events.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use crate::{
    analysis::groups::{Key, RunFacts, Value},
    escape::Printable,
    event::{Event, Move, Reason, Verdict, failure::Failure, unmapped::UnmappedMove},
    run::{header::Header, kept::Kept},
    section::Cell,
    units::Nanos,
    words::{quantity::Counted, spelled},
};

/// A key that must have a value, as tables show it.
#[derive(Clone, Debug)]
pub struct Condition {
    key: Key,
    value: String,
    /// Whether an event had the value.
    met: bool,
    /// The values of events until one has the value, if the key has few values.
    occurred: BTreeSet<Value>,
}

impl Condition {
    /// A condition before the first event.
    #[must_use]
    pub fn new(key: Key, value: String) -> Self {
        Self {
            key,
            value,
            met: false,
            occurred: BTreeSet::new(),
        }
    }

    /// Whether `value` of an event is the wanted one.
    fn holds(&mut self, value: Option<Value>) -> bool {
        let Some(value) = value else { return false };
        let holds = is_called(&value, &self.value);
        self.met |= holds;
        if !self.met && has_few_values(self.key) {
            self.occurred.insert(value);
        }
        holds
    }

    /// Why this value cannot exist; None if it can.
    fn refusal(&self) -> Option<String> {
        let vocabulary = vocabulary(self.key)?;
        if self.met || vocabulary.contains(&&*self.value) {
            return None;
        }
        let mut known: BTreeSet<String> = vocabulary.into_iter().map(str::to_owned).collect();
        known.extend(self.occurred());
        let known: Vec<String> = known.into_iter().collect();
        let key = self.key.name();
        Some(format!("--where {self}: no such {key}; there are {}", known.join(", ")))
    }

    fn occurred(&self) -> impl Iterator<Item = String> {
        self.occurred.iter().map(|value| spelled(&Cell::from(value.clone())))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key.name(), Printable(&self.value))
    }
}

/// The values that a key can have, if recordings share a vocabulary. A newer kernel may have more.
fn vocabulary(key: Key) -> Option<Vec<&'static str>> {
    match key {
        Key::Reason => Some(Reason::known().collect()),
        Key::Verdict => Some(Verdict::ALL.map(Verdict::words).to_vec()),
        Key::Process
        | Key::Comm
        | Key::Vma
        | Key::Actor
        | Key::Nodes
        | Key::Order
        | Key::Address
        | Key::Second
        | Key::Host => None,
    }
}

/// Whether a recording has only a few values of the key, which a message can list.
fn has_few_values(key: Key) -> bool {
    match key {
        Key::Reason | Key::Verdict | Key::Nodes | Key::Order | Key::Host => true,
        Key::Process | Key::Comm | Key::Vma | Key::Actor | Key::Address | Key::Second => false,
    }
}

/// The conditions that an event must meet; all of them must hold.
#[derive(Clone, Debug)]
pub struct Selection {
    /// One of these processes; empty: any.
    pids: Vec<u32>,
    /// The earliest time after the begin of the event's run.
    since: Option<Nanos>,
    /// The time after the begin of the run before which the event must be.
    until: Option<Nanos>,
    conditions: Vec<Condition>,
    /// The run whose events are being checked.
    run: RunFacts,
    /// Events that were checked.
    looked_at: u64,
    /// The number of selected events.
    taken: u64,
}

impl Default for Selection {
    fn default() -> Self {
        Self::new(Vec::new(), None, None, Vec::new())
    }
}

impl Selection {
    /// Makes a selection, before any run has begun.
    #[must_use]
    pub fn new(pids: Vec<u32>, since: Option<Nanos>, until: Option<Nanos>, conditions: Vec<Condition>) -> Self {
        let run = RunFacts {
            begun: Nanos(0),
            host: Arc::default(),
        };
        Self {
            pids,
            since,
            until,
            conditions,
            run,
            looked_at: 0,
            taken: 0,
        }
    }

    /// Called before the events of a run.
    pub fn begin(&mut self, header: &Header) {
        self.run = RunFacts::from(header);
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
    pub fn takes(&mut self, event: &Event) -> bool {
        self.looked_at += 1;
        let takes = self.in_time(event.at())
            && match event {
                Event::Move(moved) => self.takes_move(moved),
                Event::Unmapped(moved) => self.takes_unmapped(moved),
                Event::Failure(failure) => self.conditions.is_empty() && self.takes_failure(failure),
                Event::Compaction(_) => !self.chooses_moves(),
            };
        self.taken += u64::from(takes);
        takes
    }

    /// The part of a run that was read, whose period ends where the selected times end.
    #[must_use]
    pub fn narrow(&self, kept: &Kept) -> Kept {
        let mut kept = kept.clone();
        if let Some(part) = &mut kept.part {
            part.period = part.period.and_then(|(first, last)| {
                let first = first.max(self.since.unwrap_or(first));
                let last = last.min(self.until.unwrap_or(last));
                (first <= last).then_some((first, last))
            });
        }
        kept
    }

    fn in_time(&self, at: Nanos) -> bool {
        let after = at.since(self.run.begun);
        self.since.is_none_or(|since| after >= since) && self.until.is_none_or(|until| after < until)
    }

    fn takes_move(&mut self, moved: &Move) -> bool {
        let of_process = |pid: &u32| moved.owner.as_ref().is_some_and(|owner| owner.tgid.0 == *pid);
        let of_processes = self.pids.is_empty() || self.pids.iter().any(of_process);
        self.conditions_hold(|key, run| Some(key.of(moved, run, moved.at))) && of_processes
    }

    fn takes_unmapped(&mut self, moved: &UnmappedMove) -> bool {
        self.conditions_hold(|key, run| key.of_unmapped(moved, run)) && self.pids.is_empty()
    }

    /// Whether all conditions hold. Each is checked with its value, whatever the results of the others.
    fn conditions_hold(&mut self, value: impl Fn(Key, &RunFacts) -> Option<Value>) -> bool {
        let mut all = true;
        for condition in &mut self.conditions {
            all &= condition.holds(value(condition.key, &self.run));
        }
        all
    }

    fn takes_failure(&self, failure: &Failure) -> bool {
        let maps = |pid: &u32| failure.places.iter().any(|place| place.owner.tgid.0 == *pid);
        self.pids.is_empty() || self.pids.iter().any(maps)
    }

    /// The first value that cannot exist, with those that can. It is known after the last event: a kernel may have
    /// reasons that this tracer does not know.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.conditions.iter().find_map(Condition::refusal)
    }

    /// The message that no event was selected; None: some are, or there is no condition.
    #[must_use]
    pub fn nothing_matches(&self) -> Option<String> {
        if !self.filters() || self.taken > 0 {
            return None;
        }
        let events = Counted(self.looked_at, "event");
        let unmet = self.conditions.iter().filter(|condition| !condition.met);
        let values = unmet.filter_map(|condition| {
            let occurred: Vec<String> = condition.occurred().collect();
            let key = condition.key.name();
            (!occurred.is_empty()).then(|| format!("; {key}: {}", occurred.join(", ")))
        });
        Some(format!(
            "nothing matches {self}: {events}{}",
            values.collect::<String>()
        ))
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |nanos: Nanos| Duration::from_nanos(nanos.0).as_secs_f64();
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        let pids = (!pids.is_empty()).then(|| format!("-p {}", pids.join(",")));
        let since = self.since.map(|since| format!("--since {}", seconds(since)));
        let until = self.until.map(|until| format!("--until {}", seconds(until)));
        let conditions = self.conditions.iter().map(|condition| format!("--where {condition}"));
        let all: Vec<String> = pids.into_iter().chain(since).chain(until).chain(conditions).collect();
        f.write_str(&all.join(" "))
    }
}

/// Whether the text names the value: as rows show it, or for a process by its number or its name.
fn is_called(value: &Value, text: &str) -> bool {
    let or = match value {
        Value::Process(tgid, comm) | Value::Cpuset(tgid, comm) => {
            tgid.to_string() == text || comm.as_deref() == Some(text)
        }
        Value::Text(name) => &**name == text,
        Value::Seconds(second, _) => second.to_string() == text,
        Value::Order(order) => order.0.to_string() == text,
        Value::Address(_, vaddr) => vaddr.to_string() == text,
        Value::Nothing | Value::Nobody | Value::Reason(_) | Value::Nodes(..) | Value::Verdict(_) => false,
    };
    or || spelled(&Cell::from(value.clone())) == text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{made_up, units::Tgid};

    /// Selects from two events; returns the selection, and for each event whether it is selected.
    fn looked(conditions: &[(Key, &str)]) -> (Selection, [bool; 2]) {
        let conditions = conditions.iter();
        let conditions = conditions.map(|(key, value)| Condition::new(*key, (*value).to_owned()));
        let mut selection = Selection::new(Vec::new(), None, None, conditions.collect());
        selection.begin(&made_up::header());
        let taken = [made_up::moved(), made_up::unknown()].map(|moved| selection.takes(&Event::Move(moved)));
        (selection, taken)
    }

    #[test]
    fn a_value_that_cannot_exist_is_refused_with_those_that_can() {
        let (selection, taken) = looked(&[(Key::Reason, "numa")]);
        assert_eq!(taken, [false, false]);
        let refusal = selection.refusal().unwrap();
        assert!(
            refusal.starts_with("--where reason=numa: no such reason; there are collapse, compaction, "),
            "{refusal}"
        );
        // These are reasons that tracer knows, and reasons that events have.
        for known in ["numa_misplaced", "syscall_or_cpuset", "swap_in", "reason_77"] {
            assert!(refusal.contains(known), "{refusal}");
        }
    }

    #[test]
    fn a_value_that_can_exist_matches_nothing() {
        for (key, value, there_is) in [
            (Key::Comm, "x", ""),
            (Key::Verdict, "hidden", "; verdict: confirmed, not asked"),
            (Key::Nodes, "0->7", "; nodes: ?->?, 0->1"),
        ] {
            let (selection, _) = looked(&[(key, value)]);
            assert_eq!(selection.refusal(), None);
            let expected = format!("nothing matches --where {}={value}: 2 events{there_is}", key.name());
            assert_eq!(selection.nothing_matches(), Some(expected));
        }
        let (selection, taken) = looked(&[(Key::Reason, "syscall_or_cpuset"), (Key::Nodes, "0->1")]);
        assert_eq!(
            (taken, selection.nothing_matches(), selection.refusal()),
            ([true, false], None, None)
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
}
