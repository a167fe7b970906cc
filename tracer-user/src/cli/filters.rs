//! The filters of the command line.
//! Input: words of the command line.

use crate::{
    cli::values,
    session::filters::{
        Filters,
        values::{Actor, NodePair, Range},
    },
    units::Order,
};

/// The selection of moves. All options that are given must match; for one option any of its values may match.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Filters (all that are given must match, each with any of its values)")]
pub struct Args {
    /// Only processes in this cgroup (v2) or below it, including those that enter it later; a path, or 0::PATH as
    /// /proc/PID/cgroup prints it; may be repeated
    #[arg(long, value_name = "PATH", value_parser = values::cgroup)]
    pub cgroup: Vec<String>,

    /// Only processes with this name: * matches any characters, ? one; the kernel keeps 15 bytes of a name
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = values::pattern)]
    pub comm: Vec<String>,

    /// Only what this process, or threads with this name (kcompactd*), move, fail to move or compact
    #[arg(long, value_name = "PID|PATTERN", value_delimiter = ',', value_parser = values::actor)]
    pub actor: Vec<Actor>,

    /// Only moves, failures and compaction for this reason, such as compaction; an unknown name lists the known ones
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub reason: Vec<String>,

    /// Only moves from one NUMA node to another, and failures to leave the first one: 0:1, any:0
    #[arg(long, value_name = "OLD:NEW", value_delimiter = ',', value_parser = values::node_pair)]
    pub nodes: Vec<NodePair>,

    /// Only pages in this range of virtual addresses, hexadecimal as in /proc/PID/maps
    #[arg(long, value_name = "START-END", value_delimiter = ',', value_parser = values::range)]
    pub address: Vec<Range>,

    /// Only folios of at least this order or size: 9 or 2M; with the tracepoint backend, mappings
    #[arg(long, value_name = "ORDER|SIZE", value_parser = values::order)]
    pub min_order: Option<Order>,
}

impl From<&Args> for Filters {
    fn from(args: &Args) -> Self {
        Self {
            cgroup: args.cgroup.clone(),
            comm: args.comm.clone(),
            actor: args.actor.clone(),
            reason: args.reason.clone(),
            nodes: args.nodes.clone(),
            address: args.address.clone(),
            min_order: args.min_order,
        }
    }
}
