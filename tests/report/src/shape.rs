//! The shapes of VMs: the kinds of machine that cases need, by their names.
//! Input: a name on a command line or in the output of `tracer-tests shapes`.

use std::str::FromStr;

/// The shape of a VM. `cargo xtask vm` boots one VM for each shape that the chosen cases need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As given on the command line of `cargo xtask vm`; by default two nodes with a CPU each.
    Plain,
    /// The upper part of each node is `ZONE_MOVABLE`.
    Movable,
    /// Node 1 is slower and has no CPU; it starts at 4 GiB and has more than 2 GiB.
    Tiered,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Movable, Self::Tiered];

    /// The name, also on the kernel's command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Movable => "movable",
            Self::Tiered => "tiered",
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|shape| shape.name() == name);
        found.ok_or_else(|| format!("{name:?} is no shape of a VM"))
    }
}

#[cfg(test)]
mod tests {
    use super::Shape;

    #[test]
    fn names_come_back() {
        assert!(Shape::ALL.iter().all(|shape| shape.name().parse() == Ok(*shape)));
        assert!("round".parse::<Shape>().is_err());
    }
}
