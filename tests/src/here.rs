//! The machine on which the cases run: a VM of some shape or the bare machine, its nodes, its kernel.
//! Input: the environment that PID 1 sets, /proc/cmdline, /sys/devices/system/node, uname(2).

use std::fs;

use tracer_tests_report::shape::Shape;

/// PID 1 sets this for all other processes.
pub const IN_VM: &str = "TRACER_TESTS_IN_VM";

/// The machine on which this runs, as far as cases depend on it.
pub struct Here {
    pub in_vm: bool,
    pub shape: Shape,
    pub root: bool,
    pub nodes: usize,
    pub release: String,
}

impl Here {
    pub fn look() -> Self {
        let in_vm = std::env::var_os(IN_VM).is_some();
        Self {
            in_vm,
            shape: in_vm.then(shape_of_this_vm).flatten().unwrap_or(Shape::Plain),
            root: rustix::process::geteuid().is_root(),
            nodes: nodes_with_memory(),
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
        }
    }
}

/// The shape of this VM, by `tracer.shape=` on the kernel's command line.
fn shape_of_this_vm() -> Option<Shape> {
    let cmdline = fs::read_to_string("/proc/cmdline").ok()?;
    option(&cmdline, "tracer.shape")?.parse().ok()
}

/// The number of nodes with memory. A kernel without NUMA has no such file, and one node. `has_memory`:
/// drivers/base/node.c, `node_state_attr`, 6.1 to 7.3.
fn nodes_with_memory() -> usize {
    fs::read_to_string("/sys/devices/system/node/has_memory")
        .ok()
        .and_then(|list| count_list(&list))
        .unwrap_or(1)
}

/// The number of entries in a kernel list such as `0-2,5` (lib/bitmap-str.c, `bitmap_print_to_pagebuf`).
fn count_list(list: &str) -> Option<usize> {
    let mut count = 0;
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (low, high): (usize, usize) = (low.parse().ok()?, high.parse().ok()?);
        count += high.checked_sub(low)? + 1;
    }
    Some(count)
}

/// The value of `name=value` on the kernel's command line; the last one counts, as in the kernel.
pub fn option<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    cmdline
        .split_ascii_whitespace()
        .rev()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::{count_list, option};

    #[test]
    fn lists_are_counted() {
        assert_eq!(count_list("0\n"), Some(1));
        assert_eq!(count_list("0-2,5\n"), Some(4));
        assert_eq!(count_list("2-0"), None);
        assert_eq!(count_list("x"), None);
    }

    #[test]
    fn options_are_whole_words() {
        let line = "console=ttyS0 tracer.tests=a,b tracer.testsuite=c tracer.nodes=1 tracer.nodes=2\n";
        assert_eq!(option(line, "tracer.tests"), Some("a,b"));
        assert_eq!(option(line, "tracer.nodes"), Some("2"));
        assert_eq!(option(line, "tracer"), None);
    }
}
