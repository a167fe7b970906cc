//! Whose pages are wanted: checks the given PIDs, gathers their children, and judges every process by the filters.
//! Input: a session's configuration, /proc.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use tracer_common::{filter::membership, names::COMM_LEN};

use crate::{
    escape::Printable,
    proc::{
        cgroup,
        process::{self, Target, TargetError},
    },
    session::filters::Compiled,
    source::bpf::{attach::CaptureError, ring::Capture},
    units::Tgid,
};

/// Why processes cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum TargetsError {
    /// One that was given is none, or cannot be looked at.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// The process that traces was given.
    #[error("{0} is tracer itself: its pages move because it traces")]
    Itself(u32),
    /// The kernel side cannot keep all of them.
    #[error("too many processes fulfil the filters: {0}")]
    NoRoom(CaptureError),
    /// Those that are there cannot be seen.
    #[error("cannot list /proc")]
    List(#[source] io::Error),
}

/// The processes that were asked for.
#[derive(Clone, Debug)]
pub struct Targets {
    given: Vec<Target>,
    /// With their descendants at that time.
    pub tgids: BTreeSet<Tgid>,
}

impl Targets {
    /// Checks each PID; with `follow`, adds its descendants.
    pub fn resolve(pids: &[u32], follow: bool) -> Result<Self, TargetsError> {
        let mut given = Vec::new();
        for &pid in pids {
            let target = process::check_target(pid)?;
            if target.given_tid.0 != target.tgid.0 {
                log::warn!("{pid} is a thread of {0}: tracing all of {0}", target.tgid);
            }
            if target.tgid.0 == std::process::id() {
                return Err(TargetsError::Itself(pid));
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
        match self.children(&names) {
            0 => names.join(", "),
            1 => format!("{} and 1 child", names.join(", ")),
            n => format!("{} and {n} children", names.join(", ")),
        }
    }

    /// `postgres[4711] has ended`
    #[must_use]
    pub fn describe_end(&self) -> String {
        let names = self.names();
        match (names.len(), self.children(&names)) {
            (1, 0) => format!("{} has ended", names.join(", ")),
            (_, 0) => format!("{} have ended", names.join(", ")),
            (..) => format!("{} and all children have ended", names.join(", ")),
        }
    }

    /// How many there are beside those that were asked for, of which some may have ended already.
    fn children(&self, given: &[String]) -> usize {
        self.tgids.len().saturating_sub(given.len())
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

/// Looks in which processes that are there change under one's hands are settled.
const LOOKS: u32 = 8;

/// Tells the kernel side what each process fulfils that was there before its hooks; returns what each does now.
/// `roots` were asked for by number.
///
/// A process may change between the look at it and the word to the kernel side, whose own newer word that one
/// overwrites: so it looks again, until nothing is new.
///
/// # Errors
/// When the kernel's table is full, or /proc cannot be listed.
pub fn enrol(
    capture: &mut Capture,
    wanted: &Compiled,
    roots: &BTreeSet<Tgid>,
) -> Result<BTreeMap<Tgid, u32>, TargetsError> {
    let mut members = BTreeMap::new();
    for _ in 0..LOOKS {
        members.clear();
        let mut settled = true;
        for (tgid, bits) in look(wanted, roots).map_err(TargetsError::List)? {
            // A child whose parent has ended cannot be seen to descend; the kernel side knows.
            let known = capture.membership(tgid);
            if known & membership::EXITED != 0 {
                continue;
            }
            let bits = bits | known & membership::LINEAGE;
            if bits != known {
                settled = false;
                capture.set_membership(tgid, bits).map_err(TargetsError::NoRoom)?;
            }
            if bits != 0 {
                members.insert(tgid, bits);
            }
        }
        if settled {
            break;
        }
    }
    Ok(members)
}

/// What each process fulfils, as far as it can be seen now.
fn look(wanted: &Compiled, roots: &BTreeSet<Tgid>) -> io::Result<BTreeMap<Tgid, u32>> {
    let filter = &wanted.filter;
    let needs = |bit| filter.need & bit != 0;
    let mut seen: BTreeMap<Tgid, u32> = process::list()?.into_iter().map(|tgid| (tgid, 0)).collect();
    if needs(membership::LINEAGE) {
        let lineage = if filter.follow == 0 {
            roots.clone()
        } else {
            with_descendants(roots)
        };
        for tgid in lineage {
            *seen.entry(tgid).or_default() |= membership::LINEAGE;
        }
    }
    for (tgid, bits) in &mut seen {
        if needs(membership::COMM) && comm(*tgid).is_some_and(|comm| filter.comms.matches(comm)) {
            *bits |= membership::COMM;
        }
        if needs(membership::CGROUP)
            && let Ok(text) = cgroup::read(*tgid)
            && wanted.cgroups.iter().any(|cgroup| cgroup.holds(&text))
        {
            *bits |= membership::CGROUP;
        }
    }
    Ok(seen)
}

/// The leader's name, as the kernel keeps it.
fn comm(tgid: Tgid) -> Option<[u8; COMM_LEN]> {
    let text = fs::read(format!("/proc/{tgid}/comm")).ok()?;
    let name = text.strip_suffix(b"\n").unwrap_or(&text);
    let mut comm = [0; COMM_LEN];
    // The name of a kernel's worker is longer here than it is; it owns no pages.
    comm.get_mut(..name.len())?.copy_from_slice(name);
    Some(comm)
}
