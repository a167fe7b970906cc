//! The filters of a run, and the frozen filter that the kernel side checks.
//! Input: the values of the filters; the kernel's names of reasons, the nodes' frames, the cgroups.

pub mod values;

use std::fmt;

use tracer_common::{
    filter::{Filter, MAX_ACTORS, MAX_CGROUPS, MAX_NODE_PAIRS, MAX_RANGES, MAX_SPANS, Span, membership},
    names::Names,
};

use crate::{
    escape::Printable,
    event::{KernelNames, Reason},
    kernel::topology::Topology,
    proc::cgroup::{Cgroup, CgroupError, Hierarchy},
    session::filters::values::{Actor, NodePair, Range},
    units::{NodeId, Order, PAGE_SHIFT},
    words::quantity::Bytes,
};

/// The selection of moves: all filters that are given must match, each with any of its values.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    /// Processes in these cgroups (v2) or below them.
    pub cgroup: Vec<String>,
    /// Processes with these names, as patterns.
    pub comm: Vec<String>,
    /// The processes or threads that move pages.
    pub actor: Vec<Actor>,
    /// Reasons, by the kernel's name or by number.
    pub reason: Vec<String>,
    /// Pairs of old and new node.
    pub nodes: Vec<NodePair>,
    /// Ranges of virtual addresses.
    pub address: Vec<Range>,
    /// Folios of at least this order.
    pub min_order: Option<Order>,
}

/// Why filters cannot be set on this machine.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A value is unknown here, or has no room. The message names its option.
    #[error("{0}")]
    Refused(String),
    /// A cgroup cannot be found.
    #[error("{0}")]
    Cgroup(#[from] CgroupError),
}

/// The filters, ready for the kernel side.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The filter that the BPF programs check.
    pub filter: Filter,
    /// The wanted cgroups, as user space knows them.
    pub cgroups: Vec<Cgroup>,
    /// A description for the header: `, comm nginx*, reason compaction`; empty without filters.
    pub words: String,
}

impl Filters {
    /// Whether the filters alone select processes, so that no others need be given.
    #[must_use]
    pub fn select(&self) -> bool {
        !(self.cgroup.is_empty() && self.comm.is_empty() && self.actor.is_empty())
    }

    /// Resolves the values on this machine. `lineage`: processes were requested by number, with `follow` their
    /// children, too.
    ///
    /// # Errors
    /// The value that is unknown here, or has no room, in one line.
    pub fn compile(
        &self,
        lineage: bool,
        follow: bool,
        names: &KernelNames,
        topology: &Topology,
    ) -> Result<Compiled, FilterError> {
        let mut filter = Filter {
            need: if lineage { membership::LINEAGE } else { 0 },
            follow: u32::from(follow),
            min_order: self.min_order.map_or(0, |order| order.0.into()),
            ..Filter::EVERYTHING
        };
        let mut cgroups = Vec::new();
        if !self.cgroup.is_empty() {
            filter.need |= membership::CGROUP;
            let hierarchy = Hierarchy::find()?;
            for given in &self.cgroup {
                cgroups.push(hierarchy.resolve(given)?);
            }
            let ids = cgroups.iter().map(|cgroup| cgroup.id);
            filter.cgroup_count = fill(&mut filter.cgroups, ids, MAX_CGROUPS, "--cgroup")?;
        }
        if !self.comm.is_empty() {
            filter.need |= membership::COMM;
            add_names(&mut filter.comms, &self.comm, "--comm")?;
        }
        self.compile_actors(&mut filter)?;
        for given in &self.reason {
            let number = reason(given, names)?;
            filter.by_reason = 1;
            filter.reasons[usize::from(number >> 6)] |= 1 << (number & 63);
        }
        let ranges = self.address.iter().map(|range| [range.start.0, range.end.0]);
        filter.range_count = fill(&mut filter.ranges, ranges, MAX_RANGES, "--address")?;
        if !self.nodes.is_empty() {
            compile_nodes(&mut filter, &self.nodes, topology)?;
        }
        Ok(Compiled {
            filter,
            cgroups,
            words: self.to_string(),
        })
    }

    fn compile_actors(&self, filter: &mut Filter) -> Result<(), FilterError> {
        let (mut tgids, mut names) = (Vec::new(), Vec::new());
        for actor in &self.actor {
            match actor {
                Actor::Pid(pid) => tgids.push(*pid),
                Actor::Name(name) => names.push(name.clone()),
            }
        }
        filter.by_actor = u32::from(!self.actor.is_empty());
        filter.actor_count = fill(&mut filter.actor_tgids, tgids.into_iter(), MAX_ACTORS, "--actor")?;
        add_names(&mut filter.actors, &names, "--actor")
    }
}

impl fmt::Display for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, "cgroup", self.cgroup.iter().map(|path| Printable(path)))?;
        list(f, "comm", self.comm.iter().map(|name| Printable(name)))?;
        list(f, "actor", &self.actor)?;
        list(f, "reason", self.reason.iter().map(|name| Printable(name)))?;
        list(f, "nodes", &self.nodes)?;
        list(f, "address", &self.address)?;
        match self.min_order {
            Some(order) => write!(f, ", {} or more", Bytes(order.pages() << PAGE_SHIFT)),
            None => Ok(()),
        }
    }
}

fn refused(message: String) -> FilterError {
    FilterError::Refused(message)
}

/// `, comm nginx* or php*`; empty without values.
fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, values: impl IntoIterator<Item = T>) -> fmt::Result {
    for (at, value) in values.into_iter().enumerate() {
        match at {
            0 => write!(f, ", {name} {value}")?,
            _ => write!(f, " or {value}")?,
        }
    }
    Ok(())
}

/// Copies the values into an array of the filter; returns their number.
fn fill<T: Copy>(
    array: &mut [T],
    values: impl ExactSizeIterator<Item = T>,
    most: usize,
    option: &str,
) -> Result<u32, FilterError> {
    let count = values.len();
    if count > most {
        return Err(refused(format!("{option} takes at most {most} values")));
    }
    for (slot, value) in array.iter_mut().zip(values) {
        *slot = value;
    }
    Ok(u32::try_from(count).unwrap_or_else(|_| unreachable!("an array of the filter has few places")))
}

fn add_names(set: &mut Names, patterns: &[String], option: &str) -> Result<(), FilterError> {
    for pattern in patterns {
        set.add(pattern.as_bytes())
            .map_err(|error| refused(format!("{option} {}: {error}", Printable(pattern))))?;
    }
    Ok(())
}

/// The reason's number, by the running kernel's name for it or as a number.
fn reason(given: &str, names: &KernelNames) -> Result<u8, FilterError> {
    if let Ok(number) = given.parse() {
        return Ok(number);
    }
    let named = |reason: &&Reason| reason.name.as_deref() == Some(given);
    let known: Vec<_> = names.known_reasons().collect();
    known.iter().find(named).map(|reason| reason.number).ok_or_else(|| {
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        refused(format!(
            "--reason {}: no such reason; this kernel has {}",
            Printable(given),
            known.join(", ")
        ))
    })
}

/// Each range of frames with the pairs of its node; ranges without a pair of their own are left out.
fn compile_nodes(filter: &mut Filter, pairs: &[NodePair], topology: &Topology) -> Result<(), FilterError> {
    if pairs.len() > MAX_NODE_PAIRS {
        return Err(refused(format!("--nodes takes at most {MAX_NODE_PAIRS} pairs")));
    }
    let nodes = topology.nodes();
    for node in pairs.iter().flat_map(|pair| [pair.from, pair.to]).flatten() {
        if !nodes.iter().any(|known| known.id == node) {
            let known: Vec<String> = nodes.iter().map(|known| known.id.to_string()).collect();
            return Err(refused(format!(
                "--nodes: no node {node}; this machine has {}",
                known.join(", ")
            )));
        }
    }
    let bits = |node: Option<NodeId>, side: fn(&NodePair) -> Option<NodeId>| {
        pairs
            .iter()
            .enumerate()
            .filter(|(_, pair)| side(pair).is_none_or(|wanted| Some(wanted) == node))
            .fold(0u32, |bits, (at, _)| bits | 1 << at)
    };
    let masks = |node| [bits(node, |pair| pair.from), bits(node, |pair| pair.to)];
    filter.by_nodes = 1;
    filter.elsewhere = masks(None);
    let mut spans: Vec<Span> = Vec::new();
    for (frames, node) in topology.frames() {
        // Frame 0 stands for an unknown frame, and is never in use.
        let first = frames.start.0.max(1);
        let [from, to] = masks(Some(node));
        match spans.last_mut() {
            _ if [from, to] == filter.elsewhere => {}
            Some(last) if last.end == first && [last.from, last.to] == [from, to] => last.end = frames.end.0,
            _ => spans.push(Span {
                start: first,
                end: frames.end.0,
                from,
                to,
            }),
        }
    }
    if spans.len() > MAX_SPANS {
        return Err(refused(format!(
            "--nodes: the memory of these nodes is in {} pieces, at most {MAX_SPANS} fit; use any for one side",
            spans.len()
        )));
    }
    filter.span_count = fill(&mut filter.spans, spans.into_iter(), MAX_SPANS, "--nodes")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Names;
    use crate::kernel::topology::{Sources, Zone};
    use crate::units::{Pfn, VirtAddr};

    fn node_pair(pair: &str) -> NodePair {
        let node = |word: &str| word.parse().ok().map(NodeId);
        let (from, to) = pair.split_once(':').unwrap();
        NodePair {
            from: node(from),
            to: node(to),
        }
    }

    fn range(start: u64, end: u64) -> Range {
        Range {
            start: VirtAddr(start),
            end: VirtAddr(end),
        }
    }

    fn names() -> KernelNames {
        let constants = [("MR_COMPACTION", 0), ("MR_SYSCALL", 3), ("MR_TYPES", 4)];
        KernelNames {
            reasons: Names::reasons(constants.into_iter()),
            ..KernelNames::default()
        }
    }

    /// Node 0 has frames 0x100 to 0x200, node 1 up to 0x300, node 0 again up to 0x400.
    fn topology() -> Topology {
        let zone = |node, start| Zone {
            node: NodeId(node),
            start: Pfn(start),
            spanned: 0x100,
            present: 0x100,
        };
        let sources = Sources {
            zones: vec![zone(0, 0x100), zone(1, 0x200), zone(0, 0x300)],
            ..Sources::default()
        };
        Topology::from_sources(&sources).unwrap()
    }

    fn compile(args: &Filters) -> Result<Compiled, String> {
        args.compile(false, true, &names(), &topology())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn without_filters_everything_passes() {
        let compiled = compile(&Filters::default()).unwrap();
        assert_eq!(
            compiled.filter,
            Filter {
                follow: 1,
                ..Filter::EVERYTHING
            }
        );
        assert_eq!(compiled.words, "");
        assert!(!Filters::default().select());
    }

    #[test]
    fn reasons_by_name_and_number() {
        let of = |names: &[&str]| Filters {
            reason: names.iter().map(|&name| name.to_owned()).collect(),
            ..Filters::default()
        };
        let filter = compile(&of(&["syscall_or_cpuset", "0", "130"])).unwrap().filter;
        assert_eq!((filter.by_reason, filter.reasons), (1, [0b1001, 0, 0b100, 0]));
        let error = compile(&of(&["swapping"])).unwrap_err();
        assert_eq!(
            error,
            "--reason swapping: no such reason; this kernel has compaction, syscall_or_cpuset, collapse, ksm_merge, \
             ksm_unmerge, cow, swap_out, swap_in"
        );
    }

    /// The answer of the BPF programs, from the same table.
    fn wanted(filter: &Filter, old: u64, new: u64) -> bool {
        let pairs = |pfn| {
            let spans = &filter.spans[..filter.span_count as usize];
            spans
                .iter()
                .find(|span| (span.start..span.end).contains(&pfn))
                .map_or(filter.elsewhere, |span| [span.from, span.to])
        };
        pairs(old)[0] & pairs(new)[1] != 0
    }

    #[test]
    fn pairs_of_nodes_become_ranges_of_frames() {
        let of = |pairs: &str| {
            let nodes = pairs.split(',').map(node_pair).collect();
            compile(&Filters {
                nodes,
                ..Filters::default()
            })
            .map(|compiled| compiled.filter)
        };
        let (unknown, zero, one, zero_too, nowhere) = (0, 0x1ff, 0x200, 0x3ff, 0x400);
        let filter = of("0:1").unwrap();
        assert!(wanted(&filter, zero, one) && wanted(&filter, zero_too, one));
        assert!(!wanted(&filter, one, zero) && !wanted(&filter, zero, zero_too) && !wanted(&filter, nowhere, one));
        assert!(!wanted(&filter, unknown, one));
        let filter = of("0:1,any:0").unwrap();
        assert!(wanted(&filter, zero, one) && wanted(&filter, one, zero) && wanted(&filter, nowhere, zero));
        assert!(!wanted(&filter, one, one) && !wanted(&filter, zero, nowhere));
        assert!(wanted(&of("any:any").unwrap(), nowhere, unknown));
        assert_eq!(of("any:any").unwrap().span_count, 0);
        assert_eq!(of("0:7").unwrap_err(), "--nodes: no node 7; this machine has 0, 1");
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let many = Filters {
            address: vec![range(1, 2); MAX_RANGES + 1],
            ..Filters::default()
        };
        assert_eq!(compile(&many).unwrap_err(), "--address takes at most 4 values");
        let names = Filters {
            comm: vec!["fifteen-bytes-x".to_owned(); 5],
            ..Filters::default()
        };
        assert!(compile(&names).unwrap_err().contains("too many names"));
    }

    #[test]
    fn the_words_name_every_filter() {
        let args = Filters {
            cgroup: vec!["/a".to_owned()],
            comm: vec!["nginx*".to_owned(), "php".to_owned()],
            actor: vec![Actor::Pid(7), Actor::Name("k*".to_owned())],
            reason: vec!["compaction".to_owned()],
            nodes: vec![node_pair("0:any")],
            address: vec![range(0x1000, 0x2000)],
            min_order: Some(Order(9)),
        };
        assert_eq!(
            args.to_string(),
            ", cgroup /a, comm nginx* or php, actor 7 or k*, reason compaction, nodes 0->any, address 1000-2000, \
             2.0 MiB or more"
        );
    }
}
