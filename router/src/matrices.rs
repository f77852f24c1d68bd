//! The little that is needed of symmetric matrices, in f64 and row by row.

/// The lower triangle `L` of `L L^T = matrix`, `[n, n]`; what is above the diagonal is zero. `None` where the matrix is
/// not positive definite.
pub(crate) fn cholesky(matrix: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut lower = vec![0.0; n * n];
    for row in 0..n {
        for column in 0..=row {
            let dot: f64 = (0..column).map(|k| lower[row * n + k] * lower[column * n + k]).sum();
            let rest = matrix[row * n + column] - dot;
            if row == column {
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                lower[row * n + row] = rest.sqrt();
            } else {
                lower[row * n + column] = rest / lower[column * n + column];
            }
        }
    }
    Some(lower)
}

/// The solution `x` of `L L^T x = right`.
pub(crate) fn solve(lower: &[f64], n: usize, right: &[f64]) -> Vec<f64> {
    let mut x = right.to_vec();
    for row in 0..n {
        let dot: f64 = (0..row).map(|k| lower[row * n + k] * x[k]).sum();
        x[row] = (x[row] - dot) / lower[row * n + row];
    }
    for row in (0..n).rev() {
        let dot: f64 = (row + 1..n).map(|k| lower[k * n + row] * x[k]).sum();
        x[row] = (x[row] - dot) / lower[row * n + row];
    }
    x
}

/// Makes the rows of `rows`, `[count, n]`, orthonormal (Gram and Schmidt, twice, which is enough in f64). Rows that
/// depend on the ones before them become zero.
pub(crate) fn orthonormalize(rows: &mut [f64], n: usize) {
    let count = rows.len() / n.max(1);
    for row in 0..count {
        let before = norm(&rows[row * n..(row + 1) * n]);
        for _ in 0..2 {
            for earlier in 0..row {
                let (head, tail) = rows.split_at_mut(row * n);
                let (earlier, row) = (&head[earlier * n..(earlier + 1) * n], &mut tail[..n]);
                let dot = dot(earlier, row);
                row.iter_mut().zip(earlier).for_each(|(value, earlier)| *value -= dot * earlier);
            }
        }
        let row = &mut rows[row * n..(row + 1) * n];
        let after = norm(row);
        let scale = if after > before * 1e-10 && after > 0.0 { 1.0 / after } else { 0.0 };
        row.iter_mut().for_each(|value| *value *= scale);
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(row: &[f64]) -> f64 {
    dot(row, row).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_solved() {
        let matrix = [4.0, 2.0, 0.5, 2.0, 5.0, 1.0, 0.5, 1.0, 3.0];
        let lower = cholesky(&matrix, 3).unwrap();
        let x = solve(&lower, 3, &[1.0, -2.0, 3.0]);
        for row in 0..3 {
            let found = dot(&matrix[row * 3..row * 3 + 3], &x);
            assert!((found - [1.0, -2.0, 3.0][row]).abs() < 1e-12, "{x:?}");
        }
        assert!(cholesky(&[1.0, 2.0, 2.0, 1.0], 2).is_none(), "not positive definite");
        assert!(cholesky(&[f64::NAN], 1).is_none());
    }

    #[test]
    fn rows_become_orthonormal_and_dependent_ones_zero() {
        let mut rows = vec![3.0, 0.0, 1.0, 1.0, 1.0, 0.0, 4.0, 1.0, 1.0];
        orthonormalize(&mut rows, 3);
        assert!((norm(&rows[..3]) - 1.0).abs() < 1e-12 && (norm(&rows[3..6]) - 1.0).abs() < 1e-12);
        assert!(dot(&rows[..3], &rows[3..6]).abs() < 1e-12);
        assert_eq!(rows[6..], [0.0, 0.0, 0.0], "it is the sum of the first two");
    }
}
