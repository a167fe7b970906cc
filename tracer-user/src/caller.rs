//! The user who called tracer through sudo.
//! Input: `SUDO_UID` and `SUDO_GID` (sudo(8)).

use std::{env, ffi::OsString};

use rustix::process::geteuid;

/// A variable of sudo is not the number of a user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoNumber {
    /// Its name.
    pub key: &'static str,
    /// Its value.
    pub value: OsString,
}

/// The user by number; None if this process is not root, was not started by sudo, or was so by root.
///
/// # Errors
/// `SUDO_UID` is not a number.
pub fn uid() -> Result<Option<u32>, NoNumber> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    Ok(number("SUDO_UID")?.filter(|&uid| uid != 0))
}

/// The user's group by number; None if sudo did not name it.
///
/// # Errors
/// `SUDO_GID` is not a number.
pub fn gid() -> Result<Option<u32>, NoNumber> {
    number("SUDO_GID")
}

fn number(key: &'static str) -> Result<Option<u32>, NoNumber> {
    let Some(value) = env::var_os(key) else {
        return Ok(None);
    };
    // The kernel takes the highest number for "unchanged" (kernel/sys.c, `setresuid`): a process would remain root.
    match value.to_str().and_then(|text| text.parse().ok()) {
        Some(number) if number != u32::MAX => Ok(Some(number)),
        _ => Err(NoNumber { key, value }),
    }
}
