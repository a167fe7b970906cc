//! Checks whether this process has the privileges that a source requires.
//! Input: the needs of the source; /proc/self.

use std::io;

use crate::{
    kernel::capabilities::{Capabilities, Capability},
    proc::process,
    source::Needs,
};

/// Why this process may not trace.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// It lacks a capability.
    #[error("{purpose} needs {missing}: run with sudo (tracer doctor shows what else is missing)")]
    Missing {
        /// The purpose of the capability.
        purpose: &'static str,
        /// The capability.
        missing: Capability,
    },
    /// It is in another PID namespace than the kernel's initial one.
    #[error(
        "this is a PID namespace of its own (a container?), where the kernel's process numbers mean nothing: \
         run tracer on the host, or the container with --pid=host"
    )]
    PidNamespace,
    /// A file about this process cannot be read.
    #[error("cannot {doing}")]
    Unknown {
        /// The attempted operation.
        doing: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// Warns if the memory maps of other users' processes will be refused, which otherwise looks as if nothing of theirs moved.
pub fn warn_of_refusals() {
    // `mm_access` (kernel/fork.c, 6.1 to 7.3) takes no other capability for it.
    if Capabilities::read().is_ok_and(|have| !have.has(Capability::SysPtrace)) {
        log::warn!(
            "without CAP_SYS_PTRACE, memory maps and page tables of other users' processes cannot be read: their moves \
             have no mapping and no verdict, and no owner either if it comes from pagemap"
        );
    }
}

/// Checks the needs of a source.
///
/// # Errors
/// [`PrivilegeError`]: the first need that is not met.
pub fn check(needs: &Needs) -> Result<(), PrivilegeError> {
    let unknown = |doing| move |source| PrivilegeError::Unknown { doing, source };
    let have = Capabilities::read().map_err(unknown("read this process's capabilities"))?;
    let has = |capability| have.has(Capability::SysAdmin) || have.has(capability);
    if let Some(missing) = needs.capabilities.iter().copied().find(|&capability| !has(capability)) {
        let purpose = needs.purpose;
        return Err(PrivilegeError::Missing { purpose, missing });
    }
    if needs.initial_pid_namespace
        && !process::in_initial_pid_namespace().map_err(unknown("look at /proc/self/ns/pid"))?
    {
        return Err(PrivilegeError::PidNamespace);
    }
    Ok(())
}
