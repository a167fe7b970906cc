//! Confines this thread to the paths that readers of recordings need, with Landlock (5.13 and later).
//! Input: the directory of the output; the files that libraries read.

use std::{env, io};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

use crate::output::Directory;

/// The newest rights that are dropped where the kernel knows them.
const RIGHTS: ABI = ABI::V5;
/// Files that libraries read when they need them: those that tell the local time from the time of a recording, with what
/// they link to, and those of random numbers, where a library does not know of getrandom(2).
const OF_LIBRARIES: [&str; 6] = [
    "/etc/localtime",
    "/etc/timezone",
    "/etc/zoneinfo",
    "/usr/share/zoneinfo",
    "/dev/random",
    "/dev/urandom",
];

/// Lets this thread read what libraries need and change files in the directory, and open nothing else.
///
/// # Errors
/// A kernel without Landlock, or the kernel's refusal.
pub fn confine(directory: Option<&Directory>) -> io::Result<()> {
    let status = restrict(directory).map_err(io::Error::other)?;
    match status {
        RulesetStatus::NotEnforced => Err(io::Error::other(
            "the kernel has no Landlock, or did not start it (lsm=)",
        )),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

/// Whether the kernel can do it.
pub fn are_confinable() -> bool {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Execute);
    rules.is_ok_and(|rules| rules.create().is_ok())
}

fn restrict(directory: Option<&Directory>) -> Result<RulesetStatus, RulesetError> {
    let mut rules = Ruleset::default().handle_access(AccessFs::from_all(RIGHTS))?.create()?;
    let paths = OF_LIBRARIES.into_iter().map(Into::into).chain(env::var_os("TZDIR"));
    for path in paths {
        // One that is missing is not read.
        if let Ok(path) = PathFd::new(path) {
            rules = allow(rules, path, AccessFs::ReadFile | AccessFs::ReadDir)?;
        }
    }
    if let Some(directory) = directory {
        let all_but_execute = AccessFs::from_all(RIGHTS) & !BitFlags::from(AccessFs::Execute);
        rules = allow(rules, directory, all_but_execute)?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

fn allow(
    rules: RulesetCreated,
    path: impl std::os::fd::AsFd,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    rules.add_rule(PathBeneath::new(path, access))
}
