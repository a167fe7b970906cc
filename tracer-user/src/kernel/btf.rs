//! A reader of BTF, the kernel's description of its own types; it looks types up by name without copying them.
//! Input: the bytes of /sys/kernel/btf/vmlinux (Documentation/bpf/btf.rst, include/uapi/linux/btf.h).

use std::{hash::BuildHasher as _, ops::Range};

use hashbrown::{DefaultHashBuilder, HashTable};

/// `BTF_MAGIC`.
const MAGIC: u16 = 0xeb9f;
/// `BTF_KIND_FWD`.
const FORWARD: u32 = 7;
/// `BTF_KIND_FUNC`.
const FUNC: u32 = 12;
/// Anonymous structures nest a few levels deep in the kernel; a damaged file may nest for ever.
const MAX_NESTING: usize = 16;

/// Why bytes are not valid BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct BtfDamage {
    /// The defect.
    what: &'static str,
    /// The offset of the defect, bytes.
    at: usize,
}

/// `BTF_KIND_*`: the kinds that are looked up by name, and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum TypeKind {
    Struct,
    Union,
    Enum,
    Func,
    FuncProto,
    Pointer,
    /// An integer, or an enumeration of 64 bits; these are not looked up by name.
    Number,
    Typedef,
    /// `const`, `volatile`, `restrict`, type tag: another name for a type.
    Alias,
    Other,
}

/// How an argument is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// A pointer.
    Pointer,
    /// An integer or an enumeration.
    Number,
    /// Something else, such as a structure by value.
    Other,
}

/// One `struct btf_type` and the data that follows it.
#[derive(Clone, Copy)]
struct Type<'a> {
    kind: TypeKind,
    /// Bit 31 of `info`: for structures, members carry bit-field sizes.
    flag: bool,
    /// `size` of a structure, or the `type` that this one refers to: the kernel, too, keeps both in one field.
    size_or_target: u32,
    /// Members, constants or parameters.
    tail: &'a [u8],
}

/// BTF, indexed by type id and by name.
pub struct Btf {
    bytes: Vec<u8>,
    /// The offset of each type; id 0 is `void` and has no entry.
    types: Vec<u32>,
    strings: Range<usize>,
    /// The ids of the types that are looked up by name. The first definition with a name counts.
    named: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Btf {
    /// Indexes the types.
    ///
    /// # Errors
    /// [`BtfDamage`] if a section or a type does not fit.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfDamage> {
        let damage = |what, at| BtfDamage { what, at };
        if word16(&bytes, 0) != Some(MAGIC) {
            return Err(damage("no BTF magic", 0));
        }
        let header = |at| {
            word(&bytes, at)
                .map(|word| word as usize)
                .ok_or(damage("a header cut off", at))
        };
        let (base, type_off, type_len, str_off, str_len) =
            (header(4)?, header(8)?, header(12)?, header(16)?, header(20)?);
        let section = |off: usize, len: usize, at| {
            let start = base.checked_add(off).ok_or(damage("a section beyond the file", at))?;
            let end = start.checked_add(len).filter(|&end| end <= bytes.len());
            end.map(|end| start..end).ok_or(damage("a section beyond the file", at))
        };
        let strings = section(str_off, str_len, 16)?;
        let section = section(type_off, type_len, 8)?;
        let mut types = Vec::with_capacity(type_len / 24);
        let mut at = section.start;
        while at < section.end {
            let info = word(&bytes, at + 4).ok_or(damage("a type cut off", at))?;
            let next = at + 12 + tail_len(info).ok_or(damage("an unknown kind of type", at))?;
            if next > section.end {
                return Err(damage("a type cut off", at));
            }
            types.push(u32::try_from(at).map_err(|_| damage("too large a file", at))?);
            at = next;
        }
        let mut btf = Self {
            bytes,
            types,
            strings,
            named: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        };
        btf.named = btf.names();
        Ok(btf)
    }

    /// The ids of the types that have a name and a kind that is looked up by name.
    fn names(&self) -> HashTable<u32> {
        let mut named = HashTable::with_capacity(self.types.len());
        for id in (1..).take(self.types.len()) {
            let Some(name) = self.name(id) else { continue };
            named
                .entry(
                    self.hasher.hash_one(name),
                    |&known| self.name(known) == Some(name),
                    |&known| self.hasher.hash_one(self.name(known).unwrap_or(name)),
                )
                .or_insert(id);
        }
        named
    }

    /// The kind of a type and its name. None: it is not looked up by name.
    fn name(&self, id: u32) -> Option<(TypeKind, &[u8])> {
        let at = *self.types.get((id as usize).checked_sub(1)?)? as usize;
        let kind = kind(word(&self.bytes, at + 4)?);
        if !matches!(
            kind,
            TypeKind::Struct | TypeKind::Enum | TypeKind::Func | TypeKind::Typedef
        ) {
            return None;
        }
        let name = self.string_bytes(word(&self.bytes, at)?)?;
        (!name.is_empty()).then_some((kind, name))
    }

    /// BTF that has these functions under the ids that they have here, and nothing else: its other types are forward
    /// declarations without a name. A reader that goes through all types to find a function compares few names in it.
    pub fn only_functions<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<u8> {
        let mut ids: Vec<u32> = names.filter_map(|name| self.id(name, TypeKind::Func)).collect();
        ids.sort_unstable();
        ids.dedup();
        let count = ids.last().copied().unwrap_or(0);
        let (mut types, mut strings) = (Vec::with_capacity(12 * count as usize), vec![0]);
        let mut ids = ids.into_iter().peekable();
        for id in 1..=count {
            let function = ids.next_if_eq(&id).and_then(|id| self.name(id));
            let (name, info) = match function {
                Some((_, name)) => {
                    let at = strings.len();
                    strings.extend_from_slice(name);
                    strings.push(0);
                    (u32::try_from(at).unwrap_or(0), FUNC << 24)
                }
                None => (0, FORWARD << 24),
            };
            types.extend([name, info, 0].into_iter().flat_map(u32::to_ne_bytes));
        }
        file(&types, &strings)
    }

    /// Byte offset of a structure's member, named by a path through structures: `dentry.d_name.name`. A member of an
    /// anonymous structure or union belongs to the structure around it. None if there is no such member, or it is a bit
    /// field.
    #[must_use]
    pub fn member(&self, path: &str) -> Option<u32> {
        let mut names = path.split('.');
        let mut ty = self.find(names.next()?, TypeKind::Struct)?;
        let mut bits = 0u32;
        for (depth, name) in names.enumerate() {
            if depth > 0 && !matches!(ty.kind, TypeKind::Struct | TypeKind::Union) {
                return None;
            }
            let (offset, id) = self.named_member(ty, name, 0)?;
            bits = bits.checked_add(offset)?;
            ty = self.resolve(id)?;
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Size of a structure in bytes.
    #[must_use]
    pub fn size(&self, structure: &str) -> Option<u32> {
        Some(self.find(structure, TypeKind::Struct)?.size_or_target)
    }

    /// The constants of an enumeration, in their order.
    #[must_use]
    pub fn constants(&self, enumeration: &str) -> Option<Vec<(&str, u32)>> {
        let ty = self.find(enumeration, TypeKind::Enum)?;
        let (constants, _) = ty.tail.as_chunks::<8>();
        Some(
            constants
                .iter()
                .filter_map(|c| Some((self.string(word(c, 0)?)?, word(c, 4)?)))
                .collect(),
        )
    }

    /// The names of a function's parameters; None if there is no such function.
    #[must_use]
    pub fn parameters(&self, function: &str) -> Option<Vec<&str>> {
        let prototype = self.by_id(self.find(function, TypeKind::Func)?.size_or_target)?;
        if prototype.kind != TypeKind::FuncProto {
            return None;
        }
        let (parameters, _) = prototype.tail.as_chunks::<8>();
        Some(parameters.iter().filter_map(|p| self.string(word(p, 0)?)).collect())
    }

    /// The arguments of a tracepoint, from its typedef `btf_trace_NAME` (include/trace/bpf_probe.h): a pointer to a
    /// function whose first argument is the private data. None if there is no such tracepoint.
    #[must_use]
    pub fn tracepoint_arguments(&self, name: &str) -> Option<Vec<Passed>> {
        let pointer = self.by_id(
            self.find(&format!("btf_trace_{name}"), TypeKind::Typedef)?
                .size_or_target,
        )?;
        let prototype = self.by_id(pointer.size_or_target)?;
        if pointer.kind != TypeKind::Pointer || prototype.kind != TypeKind::FuncProto {
            return None;
        }
        let (parameters, _) = prototype.tail.as_chunks::<8>();
        let (_, arguments) = parameters.split_first()?;
        Some(
            arguments
                .iter()
                .map(|argument| self.passed(word(argument, 4)))
                .collect(),
        )
    }

    fn passed(&self, id: Option<u32>) -> Passed {
        match id.and_then(|id| self.resolve(id)).map(|ty| ty.kind) {
            Some(TypeKind::Pointer) => Passed::Pointer,
            Some(TypeKind::Number | TypeKind::Enum) => Passed::Number,
            _ => Passed::Other,
        }
    }

    /// Offset in bits and type of a member.
    fn named_member(&self, ty: Type<'_>, wanted: &str, depth: usize) -> Option<(u32, u32)> {
        let (members, _) = ty.tail.as_chunks::<12>();
        members.iter().find_map(|member| {
            let (name, id, offset) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            let (offset, bit_field) = if ty.flag {
                (offset & 0xff_ffff, offset >> 24 != 0)
            } else {
                (offset, false)
            };
            if name != 0 {
                return (self.string(name)? == wanted && !bit_field).then_some((offset, id));
            }
            let inner = self.resolve(id)?;
            if depth >= MAX_NESTING || !matches!(inner.kind, TypeKind::Struct | TypeKind::Union) {
                return None;
            }
            let (inside, id) = self.named_member(inner, wanted, depth + 1)?;
            Some((inside.checked_add(offset)?, id))
        })
    }

    /// The type that aliases stand for.
    fn resolve(&self, mut id: u32) -> Option<Type<'_>> {
        for _ in 0..MAX_NESTING {
            let ty = self.by_id(id)?;
            if !matches!(ty.kind, TypeKind::Alias | TypeKind::Typedef) {
                return Some(ty);
            }
            id = ty.size_or_target;
        }
        None
    }

    /// The first definition with that kind and name; a forward declaration is not a definition.
    fn find(&self, name: &str, kind: TypeKind) -> Option<Type<'_>> {
        self.by_id(self.id(name, kind)?)
    }

    fn id(&self, name: &str, kind: TypeKind) -> Option<u32> {
        let wanted = (kind, name.as_bytes());
        let id = self
            .named
            .find(self.hasher.hash_one(wanted), |&id| self.name(id) == Some(wanted))?;
        Some(*id)
    }

    fn by_id(&self, id: u32) -> Option<Type<'_>> {
        self.at(*self.types.get((id as usize).checked_sub(1)?)? as usize)
    }

    fn at(&self, at: usize) -> Option<Type<'_>> {
        let info = word(&self.bytes, at + 4)?;
        let tail = at + 12;
        Some(Type {
            kind: kind(info),
            flag: info >> 31 != 0,
            size_or_target: word(&self.bytes, at + 8)?,
            tail: self.bytes.get(tail..tail + tail_len(info)?)?,
        })
    }

    fn string(&self, offset: u32) -> Option<&str> {
        str::from_utf8(self.string_bytes(offset)?).ok()
    }

    fn string_bytes(&self, offset: u32) -> Option<&[u8]> {
        let strings = self.bytes.get(self.strings.clone())?.get(offset as usize..)?;
        strings.split(|&byte| byte == 0).next()
    }
}

fn kind(info: u32) -> TypeKind {
    match info >> 24 & 0x1f {
        1 | 19 => TypeKind::Number,
        4 => TypeKind::Struct,
        5 => TypeKind::Union,
        6 => TypeKind::Enum,
        2 => TypeKind::Pointer,
        8 => TypeKind::Typedef,
        9..=11 | 18 => TypeKind::Alias,
        FUNC => TypeKind::Func,
        13 => TypeKind::FuncProto,
        _ => TypeKind::Other,
    }
}

/// The number of bytes after the 12 common ones; None for an unknown kind, whose length is unknown as well.
fn tail_len(info: u32) -> Option<usize> {
    let count = (info & 0xffff) as usize;
    Some(match info >> 24 & 0x1f {
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        4 | 5 | 15 | 19 => 12 * count,
        // ENUM, FUNC_PROTO
        6 | 13 => 8 * count,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A BTF file with these types and strings (`struct btf_header`).
pub(super) fn file(types: &[u8], strings: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut file = MAGIC.to_ne_bytes().to_vec();
    file.extend([1, 0]);
    for word in [24, 0, len(types), len(types), len(strings)] {
        file.extend(u32::to_ne_bytes(word));
    }
    file.extend(types);
    file.extend(strings);
    file
}

/// The bytes of types that are written as words.
#[cfg(test)]
pub(super) fn words(types: &[u32]) -> Vec<u8> {
    types.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the sample is small")]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    const STRINGS: &str = "\0outer\0plain\0deep\0reason\0ONE\0TWO\0func\0arg\0bits\0btf_trace_tp\0";

    /// `struct outer { int plain; const union { struct { int _; int deep; }; }; int bits : 3; }`, an enum, a function.
    fn sample() -> Vec<u8> {
        let at = |name: &str| STRINGS.find(&format!("\0{name}\0")).map_or(0, |at| at as u32 + 1);
        #[rustfmt::skip]
        let types = [
            0, 1 << 24, 4, 32,                                        // 1: int
            at("outer"), 4 << 24 | 3 | 1 << 31, 16,                   // 2: struct, with bit fields
                at("plain"), 1, 0,
                0, 3, 32,
                at("bits"), 1, 3 << 24 | 0x60,
            0, 10 << 24, 4,                                           // 3: const -> 4
            0, 5 << 24 | 1, 8, 0, 5, 0,                               // 4: union
            0, 4 << 24 | 2, 8, at("plain"), 1, 0, at("deep"), 1, 32,  // 5: struct
            at("reason"), 6 << 24 | 2, 4, at("ONE"), 1, at("TWO"), 2, // 6: enum
            0, 13 << 24 | 1, 1, at("arg"), 1,                         // 7: prototype
            at("func"), 12 << 24, 7,                                  // 8: function
            0, 2 << 24, 7,                                            // 9: pointer -> 7
            at("btf_trace_tp"), 8 << 24, 9,                           // 10: typedef -> 9
        ];
        file(&words(&types), STRINGS.as_bytes())
    }

    #[test]
    fn members_are_found_through_anonymous_ones() -> Result<(), BtfDamage> {
        let btf = Btf::parse(sample())?;
        assert_eq!(btf.member("outer.plain"), Some(0));
        assert_eq!(btf.member("outer.deep"), Some(8));
        assert_eq!(btf.member("outer.bits"), None);
        assert_eq!(btf.member("outer.absent"), None);
        assert_eq!(btf.member("outer"), Some(0));
        assert_eq!(btf.member("outer.plain.deep"), None, "of an integer");
        assert_eq!(btf.size("outer"), Some(16));
        assert_eq!(btf.constants("reason"), Some(vec![("ONE", 1), ("TWO", 2)]));
        assert_eq!(btf.parameters("func"), Some(vec!["arg"]));
        assert_eq!(btf.parameters("outer"), None);
        assert_eq!(btf.tracepoint_arguments("tp"), Some(Vec::new()));
        assert_eq!(btf.tracepoint_arguments("func"), None);
        Ok(())
    }

    #[test]
    fn only_the_functions_are_left_and_keep_their_ids() -> Result<(), BtfDamage> {
        let btf = Btf::parse(sample())?;
        let names = ["func", "absent", "func", "outer"];
        let only = Btf::parse(btf.only_functions(names.into_iter()))?;
        assert_eq!(only.id("func", TypeKind::Func), Some(8));
        assert_eq!((only.types.len(), only.named.len()), (8, 1));
        assert!(Btf::parse(btf.only_functions(std::iter::empty()))?.types.is_empty());
        Ok(())
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(flips in proptest::collection::vec((0usize..300, any::<u8>()), 0..6), cut in 0usize..300) {
            let mut bytes = sample();
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(cut.max(24));
            if let Ok(btf) = Btf::parse(bytes) {
                let _ = (btf.member("outer.deep"), btf.constants("reason"), btf.parameters("func"), btf.size("outer"));
                let _ = btf.only_functions(["func"].into_iter());
            }
        }
    }
}
