//! The shapes of VMs, as arguments of QEMU and words of the kernel's command line.
//! Input: the shapes that `tracer-tests shapes` names.

use std::fmt::Write as _;
use std::str::FromStr;

use tracer_tests_report::shape::Shape;

/// Mebibytes, written as `512`, `512M` or `1G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mebibytes(pub u32);

impl FromStr for Mebibytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, factor) = match text.strip_suffix('G') {
            Some(digits) => (digits, 1024),
            None => (text.strip_suffix('M').unwrap_or(text), 1),
        };
        let size = digits.parse().ok().and_then(|number: u32| number.checked_mul(factor));
        size.filter(|size| *size > 0)
            .map(Self)
            .ok_or_else(|| "expected a size such as 512M or 1G".to_owned())
    }
}

/// A NUMA node.
pub struct Node {
    /// The size of its memory, mebibytes.
    pub mib: u32,
    pub cpus: Vec<u32>,
}

/// A machine.
pub struct Layout {
    pub nodes: Vec<Node>,
    /// For QEMU's `-machine`.
    machine: &'static str,
    /// Each gets a `-numa` of its own.
    more: &'static [&'static str],
    /// Words for the kernel's command line.
    pub words: &'static str,
}

impl Layout {
    /// The machine. `nodes` of `per_node` each are requested on the command line, and apply to the plain shape.
    pub fn of(shape: Shape, nodes: u32, per_node: Mebibytes) -> Self {
        let small = 512;
        match shape {
            Shape::Plain => Self {
                // There is one CPU per node, but there are at least two: many tests need a second one.
                nodes: (0..nodes)
                    .map(|node| Node {
                        mib: per_node.0,
                        cpus: if nodes == 1 { vec![0, 1] } else { vec![node] },
                    })
                    .collect(),
                machine: "pc",
                more: &[],
                words: "",
            },
            // The kernel gives each node its share (mm/mm_init.c, `find_zone_movable_pfns_for_nodes`). Two memory
            // blocks of 128 MiB in it are whole; the upper one has memory that was taken at boot. With a random place,
            // the kernel itself could be put into them.
            Shape::Movable => Self {
                nodes: (0..2)
                    .map(|cpu| Node {
                        mib: small,
                        cpus: vec![cpu],
                    })
                    .collect(),
                machine: "pc",
                more: &[],
                words: "movablecore=600M nokaslr",
            },
            // Memory that does not fit below `max-ram-below-4g` is at 4 GiB: all of node 1, where two whole gigabytes
            // are aligned. The kernel's own memory there is at one end, so at least one of the two has none of it.
            Shape::Tiered => Self {
                nodes: vec![
                    Node {
                        mib: small,
                        cpus: vec![0, 1],
                    },
                    Node {
                        mib: 5 * small,
                        cpus: Vec::new(),
                    },
                ],
                machine: "pc,hmat=on,max-ram-below-4g=512M",
                more: &[
                    "hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency=10",
                    "hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-bandwidth,bandwidth=10G",
                    "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-latency,latency=100",
                    "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-bandwidth,bandwidth=1G",
                ],
                words: "nokaslr",
            },
        }
    }

    /// The arguments of QEMU.
    pub fn arguments(&self) -> Vec<String> {
        let cpus: usize = self.nodes.iter().map(|node| node.cpus.len()).sum();
        let mib: u32 = self.nodes.iter().map(|node| node.mib).sum();
        let mut args = vec![
            "-machine".to_owned(),
            self.machine.to_owned(),
            "-smp".to_owned(),
            cpus.to_string(),
            "-m".to_owned(),
            mib.to_string(),
        ];
        for (number, node) in self.nodes.iter().enumerate() {
            let mut numa = format!("node,nodeid={number}");
            for cpu in &node.cpus {
                // Writing to a String cannot fail.
                let _ = write!(numa, ",cpus={cpu}");
            }
            if node.cpus.is_empty() {
                numa.push_str(",initiator=0");
            }
            args.extend([
                "-object".to_owned(),
                format!("memory-backend-ram,id=m{number},size={}M", node.mib),
                "-numa".to_owned(),
                format!("{numa},memdev=m{number}"),
            ]);
        }
        for numa in self.more {
            args.extend(["-numa".to_owned(), (*numa).to_owned()]);
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use super::{Layout, Mebibytes, Shape};

    #[test]
    fn sizes_are_read() {
        assert_eq!("2G".parse(), Ok(Mebibytes(2048)));
        assert_eq!("512M".parse(), Ok(Mebibytes(512)));
        assert!("0".parse::<Mebibytes>().is_err());
        assert!("4294967295G".parse::<Mebibytes>().is_err());
    }

    #[test]
    fn every_node_has_a_cpu_and_every_cpu_a_node() {
        let plain = |nodes| Layout::of(Shape::Plain, nodes, Mebibytes(512)).arguments();
        assert!(plain(1).contains(&"node,nodeid=0,cpus=0,cpus=1,memdev=m0".to_owned()));
        assert!(plain(2).contains(&"node,nodeid=1,cpus=1,memdev=m1".to_owned()));
        assert_eq!(plain(4)[..6], ["-machine", "pc", "-smp", "4", "-m", "2048"]);
    }

    #[test]
    fn memory_without_a_cpu_says_who_is_near() {
        let tiered = Layout::of(Shape::Tiered, 2, Mebibytes(1)).arguments();
        assert!(tiered.contains(&"node,nodeid=1,initiator=0,memdev=m1".to_owned()));
    }
}
