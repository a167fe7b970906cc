//! The folder of downloads between runs, and directories that appear either complete or not at all.
//! Input: XDG_CACHE_HOME, HOME.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// `$XDG_CACHE_HOME/tracer` or `~/.cache/tracer`.
pub fn dir() -> Result<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Ok(base
        .context("neither XDG_CACHE_HOME nor HOME says where to cache")?
        .join("tracer"))
}

/// Returns the directory at `path`. If it does not exist, `fill` makes its content in a directory beside it, which is
/// then renamed: neither a crash nor a second run at the same time leaves an incomplete one.
pub fn filled(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    let parent = path.parent().context("a cache directory has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let unfinished = Scratch::new_in(parent)?;
    fill(unfinished.path())?;
    match fs::rename(unfinished.path(), path) {
        Ok(()) => {}
        // Another run was faster; its directory is as good.
        Err(_) if path.is_dir() => {}
        Err(error) => return Err(error).with_context(|| format!("rename to {}", path.display())),
    }
    Ok(path.to_owned())
}

/// A directory that is removed on drop.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Result<Self> {
        Self::new_in(&env::temp_dir())
    }

    pub fn new_in(parent: &Path) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!(".tracer-xtask-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may have been renamed. If it cannot be removed, it stays as a temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Scratch, filled};

    #[test]
    fn a_failed_fill_leaves_nothing() -> anyhow::Result<()> {
        let scratch = Scratch::new()?;
        let path = scratch.path().join("thing");
        let failed = filled(&path, |dir| {
            std::fs::write(dir.join("half"), "")?;
            anyhow::bail!("no network")
        });
        assert!(failed.is_err() && !path.exists());
        assert_eq!(std::fs::read_dir(scratch.path())?.count(), 0);
        filled(&path, |dir| Ok(std::fs::write(dir.join("whole"), "")?))?;
        assert!(path.join("whole").exists());
        filled(&path, |_| anyhow::bail!("it is there already"))?;
        Ok(())
    }
}
