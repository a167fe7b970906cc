//! What the programs must know of the running kernel's structures, and its names for reasons.
//! Input: the kernel's BTF, /sys/kernel/btf/vmlinux.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use btfparse::{Integer32Value, Offset, Readable, TypeInformation, TypeVariant};
use tracer_common::config::Config;

use crate::event::ReasonNames;

/// Where a kernel built with CONFIG_DEBUG_INFO_BTF shows its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel's types are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
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
    Parse(String),
    /// A structure, member or constant that tracer needs is not in this kernel.
    #[error("this kernel has no {0}, which tracer needs to name a page's owner")]
    Missing(&'static str),
}

/// The types of a kernel.
pub struct KernelTypes(TypeInformation);

struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let source = start
            .checked_add(buffer.len())
            .and_then(|end| self.0.get(start..end))
            .ok_or_else(|| btfparse::Error::new(btfparse::ErrorKind::IOError, "read past the end"))?;
        buffer.copy_from_slice(source);
        Ok(())
    }
}

impl KernelTypes {
    /// Reads and indexes a BTF file.
    ///
    /// # Errors
    /// [`BtfError::Read`], [`BtfError::Parse`].
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let bytes = fs::read(path).map_err(|source| BtfError::Read {
            path: path.to_owned(),
            source,
        })?;
        TypeInformation::new(&Bytes(bytes))
            .map(Self)
            .map_err(|e| BtfError::Parse(format!("{e:?}")))
    }

    /// Whether the kernel has a function of this name that a hook could be put on.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.0
            .get()
            .values()
            .any(|ty| matches!(ty, TypeVariant::Func(f) if f.name().as_deref() == Some(name)))
    }

    /// The offsets that the programs need; the filter is left open.
    ///
    /// # Errors
    /// [`BtfError::Missing`] names the first one that this kernel does not have.
    pub fn config(&self) -> Result<Config, BtfError> {
        let walk = self.member("rmap_walk_arg", "folio");
        Ok(Config {
            vma_mm: self
                .member("vm_area_struct", "vm_mm")
                .ok_or(BtfError::Missing("vm_area_struct.vm_mm"))?,
            mm_owner: self
                .member("mm_struct", "owner")
                .ok_or(BtfError::Missing("mm_struct.owner (CONFIG_MEMCG)"))?,
            task_tgid: self
                .member("task_struct", "tgid")
                .ok_or(BtfError::Missing("task_struct.tgid"))?,
            task_pid: self
                .member("task_struct", "pid")
                .ok_or(BtfError::Missing("task_struct.pid"))?,
            task_comm: self
                .member("task_struct", "comm")
                .ok_or(BtfError::Missing("task_struct.comm"))?,
            task_signal: self
                .member("task_struct", "signal")
                .ok_or(BtfError::Missing("task_struct.signal"))?,
            signal_live: self
                .member("signal_struct", "live")
                .ok_or(BtfError::Missing("signal_struct.live"))?,
            folio_flags: self.member("folio", "flags").ok_or(BtfError::Missing("folio.flags"))?,
            pg_head: self
                .constant("pageflags", "PG_head")
                .ok_or(BtfError::Missing("PG_head"))?,
            // The order's byte: a member of its own on 6.1, the low byte of _flags_1 since 6.6.
            folio_order: self
                .member("folio", "_folio_order")
                .or_else(|| self.member("folio", "_flags_1"))
                .ok_or(BtfError::Missing("folio._flags_1"))?,
            remove_arg_is_walk: u32::from(walk.is_some()),
            walk_folio: walk.unwrap_or(0),
            page_struct_shift: self.page_struct_shift().ok_or(BtfError::Missing("struct page"))?,
            ..Config::UNSET
        })
    }

    /// The running kernel's names for its migrate reasons (`enum migrate_reason`).
    #[must_use]
    pub fn reasons(&self) -> ReasonNames {
        let values = self.enumeration("migrate_reason").unwrap_or_default();
        ReasonNames::from_kernel(values.iter().map(|(name, value)| (name.as_str(), *value)))
    }

    fn page_struct_shift(&self) -> Option<u32> {
        let size = self.0.size_of(self.structure("page")?).ok()?;
        size.is_power_of_two().then(|| size.trailing_zeros())
    }

    /// Byte offset of a member, nested and anonymous ones included.
    fn member(&self, structure: &str, member: &str) -> Option<u32> {
        match self.0.offset_of(self.structure(structure)?, member).ok()? {
            (_, Offset::ByteOffset(bytes)) => Some(bytes),
            (_, Offset::BitOffsetAndSize(..)) => None,
        }
    }

    /// The id of a structure; a function or a variable may have the same name.
    fn structure(&self, name: &str) -> Option<u32> {
        let is_it = |ty: &TypeVariant| matches!(ty, TypeVariant::Struct(s) if s.name().as_deref() == Some(name));
        let id = self.0.id_of(name)?;
        if self.0.get().get(&id).is_some_and(is_it) {
            return Some(id);
        }
        self.0.get().iter().find(|(_, ty)| is_it(ty)).map(|(&id, _)| id)
    }

    fn enumeration(&self, name: &str) -> Option<Vec<(String, u32)>> {
        self.0.get().values().find_map(|ty| match ty {
            TypeVariant::Enum(e) if e.name().as_deref() == Some(name) => Some(
                e.named_value_list()
                    .iter()
                    .filter_map(|named| {
                        let value = match named.value {
                            Integer32Value::Signed(value) => u32::try_from(value).ok()?,
                            Integer32Value::Unsigned(value) => value,
                        };
                        Some((named.name.clone(), value))
                    })
                    .collect(),
            ),
            _ => None,
        })
    }

    fn constant(&self, enumeration: &str, name: &str) -> Option<u32> {
        let values = self.enumeration(enumeration)?;
        values
            .into_iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| value)
    }
}
