//! Whose pages are wanted: checks the given PIDs and gathers their children.
//! Input: the command line, /proc.

use std::collections::BTreeSet;

use crate::{
    cli::Refused,
    proc::process::{self, Target},
    render::escape::Printable,
    units::Tgid,
};

/// The processes that were asked for.
#[derive(Clone, Debug)]
pub struct Targets {
    given: Vec<Target>,
    /// With their descendants at that time.
    pub tgids: BTreeSet<Tgid>,
}

impl Targets {
    /// Checks each PID; with `follow`, adds its descendants.
    pub fn resolve(pids: &[u32], follow: bool) -> anyhow::Result<Self> {
        let mut given = Vec::new();
        for &pid in pids {
            let target = process::check_target(pid)?;
            if target.given_tid.0 != target.tgid.0 {
                log::warn!("{pid} is a thread of {0}: tracing all of {0}", target.tgid);
            }
            if target.tgid.0 == std::process::id() {
                return Err(Refused(format!("{pid} is tracer itself: its pages move because it traces")).into());
            }
            given.push(target);
        }
        let mut tgids: BTreeSet<Tgid> = given.iter().map(|target| target.tgid).collect();
        if follow {
            tgids = with_descendants(&tgids);
        }
        Ok(Self { given, tgids })
    }

    /// `postgres[4711] and 12 children`
    #[must_use]
    pub fn describe(&self) -> String {
        let names = self.names();
        match self.tgids.len() - names.len() {
            0 => names.join(", "),
            1 => format!("{} and 1 child", names.join(", ")),
            n => format!("{} and {n} children", names.join(", ")),
        }
    }

    /// `postgres[4711] has ended`
    #[must_use]
    pub fn describe_end(&self) -> String {
        let names = self.names();
        match (names.len(), self.tgids.len() - names.len()) {
            (1, 0) => format!("{} has ended", names.join(", ")),
            (_, 0) => format!("{} have ended", names.join(", ")),
            (..) => format!("{} and all children have ended", names.join(", ")),
        }
    }

    /// `postgres[4711]`, one for each process that was asked for.
    fn names(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        self.given
            .iter()
            .filter(|target| seen.insert(target.tgid))
            .map(|target| format!("{}[{}]", Printable(&target.comm), target.tgid))
            .collect()
    }
}

/// The processes and all that descend from them now.
#[must_use]
pub fn with_descendants(roots: &BTreeSet<Tgid>) -> BTreeSet<Tgid> {
    let mut all = roots.clone();
    let mut queue: Vec<Tgid> = roots.iter().copied().collect();
    while let Some(tgid) = queue.pop() {
        // A process that is gone by now has no children any more.
        for child in process::children(tgid).unwrap_or_default() {
            if all.insert(child) {
                queue.push(child);
            }
        }
    }
    all.remove(&Tgid(std::process::id()));
    all
}
