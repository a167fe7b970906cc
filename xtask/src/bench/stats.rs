//! Combines several measurements of one quantity.
//! Input: numbers of interleaved runs.

/// The median of some measurements and their spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// None if there are no numbers.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let upper = sorted[sorted.len() / 2];
        let lower = sorted[(sorted.len() - 1) / 2];
        Some(Self {
            median: f64::midpoint(lower, upper),
            least,
            most,
        })
    }
}

/// One measurement divided by the other. None if the quotient means nothing.
#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds far below 2^52")]
pub fn per(amount: u64, each: u64) -> Option<f64> {
    (each > 0).then(|| amount as f64 / each as f64)
}

#[cfg(test)]
mod tests {
    use super::{Spread, per};

    #[test]
    fn the_middle_of_an_odd_and_of_an_even_number() {
        let of = |values: &[f64]| Spread::of(values).map(|spread| (spread.least, spread.median, spread.most));
        assert_eq!(of(&[3.0, 1.0, 10.0]), Some((1.0, 3.0, 10.0)));
        assert_eq!(of(&[4.0, 1.0, 2.0, 30.0]), Some((1.0, 3.0, 30.0)));
        assert_eq!(of(&[5.0]), Some((5.0, 5.0, 5.0)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn nothing_by_nothing_is_no_number() {
        assert_eq!(per(3, 2), Some(1.5));
        assert_eq!(per(0, 2), Some(0.0));
        assert_eq!(per(1, 0), None);
    }
}
