//! The processes to trace: checks the given PIDs, gathers their children, and evaluates the filters for every process.
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
    /// A given PID is not a process, or cannot be examined.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// The given process is tracer itself.
    #[error("{0} is tracer itself: its pages move because it traces")]
    Itself(u32),
    /// The kernel side has no room for all of them.
    #[error("too many processes fulfil the filters: {0}")]
    NoRoom(CaptureError),
    /// The existing processes cannot be listed.
    #[error("cannot list /proc")]
    List(#[source] io::Error),
}

/// The requested processes.
#[derive(Clone, Debug)]
pub struct Targets {
    given: Vec<Target>,
    /// The processes with their descendants at that time.
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

    /// The number of children. Some requested processes may have ended already.
    fn children(&self, given: &[String]) -> usize {
        self.tgids.len().saturating_sub(given.len())
    }

    /// `postgres[4711]`, one for each requested process.
    fn names(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        self.given
            .iter()
            .filter(|target| seen.insert(target.tgid))
            .map(|target| format!("{}[{}]", Printable(&target.comm), target.tgid))
            .collect()
    }
}

/// The processes and all of their present descendants.
#[must_use]
pub fn with_descendants(roots: &BTreeSet<Tgid>) -> BTreeSet<Tgid> {
    let mut all = roots.clone();
    let mut queue: Vec<Tgid> = roots.iter().copied().collect();
    while let Some(tgid) = queue.pop() {
        // A process that has ended has no children any more.
        for child in process::children(tgid).unwrap_or_default() {
            if all.insert(child) {
                queue.push(child);
            }
        }
    }
    all.remove(&Tgid(std::process::id()));
    all
}

/// The most scans. Processes that change during a scan are settled by the next ones.
const LOOKS: u32 = 8;

/// Reports to the kernel side what each process fulfils that existed before its hooks; returns what each fulfils now.
/// `roots` were requested by number.
///
/// A process may change between the scan and the report, which overwrites the newer value of the kernel side. The scan
/// is therefore repeated until nothing is new.
///
/// # Errors
/// If the kernel's table is full, or /proc cannot be listed.
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
            // A child whose parent has ended cannot be found as a descendant; the kernel side knows that it is one.
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

/// The filters that each process fulfils, as far as it can be seen now.
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
    // A kernel worker's name is longer here than in the kernel; it owns no pages.
    comm.get_mut(..name.len())?.copy_from_slice(name);
    Some(comm)
}
