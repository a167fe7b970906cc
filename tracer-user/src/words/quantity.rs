//! Numbers as people read them: sizes, durations and counts, always with their unit.
//! Input: units of the domain.

use std::fmt;

use crate::units::{Nanos, Order, PAGE_SIZE};

/// `4K`, `64K`, `2M`, `1G`: a page size.
pub struct PageSize(pub Order);

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = (PAGE_SIZE >> 10).saturating_mul(self.0.pages());
        let text = match kib {
            0..1024 => format!("{kib}K"),
            1024..1_048_576 => format!("{}M", kib >> 10),
            _ => format!("{}G", kib >> 20),
        };
        f.pad(&text)
    }
}

/// `880 KiB`, `32.0 MiB`: an amount of memory in bytes.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let digits = usize::from(unit > 0);
        f.pad(&format!("{value:.digits$} {}", UNITS[unit]))
    }
}

/// `412 us`, `1.2 ms`: a duration.
pub struct Duration(pub Nanos);

impl fmt::Display for Duration {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.0;
        let of = |unit: f64, name: &str| {
            let value = nanos as f64 / unit;
            let digits = usize::from(value < 9.95);
            format!("{value:.digits$} {name}")
        };
        let text = match nanos {
            0..1000 => format!("{nanos} ns"),
            1000..1_000_000 => of(1e3, "us"),
            1_000_000..1_000_000_000 => of(1e6, "ms"),
            _ => of(1e9, "s"),
        };
        f.pad(&text)
    }
}

/// `8,412`: a count.
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// `1 page`, `8,412 pages`: a count of things whose name has a regular plural.
pub struct Counted<'a>(pub u64, pub &'a str);

impl fmt::Display for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        f.pad(&format!("{} {}{plural}", Count(self.0), self.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_units() {
        assert_eq!(PageSize(Order(0)).to_string(), "4K");
        assert_eq!(PageSize(Order(4)).to_string(), "64K");
        assert_eq!(PageSize(Order(9)).to_string(), "2M");
        assert_eq!(PageSize(Order(18)).to_string(), "1G");
        assert_eq!(Bytes(880 << 10).to_string(), "880 KiB");
        assert_eq!(Bytes(32 << 20).to_string(), "32.0 MiB");
        assert_eq!(Duration(Nanos(999)).to_string(), "999 ns");
        assert_eq!(Duration(Nanos(1_234)).to_string(), "1.2 us");
        assert_eq!(Duration(Nanos(412_345)).to_string(), "412 us");
        assert_eq!(Duration(Nanos(1_200_000)).to_string(), "1.2 ms");
        assert_eq!(Duration(Nanos(10_000_000_000)).to_string(), "10 s");
        assert_eq!(Count(0).to_string(), "0");
        assert_eq!(Count(999).to_string(), "999");
        assert_eq!(Count(1_234_567).to_string(), "1,234,567");
        assert_eq!(Counted(0, "run").to_string(), "0 runs");
        assert_eq!(Counted(1, "run").to_string(), "1 run");
        assert_eq!(Counted(1_000, "run").to_string(), "1,000 runs");
    }
}
