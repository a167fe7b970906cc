//! A test case: its name, its needs, its environment, and its possible outcomes.
//! Input: the catalogue in `cases`, and the machine as `here` describes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tracer_tests_report::is_plain_name;
use tracer_tests_report::shape::Shape;

use crate::here::Here;

/// One test case. An `Err` or a panic is a failure; the error's whole chain is shown.
pub struct Case {
    /// `topic/name`; the topic is the file in `cases/`. A case under `bad_ends/` runs by its exact name only.
    pub name: &'static str,
    /// One line that states what it proves.
    pub what: &'static str,
    pub needs: Needs,
    pub run: fn(&Env) -> Result<Outcome>,
}

/// The requirements of a case. Start from [`Needs::NOTHING`] or [`Needs::VM`].
#[derive(Clone, Copy)]
pub struct Needs {
    pub site: Site,
    /// The shape of the VM, if the case runs in one.
    pub shape: Shape,
    pub root: bool,
    /// NUMA nodes with memory.
    pub nodes: usize,
    /// The case's whole process group is killed after this time.
    pub timeout: Duration,
}

impl Needs {
    pub const NOTHING: Self = Self {
        site: Site::Anywhere,
        shape: Shape::Plain,
        root: false,
        nodes: 1,
        timeout: Duration::from_mins(2),
    };
    /// Changes the whole system, or needs the VM's known topology.
    pub const VM: Self = Self {
        site: Site::Vm,
        root: true,
        ..Self::NOTHING
    };

    /// The reason why the case cannot run here, or `None` if it can.
    pub fn missing(&self, here: &Here) -> Option<Outcome> {
        match (self.site, here.in_vm) {
            (Site::Vm, false) => {
                return Some(Outcome::NotApplicable("runs in a VM only: cargo xtask vm".into()));
            }
            (Site::Host, true) => {
                return Some(Outcome::NotApplicable("runs on the bare machine only".into()));
            }
            (Site::Anywhere, _) | (Site::Vm, true) | (Site::Host, false) => {}
        }
        if self.site == Site::Vm && self.shape != here.shape {
            return Some(Outcome::NotApplicable(format!("runs in a {} VM", self.shape.name())));
        }
        if here.nodes < self.nodes {
            let (need, have) = (self.nodes, here.nodes);
            return Some(Outcome::NotApplicable(format!(
                "needs {need} NUMA nodes, this machine has {have}"
            )));
        }
        if self.root && !here.root {
            return Some(Outcome::Skipped("needs root".into()));
        }
        None
    }
}

/// The places where a case may run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Site {
    Anywhere,
    /// Only in a VM of `cargo xtask vm`: the case may change the whole system.
    Vm,
    /// Only on the bare machine.
    Host,
}

/// The outcome of a case that did not fail.
#[derive(Debug)]
pub enum Outcome {
    Passed,
    /// A requirement that could be met is missing. With `CI=true`, this counts as failed.
    Skipped(String),
    /// By design there is nothing to prove in this environment. It is counted, but not in the closing line.
    NotApplicable(String),
}

impl Outcome {
    /// Passed once one of `tries` has met the situation that is to be proven; each try checks what it sees. This is for
    /// situations that the kernel, or other processes' memory, may prevent by chance.
    pub fn of_tries(tries: u32, nothing: &str, once: impl Fn() -> Result<bool>) -> Result<Self> {
        for _ in 0..tries {
            if once()? {
                return Ok(Self::Passed);
            }
        }
        bail!("{nothing}, in {tries} tries: nothing is proven")
    }
}

/// The environment of a case.
pub struct Env {
    /// The `tracer` under test.
    pub tracer: PathBuf,
    pub in_vm: bool,
    /// `uname -r`.
    pub release: String,
    /// NUMA nodes online.
    pub nodes: usize,
    /// A directory of the case's own. It is empty at the start and removed afterwards.
    pub scratch: PathBuf,
    /// Files here are sent to the host when the case has ended, in any way.
    pub outbox: PathBuf,
}

impl Env {
    /// # Errors
    /// When the scratch directory cannot be made.
    pub fn new(tracer: PathBuf, scratch: PathBuf) -> Result<Self> {
        let outbox = scratch.join("outbox");
        fs::create_dir_all(&outbox).with_context(|| format!("create {}", outbox.display()))?;
        let here = Here::look();
        Ok(Self {
            tracer,
            in_vm: here.in_vm,
            release: here.release,
            nodes: here.nodes,
            scratch,
            outbox,
        })
    }

    /// Major and minor version of the kernel; (0, 0) for a release that does not begin with them.
    pub fn version(&self) -> (u32, u32) {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
            _ => (0, 0),
        }
    }

    /// Sends a copy of the file at `path` to the host as `name` (letters, digits, `.`, `_`, `-`);
    /// `cargo xtask vm --keep DIR` and `tracer-tests run --keep DIR` store it.
    pub fn send_file(&self, name: &str, path: &Path) -> Result<()> {
        ensure!(is_plain_name(name), "{name:?} is no plain file name");
        fs::copy(path, self.outbox.join(name)).with_context(|| format!("send {} as {name}", path.display()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Here, Needs, Outcome, Shape, Site};

    #[test]
    fn a_lack_is_not_applicable_by_design_and_skipped_otherwise() {
        let here = Here {
            in_vm: false,
            shape: Shape::Plain,
            root: false,
            nodes: 1,
            release: String::new(),
        };
        assert!(Needs::NOTHING.missing(&here).is_none());
        assert!(matches!(Needs::VM.missing(&here), Some(Outcome::NotApplicable(_))));
        assert!(matches!(
            Needs {
                nodes: 2,
                ..Needs::NOTHING
            }
            .missing(&here),
            Some(Outcome::NotApplicable(_))
        ));
        assert!(matches!(
            Needs {
                root: true,
                ..Needs::NOTHING
            }
            .missing(&here),
            Some(Outcome::Skipped(_))
        ));
        let vm = Here {
            in_vm: true,
            shape: Shape::Plain,
            root: true,
            nodes: 2,
            release: String::new(),
        };
        assert!(Needs::VM.missing(&vm).is_none());
        assert!(
            Needs {
                site: Site::Host,
                ..Needs::NOTHING
            }
            .missing(&vm)
            .is_some()
        );
        let other = Needs {
            shape: Shape::Tiered,
            ..Needs::VM
        };
        assert!(matches!(other.missing(&vm), Some(Outcome::NotApplicable(_))));
    }
}
