//! The values of options, parsed from text.
//! Input: words of the command line.

use std::time::Duration;

use tracer_common::names::Names;

use crate::{
    session::filters::values::{Actor, NodePair, Range},
    source::bpf::rings::RingBytes,
    units::{Nanos, NodeId, Order, PAGE_SHIFT, VirtAddr},
};

/// A process's number, from 1.
pub fn process_number(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("processes are numbered from 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("not the number of a process".to_owned()),
    }
}

/// Seconds, possibly with a fraction.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if seconds <= 0.0 {
        return Err("must be more than 0".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

/// Seconds from the begin of a run.
pub fn moment(text: &str) -> Result<Nanos, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let time = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    u64::try_from(time.as_nanos())
        .map(Nanos)
        .map_err(|error| error.to_string())
}

/// Why a text is not a size.
enum NoSize {
    NoNumber,
    TooLarge,
}

/// A number with or without a unit: K, M and G stand for KiB, MiB and GiB. The second value is whether there is a unit.
fn with_unit(text: &str) -> Result<(u64, bool), NoSize> {
    let units = [('K', 10), ('M', 20), ('G', 30)];
    let unit = units
        .into_iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix([unit, unit.to_ascii_lowercase()])?, shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let number: u64 = digits.parse().map_err(|_| NoSize::NoNumber)?;
    let bytes = number.checked_mul(1 << shift).ok_or(NoSize::TooLarge)?;
    Ok((bytes, unit.is_some()))
}

/// The size of the ring.
pub fn ring_bytes(text: &str) -> Result<RingBytes, String> {
    match with_unit(text) {
        Err(NoSize::NoNumber) => Err("a number of bytes, with K or M for KiB or MiB".to_owned()),
        Err(NoSize::TooLarge) => Err(RING_TOO_LARGE.to_owned()),
        Ok((bytes, _)) => RingBytes::holding(bytes).ok_or_else(|| RING_TOO_LARGE.to_owned()),
    }
}

const RING_TOO_LARGE: &str = "at most 1024M";

/// The size of a file.
pub fn file_size(text: &str) -> Result<u64, String> {
    match with_unit(text) {
        Err(NoSize::NoNumber) => Err("a number of bytes, with K, M or G for KiB, MiB or GiB".to_owned()),
        Err(NoSize::TooLarge) => Err("too large".to_owned()),
        Ok((..MIN_FILE, _)) => Err("at least 64K".to_owned()),
        Ok((bytes, _)) => Ok(bytes),
    }
}

const MIN_FILE: u64 = 1 << 16;

/// A pattern of names.
pub fn pattern(text: &str) -> Result<String, String> {
    match Names::NONE.clone().add(text.as_bytes()) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A cgroup by its path, or as /proc/PID/cgroup prints it: `0::/system.slice/nginx.service`. Hierarchies of version 1
/// have lines of their own with other numbers: alone they are refused.
pub fn cgroup(text: &str) -> Result<String, String> {
    if let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) {
        return Ok(format!("/{path}"));
    }
    if text.is_empty() {
        return Err("an empty path; that of the root is /".to_owned());
    }
    let mut fields = text.splitn(3, ':');
    let is_number = |field: &str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
    if fields.next().is_some_and(is_number) && fields.nth(1).is_some_and(|path| path.starts_with('/')) {
        return Err("this is a cgroup of version 1; only cgroups of version 2 (0::/...) can be traced".to_owned());
    }
    Ok(text.to_owned())
}

/// A process's number or a pattern of names.
pub fn actor(text: &str) -> Result<Actor, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return process_number(text).map(Actor::Pid);
    }
    pattern(text).map(Actor::Name)
}

/// `0:1`, `0->1`, `any:0`.
pub fn node_pair(text: &str) -> Result<NodePair, String> {
    let (from, to) = text
        .split_once("->")
        .or_else(|| text.split_once(':'))
        .ok_or("a pair is OLD:NEW, each a node's number or any")?;
    let node = |word: &str| match word.trim() {
        "any" | "*" => Ok(None),
        number => number
            .parse()
            .map(|number| Some(NodeId(number)))
            .map_err(|_| format!("{number:?} is neither a node's number nor any")),
    };
    Ok(NodePair {
        from: node(from)?,
        to: node(to)?,
    })
}

/// `7f3a5c200000-7f3a5c400000`, with or without 0x.
pub fn range(text: &str) -> Result<Range, String> {
    let number = |word: &str| {
        let digits = word.strip_prefix("0x").unwrap_or(word);
        // `from_str_radix` would accept a sign.
        let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u64::from_str_radix(digits, 16).ok().filter(|_| hexadecimal);
        number
            .map(VirtAddr)
            .ok_or_else(|| format!("{word:?} is not a hexadecimal address"))
    };
    let (start, end) = text
        .split_once('-')
        .ok_or("a range is START-END, as in /proc/PID/maps")?;
    let (start, end) = (number(start)?, number(end)?);
    if start >= end {
        return Err("the range is empty: END is the first address after it".to_owned());
    }
    Ok(Range { start, end })
}

/// An order, or a size with its unit.
pub fn order(text: &str) -> Result<Order, String> {
    let of_bytes = |bytes: u64| {
        let order = bytes.trailing_zeros().checked_sub(PAGE_SHIFT)?;
        bytes.is_power_of_two().then_some(order)
    };
    let order = match with_unit(text) {
        Ok((order, false)) => u32::try_from(order).ok().filter(|order| *order <= MAX_ORDER),
        Err(NoSize::NoNumber) => None,
        Ok((bytes, true)) => return order_of(of_bytes(bytes)).ok_or_else(|| NO_ORDER.to_owned()),
        Err(NoSize::TooLarge) => return Err(NO_ORDER.to_owned()),
    };
    order_of(order).ok_or_else(|| format!("an order from 0 to {MAX_ORDER}, or a size: 64K, 2M, 1G"))
}

fn order_of(order: Option<u32>) -> Option<Order> {
    let order = order.filter(|order| *order <= MAX_ORDER)?;
    u8::try_from(order).ok().map(Order)
}

const MAX_ORDER: u32 = 31;
const NO_ORDER: &str = "folios have 4K, 8K, 16K and so on";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_seconds_from_the_begin() {
        assert_eq!(moment("1.5"), Ok(Nanos(1_500_000_000)));
        assert_eq!(moment("0"), Ok(Nanos(0)));
        for bad in ["nan", "-1", "inf", "1e30", "", "soon"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cgroups_are_written_as_proc_prints_them() {
        for text in [
            "0::/system.slice/x.service",
            "0::/system.slice/x.service\n",
            "9:memory:/x\n1:name=systemd:/x\n0::/system.slice/x.service\n",
            "/system.slice/x.service",
        ] {
            assert_eq!(cgroup(text).as_deref(), Ok("/system.slice/x.service"), "{text:?}");
        }
        // A name may contain a colon.
        for text in ["0::/", "a:b:/c", "/sys/fs/cgroup/a:b"] {
            assert_eq!(cgroup(text).as_deref(), Ok(text.trim_start_matches("0::")));
        }
        for bad in ["12:memory:/user.slice", ""] {
            assert!(cgroup(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn orders_and_sizes() {
        assert_eq!(order("9"), Ok(Order(9)));
        assert_eq!(order("2M"), Ok(Order(9)));
        assert_eq!(order("4K"), Ok(Order(0)));
        assert_eq!(order("64k"), Ok(Order(4)));
        assert_eq!(order("1G"), Ok(Order(18)));
        for bad in ["", "-1", "32", "3M", "1K", "M", "99999999999G", "2MB"] {
            assert!(order(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_are_those_of_maps() {
        let expected = Range {
            start: VirtAddr(0x7f00),
            end: VirtAddr(0x8000),
        };
        assert_eq!(range("7f00-8000"), Ok(expected));
        assert_eq!(range("0x7f00-0x8000"), Ok(expected));
        for bad in [
            "",
            "7f00",
            "8000-7f00",
            "1-1",
            "x-y",
            "-",
            "+1-2",
            "0-10000000000000000",
        ] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn actors_are_numbers_or_names() {
        assert_eq!(actor("12"), Ok(Actor::Pid(12)));
        assert_eq!(actor("kcompactd*"), Ok(Actor::Name("kcompactd*".to_owned())));
        for bad in ["", "0", "99999999999", "a-name-of-sixteen"] {
            assert!(actor(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_have_two_nodes() {
        let pair = NodePair {
            from: Some(NodeId(1)),
            to: None,
        };
        for text in ["1:any", "1->*", "1 : any"] {
            assert_eq!(node_pair(text), Ok(pair), "{text}");
        }
        for bad in ["", "0", "0:", "a:b", "0-1"] {
            assert!(node_pair(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_positive_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "inf", "NaN", "1e30", "", "1s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn processes_are_positive_numbers() {
        assert_eq!(process_number("4711"), Ok(4711));
        for bad in ["0", "-1", "abc", "", "4294967296"] {
            assert!(process_number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ring_sizes_are_rounded_up() {
        assert_eq!(ring_bytes("16M"), Ok(RingBytes::DEFAULT));
        assert_eq!(ring_bytes("9M"), Ok(RingBytes::DEFAULT));
        assert_eq!(ring_bytes("1"), ring_bytes("4K"));
        for bad in ["", "M", "2G", "-1", "1025M", "99999999999999999999"] {
            assert!(ring_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(file_size("100k"), Ok(100 << 10));
        assert_eq!(file_size("3G"), Ok(3 << 30));
        assert_eq!(file_size("65536"), Ok(1 << 16));
        for bad in ["", "G", "1", "-1M", "99999999999G", "1.5M"] {
            assert!(file_size(bad).is_err(), "{bad}");
        }
    }
}
