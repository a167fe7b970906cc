//! The values of filters: how they are written, and how they are shown again.
//! Input: words of the command line.

use std::fmt;

use tracer_common::names::Names;

use crate::{
    escape::Printable,
    units::{NodeId, Order, PAGE_SHIFT, VirtAddr},
};

/// Who moves pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Any thread of this process.
    Pid(u32),
    /// Any thread of such a name.
    Name(String),
}

/// Old and new node; None: any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePair {
    /// Where the page was.
    pub from: Option<NodeId>,
    /// Where it goes.
    pub to: Option<NodeId>,
}

/// Virtual addresses, from the first to before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: VirtAddr,
    /// The first behind it.
    pub end: VirtAddr,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => pid.fmt(f),
            Self::Name(name) => Printable(name).fmt(f),
        }
    }
}

impl fmt::Display for NodePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = |node: Option<NodeId>| node.map_or_else(|| "any".to_owned(), |node| node.to_string());
        write!(f, "{}->{}", node(self.from), node(self.to))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start.0, self.end.0)
    }
}

/// A pattern of names.
pub fn pattern(text: &str) -> Result<String, String> {
    match Names::NONE.clone().add(text.as_bytes()) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A process's number or a pattern of names.
pub fn actor(text: &str) -> Result<Actor, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return crate::cli::trace::process_number(text).map(Actor::Pid);
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
        // `from_str_radix` would take a sign.
        let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u64::from_str_radix(digits, 16).ok().filter(|_| hexadecimal);
        number
            .map(VirtAddr)
            .ok_or_else(|| format!("{word:?} is no hexadecimal address"))
    };
    let (start, end) = text
        .split_once('-')
        .ok_or("a range is START-END, as in /proc/PID/maps")?;
    let (start, end) = (number(start)?, number(end)?);
    if start >= end {
        return Err("the range is empty: END is the first address behind it".to_owned());
    }
    Ok(Range { start, end })
}

/// An order, or a size with its unit.
pub fn order(text: &str) -> Result<Order, String> {
    let most = 31;
    let units = [("K", 10), ("M", 20), ("G", 30)];
    let unit = units
        .into_iter()
        .find_map(|(unit, shift)| Some((text.to_ascii_uppercase().strip_suffix(unit)?.to_owned(), shift)));
    let Some((digits, shift)) = unit else {
        return match text.parse() {
            Ok(order @ 0..=31) => Ok(Order(order)),
            _ => Err(format!("an order from 0 to {most}, or a size: 64K, 2M, 1G")),
        };
    };
    let bytes = digits
        .parse()
        .ok()
        .and_then(|number: u64| number.checked_mul(1 << shift));
    bytes
        .filter(|bytes| bytes.is_power_of_two() && *bytes >= 1 << PAGE_SHIFT)
        .and_then(|bytes| u8::try_from(bytes.trailing_zeros() - PAGE_SHIFT).ok())
        .filter(|order| *order <= most)
        .map(Order)
        .ok_or_else(|| "folios have 4K, 8K, 16K and so on".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
