//! Cholesky factors and their inverses, blocked, in f64, on all cores.

use crate::calibrate::dense::{multiply, view};
use ndarray::{ArrayViewMut2, s};
use rayon::prelude::*;

/// Columns that are factored at a time.
const BLOCK: usize = 64;

/// Replaces the lower triangle of `a` (`[size][size]`, symmetric) by `L`, `a = L·Lᵀ`; the upper
/// triangle becomes zero. Returns whether `a` is positive definite.
pub fn factor(a: &mut [f64], size: usize) -> bool {
    for start in (0..size).step_by(BLOCK) {
        let end = size.min(start + BLOCK);
        if !factor_diagonal(a, size, start, end) {
            return false;
        }
        let (above, below) = a.split_at_mut(end * size);
        let diagonal = &above[start * size..];
        // Each row below: x · L11ᵀ = row.
        below.par_chunks_exact_mut(size).for_each(|row| {
            for j in start..end {
                let l = &diagonal[(j - start) * size..][..size];
                let sum: f64 = (start..j).map(|k| row[k] * l[k]).sum();
                row[j] = (row[j] - sum) / l[j];
            }
        });
        if end < size {
            let panel = view(below, size).slice(s![.., start..end]).to_owned();
            let rest = ArrayViewMut2::from_shape((size - end, size), below).expect("whole rows");
            let rest = rest.slice_move(s![.., end..]);
            multiply(-1.0, panel.view(), panel.t(), 1.0, rest);
        }
    }
    for (i, row) in a.chunks_exact_mut(size).enumerate() {
        row[i + 1..].fill(0.0);
    }
    true
}

/// The block of columns and rows `start..end`.
fn factor_diagonal(a: &mut [f64], size: usize, start: usize, end: usize) -> bool {
    for j in start..end {
        for i in j..end {
            let sum: f64 = (start..j).map(|k| a[i * size + k] * a[j * size + k]).sum();
            let rest = a[i * size + j] - sum;
            if i == j {
                if rest.is_nan() || rest <= 0.0 {
                    return false;
                }
                a[j * size + j] = rest.sqrt();
            } else {
                a[i * size + j] = rest / a[j * size + j];
            }
        }
    }
    true
}

/// The inverse of a lower triangular matrix.
pub fn invert(l: &[f64], size: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; size * size];
    let factor = view(l, size);
    for start in (0..size).step_by(BLOCK) {
        let end = size.min(start + BLOCK);
        let (done, rest) = inverse.split_at_mut(start * size);
        let rows = &mut rest[..(end - start) * size];
        if start > 0 {
            let left = factor.slice(s![start..end, ..start]);
            let done = view(done, size);
            // Columns spread over the cores, since the rows are few: transposed.
            let mut out = ndarray::Array2::zeros((start, end - start));
            let done = done.slice(s![.., ..start]);
            multiply(-1.0, done.t(), left.t(), 0.0, out.view_mut());
            for (row, column) in rows.chunks_exact_mut(size).zip(out.columns()) {
                row.iter_mut().zip(column).for_each(|(x, y)| *x = *y);
            }
        }
        for i in start..end {
            let (before, row) = rows.split_at_mut((i - start) * size);
            let row = &mut row[..size];
            row[i] = 1.0;
            for (k, other) in before.chunks_exact(size).enumerate() {
                let factor = l[i * size + start + k];
                row[..=i]
                    .iter_mut()
                    .zip(other)
                    .for_each(|(x, y)| *x -= factor * y);
            }
            let inverse = 1.0 / l[i * size + i];
            row[..=i].iter_mut().for_each(|x| *x *= inverse);
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products of factors and inverses give back what they came from, over several blocks.
    #[test]
    fn factors_and_inverses_multiply_back() {
        let size = 2 * BLOCK + 7;
        let mut state = 1u64;
        let mut random = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0
        };
        let root = ndarray::Array2::from_shape_fn((size, size), |_| random());
        let a = root.dot(&root.t()) + ndarray::Array2::<f64>::eye(size);
        let mut l: Vec<f64> = a.iter().copied().collect();
        assert!(factor(&mut l, size));
        let factor = view(&l, size);
        let inverse = invert(&l, size);
        let identity = view(&inverse, size).dot(&factor);
        let back = factor.dot(&factor.t());
        for i in 0..size {
            for j in 0..size {
                // Some hundred roundings of f64 in sums of a few hundred.
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((identity[(i, j)] - expected).abs() < 1e-9, "{i} {j}");
                assert!(
                    (back[(i, j)] - a[(i, j)]).abs() < 1e-9 * a[(i, i)],
                    "{i} {j}"
                );
            }
        }
    }

    #[test]
    fn indefinite_matrices_are_refused() {
        assert!(!factor(&mut [1.0, 2.0, 2.0, 1.0], 2));
        assert!(!factor(&mut [f64::NAN], 1));
    }
}
