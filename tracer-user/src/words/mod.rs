//! Values as people read them: tables, sentences and conditions spell a value alike.
//! Input: cells of sections.

pub mod cause;
pub mod clock;
pub mod quantity;

use std::fmt::Display;

use jiff::tz::TimeZone;

use self::quantity::{Bytes, Count, Duration, PageSize};
use crate::{escape::Printable, run::backend::BackendName, section::Cell, units::Order};

/// The longest bar, characters.
const BAR: u64 = 40;

/// Words and values as one sentence.
#[must_use]
pub fn sentence(cells: &[Cell]) -> String {
    cells.iter().map(spelled).collect()
}

/// A value in words.
#[must_use]
pub fn spelled(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => Printable(text).to_string(),
        Cell::Mark(word, _) => (*word).to_owned(),
        Cell::None => "-".to_owned(),
        Cell::Unknown => "unknown".to_owned(),
        Cell::Nobody => "nobody".to_owned(),
        Cell::Count(count) => Count(*count).to_string(),
        Cell::Counted(1, one, _) => format!("1 {one}"),
        Cell::Counted(count, _, many) => format!("{} {many}", Count(*count)),
        Cell::Difference(difference) => format!("{difference:+}"),
        Cell::Number(number) => number.to_string(),
        Cell::Bytes(bytes) => Bytes(*bytes).to_string(),
        Cell::Duration(nanos) => Duration(*nanos).to_string(),
        Cell::Share(part, whole) => share(*part, *whole),
        Cell::Flag(true) => "yes".to_owned(),
        Cell::Flag(false) => "no".to_owned(),
        Cell::Date(at, offset) => clock::date(*offset, *at, &TimeZone::system()),
        Cell::Between(from, to) => format!("{:>7} to {}", Duration(*from).to_string(), Duration(*to)),
        Cell::Omitted => format!("{:>7}", "..."),
        Cell::Bar(length, most) => {
            let length = length.saturating_mul(BAR).div_ceil((*most).max(1));
            "#".repeat(usize::try_from(length).unwrap_or_default())
        }
        Cell::Nodes(old, new) => format!("{old}->{new}"),
        Cell::Process(tgid, comm) => numbered(comm.as_deref(), tgid),
        Cell::Cpuset(_, Some(worker)) => cpuset(worker),
        Cell::Cpuset(tgid, None) => numbered(None, tgid),
        Cell::Address(Some(tgid), vaddr) => format!("{vaddr} of {tgid}"),
        Cell::Address(None, vaddr) => vaddr.to_string(),
        Cell::Seconds(first, last) if first == last => format!("{first} s"),
        Cell::Seconds(first, last) => format!("{first}-{last} s"),
        // A recording may hold any name.
        Cell::Reason(reason) => Printable(&reason.to_string()).to_string(),
        Cell::Cause(cause, reason) => cause::cause(*cause, reason).to_owned(),
        Cell::Verdict(verdict) => verdict.words().to_owned(),
        Cell::Order(order) => page_size(*order),
        Cell::Backend(BackendName::Known(backend)) => backend.words().to_owned(),
        Cell::Backend(BackendName::Other(name)) => Printable(name).to_string(),
        Cell::Others(Some(1)) => "1 other".to_owned(),
        Cell::Others(Some(count)) => format!("{} others", Count(*count)),
        Cell::Others(None) => "all others".to_owned(),
        Cell::List(cells) => cells.iter().map(spelled).collect::<Vec<_>>().join(", "),
        // Tables make rows and columns of these.
        Cell::Continued | Cell::ByNodes(_) | Cell::Histogram(_) | Cell::Section(_) => String::new(),
    }
}

/// `postgres[4711]`: the name of a process or thread, if it is known, with its number.
#[must_use]
pub fn numbered(comm: Option<&str>, number: impl Display) -> String {
    match comm {
        Some(comm) => format!("{}[{number}]", Printable(comm)),
        None => format!("?[{number}]"),
    }
}

/// `cpuset (kworker/1:2)`: a worker that moves pages for a cpuset. /proc adds the work to the worker's name
/// (kernel/workqueue.c, `wq_worker_comm`).
#[must_use]
pub fn cpuset(worker: &str) -> String {
    let worker = worker.split(['+', '-']).next().unwrap_or(worker);
    format!("cpuset ({})", Printable(worker))
}

fn page_size(order: Order) -> String {
    PageSize(order).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn share(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}
