//! What does not balance, in words.
//! Input: accounts of the run and of its intervals.

use crate::{
    render::quantity::{Count, Duration},
    run::{account::Account, intervals::IntervalTotals},
    units::Nanos,
};

/// What is wrong with an account that does not balance; empty where nothing is.
#[must_use]
pub fn complaints(account: &Account) -> Vec<String> {
    let mut complaints = Vec::new();
    if account.balanced() {
        return complaints;
    }
    let excused = account.blind_to_unmapped || !account.settled;
    match account.imbalance() {
        Some(missing) if missing < 0 || (missing > 0 && !excused) => {
            complaints.push(format!("{missing:+} pages are not accounted for"));
        }
        _ if account.unbalanced_calls > 0 && !account.blind_to_unmapped => complaints.push(format!(
            "in {} calls of migrate_pages the kernel's count differs from what was seen",
            Count(account.unbalanced_calls)
        )),
        _ => {}
    }
    complaints.extend(account.differing().map(|check| {
        format!(
            "{}: the kernel counted {}, tracer saw {}",
            check.name,
            Count(check.kernel),
            Count(check.seen)
        )
    }));
    complaints
}

/// How many of the run's intervals do not balance, and by how much; None where all do.
#[must_use]
pub fn unbalanced(intervals: &IntervalTotals, begin: Nanos) -> Option<String> {
    let worst = intervals.worst.as_ref()?;
    Some(format!(
        "{} of {} intervals do not balance, the worst {} after the begin: {}",
        Count(intervals.unbalanced),
        Count(intervals.closed),
        Duration(worst.begin.since(begin)),
        complaints(worst).join("; ")
    ))
}

/// Why `--strict` is not content with books of which nothing is known to be wrong.
#[must_use]
pub fn unproven(account: &Account) -> String {
    match account.imbalance() {
        None => "the kernel shows no count of moved pages".to_owned(),
        Some(missing) if missing > 0 && account.blind_to_unmapped => format!(
            "{} pages moved that the tracepoint backend cannot see",
            Count(missing.unsigned_abs())
        ),
        Some(0) => "a count was not met, or was read while pages moved".to_owned(),
        Some(missing) => format!("{missing:+} pages while the counts were read: pages moved all the time"),
    }
}
