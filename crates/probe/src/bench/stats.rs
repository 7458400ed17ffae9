//! The little statistics that is needed.
use serde::Serialize;

/// The value that `share` (0 to 1) of all are no greater than: the nearest rank. 0 of nothing.
pub fn percentile(sorted: &[u32], share: f64) -> u32 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    let index = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or_default()
}

/// Of several measurements: the middle one, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Zeros of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() {
            0 => 0.0,
            n if n % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        Self {
            median,
            min: sorted.first().copied().unwrap_or_default(),
            max: sorted.last().copied().unwrap_or_default(),
        }
    }

    /// Of `ours` to `bare`, round by round: what slows a whole round slows both.
    pub fn of_ratios(ours: &[f64], bare: &[f64]) -> Self {
        Self::of(ours.iter().zip(bare).map(|(ours, bare)| ours / bare))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred: Vec<u32> = (1..=100).collect();
        let of = |share| percentile(&hundred, share);
        assert_eq!((of(0.5), of(0.95), of(0.99), of(1.0)), (50, 95, 99, 100));
        assert_eq!(percentile(&[7], 0.99), 7);
        assert_eq!(percentile(&[1, 2, 3], 0.5), 2);
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn the_median_is_the_middle_or_between_two() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(
            spread(&[3.0, 1.0, 2.0]),
            Spread {
                median: 2.0,
                min: 1.0,
                max: 3.0
            }
        );
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(spread(&[]).median, 0.0);
    }

    #[test]
    fn one_bad_round_does_not_move_the_ratio() {
        let (ours, bare) = ([90.0, 45.0, 80.0], [100.0, 50.0, 10.0]);
        assert_eq!(
            Spread::of_ratios(&ours, &bare),
            Spread {
                median: 0.9,
                min: 0.9,
                max: 8.0
            }
        );
    }
}
