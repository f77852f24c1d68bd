//! Rows of several corpora in fixed shares.

use crate::error::CorpusError;
use crate::packed_rows::{PackedRows, Row};

/// Shares are kept in steps of 1 / this; after as many rows the order of the sources repeats.
const PERIOD: usize = 10_000;

/// Rows of several corpora, mixed evenly: in every stretch of rows each source has its share, give or take a row or
/// two. Which source row `i` comes from follows from the shares, the seed and `i` alone.
#[derive(Debug)]
pub struct MixedRows {
    sources: Vec<PackedRows>,
    /// The source of each row of a period.
    order: Vec<u8>,
    /// For each row of a period, how many rows of its source come before it in the period.
    before: Vec<u32>,
    /// Rows of each source in a period.
    rows: Vec<u64>,
}

impl MixedRows {
    /// Mixes `sources`, each with its share; shares are scaled to the sum 1. `seed` says where in the period the
    /// mixing begins. One source with any share is that source alone.
    ///
    /// # Errors
    /// [`CorpusError::Shares`] when a share is negative or no number, all are 0, or there is no source or more than
    /// 256 of them.
    ///
    /// # Panics
    /// The sources' rows are not of one length.
    pub fn new(sources: Vec<(PackedRows, f64)>, seed: u64) -> Result<Self, CorpusError> {
        let (sources, shares): (Vec<_>, Vec<_>) = sources.into_iter().unzip();
        let parts = parts_of_period(&shares)?;
        let length = sources.first().map(PackedRows::length);
        assert!(sources.iter().all(|rows| Some(rows.length()) == length), "rows of one length are mixed");
        let mut order = even_order(&parts);
        let start = crate::shuffle::shuffled(PERIOD, seed, 0).first().copied().unwrap_or(0);
        order.rotate_left(start);
        let mut counted = vec![0; parts.len()];
        let before = order.iter().map(|source| {
            let count: &mut u32 = &mut counted[usize::from(*source)];
            *count += 1;
            *count - 1
        });
        let before = before.collect();
        Ok(Self { sources, order, before, rows: parts.into_iter().map(|part| part as u64).collect() })
    }

    /// Targets of a row.
    pub fn length(&self) -> usize {
        self.sources.first().map_or(0, PackedRows::length)
    }

    /// The sources in the order in which they were given.
    pub fn sources(&self) -> &[PackedRows] {
        &self.sources
    }

    /// Which source row `index` comes from.
    pub fn source_of(&self, index: u64) -> usize {
        usize::from(self.order[(index % PERIOD as u64) as usize])
    }

    /// The row at `index`, of any number; its `source` says where it comes from.
    pub fn row(&self, index: u64) -> Row {
        let in_period = (index % PERIOD as u64) as usize;
        let source = usize::from(self.order[in_period]);
        let of_source = index / PERIOD as u64 * self.rows[source] + u64::from(self.before[in_period]);
        Row { source, ..self.sources[source].row(of_source) }
    }
}

/// The shares as whole numbers with the sum [`PERIOD`]; a share above 0 stays above 0.
fn parts_of_period(shares: &[f64]) -> Result<Vec<usize>, CorpusError> {
    let refuse = |why| Err(CorpusError::Shares { shares: format!("{shares:?}"), why });
    let sum: f64 = shares.iter().sum();
    if shares.is_empty() || shares.len() > 256 {
        return refuse("1 to 256 sources can be mixed");
    }
    if shares.iter().any(|share| !share.is_finite() || *share < 0.0) {
        return refuse("a share is a number from 0 up");
    }
    if !(sum > 0.0 && sum.is_finite()) {
        return refuse("at least one share must be above 0");
    }
    let exact: Vec<f64> = shares.iter().map(|share| share / sum * PERIOD as f64).collect();
    let least = |share: f64| if share > 0.0 { (share.floor() as usize).max(1) } else { 0 };
    let mut parts: Vec<usize> = exact.iter().map(|share| least(*share)).collect();
    // What the rounding left over goes, one by one, to (or comes from) whoever is furthest from its share.
    loop {
        let given: usize = parts.iter().sum();
        let lack = |index: &usize| exact[*index] - parts[*index] as f64;
        let by_lack = |a: &usize, b: &usize| lack(a).total_cmp(&lack(b)).then(b.cmp(a));
        let chosen = match given.cmp(&PERIOD) {
            std::cmp::Ordering::Equal => return Ok(parts),
            std::cmp::Ordering::Less => (0..parts.len()).filter(|i| exact[*i] > 0.0).max_by(by_lack),
            std::cmp::Ordering::Greater => (0..parts.len()).filter(|i| parts[*i] > 1).min_by(by_lack),
        };
        match chosen {
            Some(index) if given < PERIOD => parts[index] += 1,
            Some(index) => parts[index] -= 1,
            None => return refuse("they are too unequal"),
        }
    }
}

/// One period: at every row the source that lacks most gets it. The lack of each is then never more than a row or so,
/// and 0 at the end of the period.
fn even_order(parts: &[usize]) -> Vec<u8> {
    let mut lack = vec![0i64; parts.len()];
    let mut order = Vec::with_capacity(PERIOD);
    for _ in 0..PERIOD {
        for (lack, part) in lack.iter_mut().zip(parts) {
            *lack += *part as i64;
        }
        let most = (0..parts.len()).rev().max_by_key(|index| lack[*index]).unwrap_or(0);
        lack[most] -= PERIOD as i64;
        order.push(most as u8);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_become_whole_numbers_and_none_vanishes() {
        assert_eq!(parts_of_period(&[0.8, 0.2]).unwrap(), [8000, 2000]);
        assert_eq!(parts_of_period(&[3.0, 0.0, 1.0]).unwrap(), [7500, 0, 2500]);
        assert_eq!(parts_of_period(&[1.0, 1.0, 1.0]).unwrap(), [3334, 3333, 3333]);
        assert_eq!(parts_of_period(&[1.0, 1e-9]).unwrap(), [9999, 1]);
        for wrong in [&[][..], &[-0.1, 1.0], &[f64::NAN], &[0.0, 0.0], &[f64::INFINITY], &[0.0; 257]] {
            assert!(matches!(parts_of_period(wrong), Err(CorpusError::Shares { .. })), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn every_stretch_has_the_shares(
            shares in prop::collection::vec(0.001f64..1.0, 1..6),
            start in 0..PERIOD, rows in 1..PERIOD,
        ) {
            let parts = parts_of_period(&shares).unwrap();
            let order = even_order(&parts);
            for (source, part) in parts.iter().enumerate() {
                let found = (start..start + rows)
                    .filter(|row| usize::from(order[row % PERIOD]) == source).count() as f64;
                let wanted = *part as f64 / PERIOD as f64 * rows as f64;
                prop_assert!((found - wanted).abs() <= 3.0, "{found} of {wanted} in {rows} rows");
            }
        }
    }
}
