//! What the programs must know of the running kernel's structures, and its names for reasons.
//! Input: the kernel's BTF, /sys/kernel/btf/vmlinux.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracer_common::config::Config;

use crate::{
    event::ReasonNames,
    kernel::{
        btf::{Btf, BtfDamage},
        hooks::{Attach, Hook},
    },
};

/// Where a kernel built with CONFIG_DEBUG_INFO_BTF shows its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel's types are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum TypesError {
    /// The file is not there or cannot be read.
    #[error("cannot read the kernel's type information, {}: {source}\n  tracer takes every structure offset from it; boot a kernel built with CONFIG_DEBUG_INFO_BTF=y", path.display())]
    Read {
        /// The BTF file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is not BTF.
    #[error("the kernel's type information is damaged: {0}")]
    Damaged(#[from] BtfDamage),
    /// A structure, member or constant that tracer needs is not in this kernel.
    #[error("this kernel has no {0}, which tracer needs to name a page's owner")]
    Missing(&'static str),
}

/// The types of a kernel.
pub struct KernelTypes(Btf);

impl KernelTypes {
    /// Reads and indexes a BTF file.
    ///
    /// # Errors
    /// [`TypesError::Read`], [`TypesError::Damaged`].
    pub fn read(path: &Path) -> Result<Self, TypesError> {
        let bytes = fs::read(path).map_err(|source| TypesError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(Btf::parse(bytes)?))
    }

    /// The offsets that the programs need; the filter is left open.
    ///
    /// # Errors
    /// [`TypesError::Missing`] names the first one that this kernel does not have.
    pub fn config(&self) -> Result<Config, TypesError> {
        let missing = TypesError::Missing;
        let member = |structure, member, name| self.0.member(structure, member).ok_or(missing(name));
        let walk = self.0.member("rmap_walk_arg", "folio");
        Ok(Config {
            vma_mm: member("vm_area_struct", "vm_mm", "vm_area_struct.vm_mm")?,
            mm_owner: member("mm_struct", "owner", "mm_struct.owner (CONFIG_MEMCG)")?,
            task_tgid: member("task_struct", "tgid", "task_struct.tgid")?,
            task_pid: member("task_struct", "pid", "task_struct.pid")?,
            task_comm: member("task_struct", "comm", "task_struct.comm")?,
            task_signal: member("task_struct", "signal", "task_struct.signal")?,
            signal_live: member("signal_struct", "live", "signal_struct.live")?,
            task_group_leader: member("task_struct", "group_leader", "task_struct.group_leader")?,
            folio_flags: member("folio", "flags", "folio.flags")?,
            pg_head: self.constant("pageflags", "PG_head").ok_or(missing("PG_head"))?,
            // The order's byte: a member of its own on 6.1, the low byte of _flags_1 since 6.6.
            folio_order: member("folio", "_folio_order", "folio._folio_order")
                .or_else(|_| member("folio", "_flags_1", "folio._flags_1"))?,
            vma_start: member("vm_area_struct", "vm_start", "vm_area_struct.vm_start")?,
            vma_pgoff: member("vm_area_struct", "vm_pgoff", "vm_area_struct.vm_pgoff")?,
            folio_index: member("folio", "index", "folio.index")?,
            folio_mapping: member("folio", "mapping", "folio.mapping")?,
            fault_vma: member("vm_fault", "vma", "vm_fault.vma")?,
            fault_address: member("vm_fault", "address", "vm_fault.address")?,
            fault_pte: member("vm_fault", "orig_pte", "vm_fault.orig_pte")?,
            page_head: member("page", "compound_head", "page.compound_head")
                .or_else(|_| member("page", "compound_info", "page.compound_head"))?,
            folio_swap: member("folio", "swap", "folio.swap")
                .or_else(|_| member("folio", "private", "folio.private"))?,
            pg_swapbacked: self
                .constant("pageflags", "PG_swapbacked")
                .ok_or(missing("PG_swapbacked"))?,
            pg_swapcache: self
                .constant("pageflags", "PG_swapcache")
                .ok_or(missing("PG_swapcache"))?,
            mm_pgd: member("mm_struct", "pgd", "mm_struct.pgd")?,
            remove_arg_is_walk: u32::from(walk.is_some()),
            walk_folio: walk.unwrap_or(0),
            page_struct_shift: self.page_struct_shift().ok_or(missing("struct page"))?,
            ..Config::UNSET
        })
    }

    /// Checks that a hook passes what its program takes: a kernel that differs is refused before it is misread.
    ///
    /// # Errors
    /// What the kernel has instead.
    pub fn check(&self, hook: &Hook) -> Result<(), String> {
        let expected = hook.arguments;
        let target = self.target(hook).ok_or(match hook.attach {
            Attach::Fentry | Attach::Fexit => "this kernel has no such function",
            Attach::RawTracepoint => "this kernel has no such tracepoint",
        })?;
        match hook.attach {
            Attach::Fentry | Attach::Fexit => {
                let parameters = self.0.parameters(target).ok_or("this kernel has no such function")?;
                let (expected, more) = match expected {
                    [expected @ .., "..."] => (expected, true),
                    expected => (expected, false),
                };
                let enough = parameters.len() == expected.len() || (more && parameters.len() > expected.len());
                let same = enough
                    && parameters
                        .iter()
                        .zip(expected)
                        .all(|(have, want)| want.split('|').any(|name| name == *have));
                same.then_some(())
                    .ok_or_else(|| format!("this kernel's takes ({})", parameters.join(", ")))
            }
            Attach::RawTracepoint => {
                let count = self
                    .0
                    .tracepoint_arguments(target)
                    .ok_or("this kernel has no such tracepoint")?;
                (count >= expected.len())
                    .then_some(())
                    .ok_or_else(|| format!("this kernel's passes {count} arguments"))
            }
        }
    }

    /// Which of a hook's targets this kernel has; None: none.
    #[must_use]
    pub fn target(&self, hook: &Hook) -> Option<&'static str> {
        hook.target.split('|').find(|target| match hook.attach {
            Attach::Fentry | Attach::Fexit => self.0.parameters(target).is_some(),
            Attach::RawTracepoint => self.0.tracepoint_arguments(target).is_some(),
        })
    }

    /// The running kernel's names for its migrate reasons (`enum migrate_reason`).
    #[must_use]
    pub fn reasons(&self) -> ReasonNames {
        ReasonNames::from_kernel(self.0.constants("migrate_reason").unwrap_or_default().into_iter())
    }

    fn page_struct_shift(&self) -> Option<u32> {
        let size = self.0.size("page")?;
        size.is_power_of_two().then(|| size.trailing_zeros())
    }

    fn constant(&self, enumeration: &str, name: &str) -> Option<u32> {
        let constants = self.0.constants(enumeration)?;
        constants
            .into_iter()
            .find(|(have, _)| *have == name)
            .map(|(_, value)| value)
    }
}
