//! Selects pages, and the mappings that have to be read for them.
//! Input: the words of the command line, checked.

use crate::pages::extent::{Extent, State};
use crate::proc::entry::FIELDS;
use crate::proc::maps::Vma;
use crate::proc::page_flags;
use crate::units::{NodeId, Order, VirtAddr};

/// Flags that must be set, and flags that must not be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Flags of the frame, bits of kpageflags.
    pub frame: Choice,
    /// Flags of the entry, bits of pagemap.
    pub entry: Choice,
}

/// Bits that must be set, and bits that must not be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// All of these must be set.
    pub set: u64,
    /// None of these may be set.
    pub clear: u64,
}

impl Choice {
    /// Whether a word has all bits that must be set, and none that must not.
    pub fn holds(self, word: u64) -> bool {
        word & self.set == self.set && word & self.clear == 0
    }
}

impl Flags {
    /// Adds a flag by its name; `!` before the name means that the flag must not be set.
    ///
    /// # Errors
    /// A sentence about the defect.
    pub fn add(&mut self, word: &str) -> Result<(), String> {
        let (name, unwanted) = match word.strip_prefix('!') {
            Some(name) => (name, true),
            None => (word, false),
        };
        let field = FIELDS.iter().find(|field| !field.name.is_empty() && field.name == name);
        let (choice, bit) = match (page_flags::by_name(name), field) {
            (Some(flag), _) => (&mut self.frame, 1 << flag.bit),
            (None, Some(field)) => (&mut self.entry, field.mask),
            (None, None) => return Err(format!("no flag {name}: tracer pages --flags-help lists them")),
        };
        if unwanted {
            choice.clear |= bit;
        } else {
            choice.set |= bit;
        }
        if choice.set & choice.clear != 0 {
            return Err(format!("{name} is required and excluded at once"));
        }
        Ok(())
    }

    /// Whether an extent matches. An extent whose frame flags are not known matches only if there is no condition on them.
    fn holds(&self, extent: &Extent) -> bool {
        let frame = match extent.flags {
            Some(flags) => self.frame.holds(flags.bits()),
            None => self.frame == Choice::default(),
        };
        frame && self.entry.holds(extent.entry.0)
    }
}

/// Selects pages. Each list narrows the selection to pages that have any of its values; an empty list selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Flags.
    pub flags: Flags,
    /// Nodes of the frames.
    pub nodes: Vec<NodeId>,
    /// Patterns of the mappings' names: `*` stands for any characters, `?` for one.
    pub vmas: Vec<String>,
    /// Addresses, from the first to before the second.
    pub addresses: Vec<(VirtAddr, VirtAddr)>,
    /// Sizes of the folios.
    pub orders: Vec<Order>,
    /// States.
    pub states: Vec<State>,
}

impl Filter {
    /// Whether single pages of a mapping may be left out.
    pub fn chooses_pages(&self) -> bool {
        let Self {
            flags,
            nodes,
            vmas: _,
            addresses: _,
            orders,
            states,
        } = self;
        *flags != Flags::default() || !(nodes.is_empty() && orders.is_empty() && states.is_empty())
    }

    /// The selected parts of a mapping, by address.
    pub fn parts(&self, vma: &Vma) -> Vec<(VirtAddr, VirtAddr)> {
        if !(self.vmas.is_empty() || self.vmas.iter().any(|pattern| matches(pattern, vma.label()))) {
            return Vec::new();
        }
        if self.addresses.is_empty() {
            return vec![(vma.start, vma.end)];
        }
        let mut parts: Vec<_> = self
            .addresses
            .iter()
            .map(|&(start, end)| (start.max(vma.start), end.min(vma.end)))
            .filter(|(start, end)| start < end)
            .collect();
        parts.sort_unstable();
        // Ranges may overlap, and no page is selected twice.
        let mut last = VirtAddr(0);
        parts.retain_mut(|(start, end)| {
            *start = (*start).max(last);
            last = last.max(*end);
            start < end
        });
        parts
    }

    /// Whether the pages of this extent are selected.
    pub fn wants(&self, extent: &Extent) -> bool {
        let any = |empty: bool, found: bool| empty || found;
        any(self.states.is_empty(), self.states.contains(&extent.state))
            && any(
                self.nodes.is_empty(),
                extent.node.is_some_and(|node| self.nodes.contains(&node)),
            )
            && any(
                self.orders.is_empty(),
                extent.order.is_some_and(|order| self.orders.contains(&order)),
            )
            && self.flags.holds(extent)
    }
}

/// Whether a name matches a pattern, in which `*` stands for any characters and `?` for one.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut seen) = (0, 0);
    // The position from which to retry if the rest after the last star does not match here.
    let mut again = None;
    while seen < name.len() {
        match pattern.get(at) {
            Some('*') => {
                again = Some((at + 1, seen));
                at += 1;
            }
            Some(&token) if token == '?' || token == name[seen] => {
                at += 1;
                seen += 1;
            }
            Some(_) | None => match again {
                Some((behind_star, from)) => {
                    again = Some((behind_star, from + 1));
                    at = behind_star;
                    seen = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&token| token == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::entry::Meaning;
    use crate::proc::kpage::{KpfQuirks, PageFlags};
    use crate::proc::maps;
    use crate::proc::pagemap::Entry;
    use crate::units::Pfn;

    fn extent(flags: Option<u64>) -> Extent {
        Extent {
            address: VirtAddr(0x1000),
            pages: 1,
            state: State::Present,
            entry: Entry(1 << 63 | 1 << 56 | 7),
            meaning: Meaning::Frame(Pfn(7)),
            node: Some(NodeId(1)),
            flags: flags.map(|word| PageFlags::new(word, KpfQuirks::default())),
            mapped: Some(1),
            order: Some(Order(0)),
            mapping: None,
        }
    }

    fn flags(words: &[&str]) -> Filter {
        let mut flags = Flags::default();
        for word in words {
            flags.add(word).unwrap();
        }
        Filter {
            flags,
            ..Filter::default()
        }
    }

    #[test]
    fn flags_must_be_set_or_not() {
        let dirty = extent(Some(1 << 4 | 1 << 12));
        assert!(flags(&["dirty"]).wants(&dirty) && flags(&["dirty", "anon", "!lru"]).wants(&dirty));
        assert!(!flags(&["!dirty"]).wants(&dirty) && !flags(&["dirty", "lru"]).wants(&dirty));
        assert!(flags(&["exclusive", "!file"]).wants(&dirty) && !flags(&["soft_dirty"]).wants(&dirty));
        // An extent whose flags are not known matches no condition on them.
        assert!(!flags(&["dirty"]).wants(&extent(None)) && !flags(&["!dirty"]).wants(&extent(None)));
        assert!(flags(&["exclusive"]).wants(&extent(None)));
        assert!(Flags::default().add("nonsense").unwrap_err().contains("--flags-help"));
        assert!(Flags::default().add("").is_err());
        let mut both = Flags::default();
        both.add("ksm").unwrap();
        assert!(both.add("!ksm").is_err());
    }

    #[test]
    fn any_value_of_each_list_will_do() {
        let page = extent(Some(0));
        assert!(Filter::default().wants(&page) && !Filter::default().chooses_pages());
        let nodes = |nodes: &[u32]| Filter {
            nodes: nodes.iter().map(|&node| NodeId(node)).collect(),
            ..Filter::default()
        };
        assert!(nodes(&[0, 1]).wants(&page) && !nodes(&[0]).wants(&page) && nodes(&[0]).chooses_pages());
        let elsewhere = Extent { node: None, ..page };
        assert!(!nodes(&[0, 1]).wants(&elsewhere));
        let states = Filter {
            states: vec![State::Guard, State::Present],
            orders: vec![Order(9)],
            ..Filter::default()
        };
        assert!(!states.wants(&page));
        let huge = Extent {
            order: Some(Order(9)),
            ..page
        };
        assert!(states.wants(&huge));
    }

    #[test]
    fn parts_of_a_mapping_are_taken_once() {
        let text = b"10000-20000 rw-p 0 0:0 0 \n20000-30000 rw-p 0 0:0 0 [heap]\n";
        let vmas: Vec<Vma> = maps::parse(&text[..]).map(Result::unwrap).collect();
        let range = |start, end| (VirtAddr(start), VirtAddr(end));
        let filter = Filter {
            addresses: vec![
                range(0x18000, 0x22000),
                range(0x12000, 0x13000),
                range(0x12000, 0x14000),
            ],
            ..Filter::default()
        };
        let expected = [
            range(0x12000, 0x13000),
            range(0x13000, 0x14000),
            range(0x18000, 0x20000),
        ];
        assert_eq!(filter.parts(&vmas[0]), expected);
        assert_eq!(filter.parts(&vmas[1]), [range(0x20000, 0x22000)]);
        let heap = Filter {
            vmas: vec!["[h*".to_owned()],
            ..Filter::default()
        };
        assert!(heap.parts(&vmas[0]).is_empty() && !heap.parts(&vmas[1]).is_empty());
        assert!(!heap.chooses_pages());
    }

    #[test]
    fn patterns_have_stars_and_question_marks() {
        for (pattern, name) in [
            ("*", ""),
            ("", ""),
            ("*libc*", "/usr/lib/libc.so.6"),
            ("a*b*c", "axbxbxc"),
            ("?n?n", "anon"),
            ("[stack]", "[stack]"),
            ("**x", "x"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "x"), ("a", "ab"), ("*b", "ba"), ("?", ""), ("a*b", "acd")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
