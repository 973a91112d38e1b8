//! GPTQ (Frantar et al. 2022): columns are quantized one after the other, and each column's error is
//! made up for by the columns that are still to come, as the second moments of the inputs allow.

use super::cholesky;
use super::grid::{Grid, Step};
use crate::calibrate::dense::{Moments, view, view_mut};
use kinglet_kernels::packing::{Codes, Layout};
use ndarray::linalg::general_mat_mul;
use ndarray::s;
use rayon::prelude::*;

/// What is added to the diagonal of the second moments, in parts of its mean: keeps the inverse
/// finite, and the correction modest where few tokens were seen.
pub(super) const DAMPING: f64 = 0.01;

/// Columns whose corrections are applied one by one; those further right get them all at once.
const BLOCK: usize = 64;

/// Rows that a thread takes at a time.
const ROWS: usize = 32;

/// The inverse second moments, factored: `H⁻¹ = Uᵀ·U` with `U` upper triangular, the columns in the
/// order in which they are quantized.
pub struct Factor {
    /// Input columns in the order of quantization: groups one after the other, the most important
    /// first, and so the columns in each.
    order: Vec<usize>,
    /// `[size][size]`
    upper: Vec<f32>,
    group: usize,
}

impl Factor {
    /// The factor for groups of `group` columns; `None` if the moments are not those of any inputs
    /// (not finite).
    pub fn new(moments: &Moments, group: usize) -> Option<Factor> {
        let size = moments.size();
        let diagonal = moments.diagonal();
        let order = order(&diagonal, group);
        let diagonal: Vec<f64> = diagonal.into_iter().map(f64::from).collect();
        let damping = damping(&diagonal)?;
        // Reversed, because a Cholesky factor is lower triangular: H = R·Rᵀ with R upper, U = R⁻¹.
        let mut reversed: Vec<f64> = Vec::with_capacity(size * size);
        for i in (0..size).rev() {
            let row = (0..size).rev().map(|j| {
                let damping = if i == j { damping } else { 0.0 };
                f64::from(moments.get(order[i], order[j])) + damping
            });
            reversed.extend(row);
        }
        if !cholesky::factor(&mut reversed, size) {
            return None;
        }
        let inverse = cholesky::invert(&reversed, size);
        drop(reversed);
        let upper = inverse.iter().rev().map(|&x| x as f32).collect();
        Some(Factor {
            order,
            upper,
            group,
        })
    }

    fn size(&self) -> usize {
        self.order.len()
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.upper[row * self.size()..][..self.size()]
    }

    /// How much an error in each input column costs when all later ones make up for it.
    pub fn by_column(&self) -> Vec<f32> {
        let mut columns = vec![0.0; self.size()];
        for (&column, importance) in self.order.iter().zip(self.importance()) {
            columns[column] = importance;
        }
        columns
    }

    /// [`Factor::by_column`] in the order of quantization.
    fn importance(&self) -> Vec<f32> {
        let diagonal = (0..self.size()).map(|i| self.row(i)[i]);
        diagonal.map(|u| 1.0 / (u * u)).collect()
    }
}

/// What is added to this diagonal; `None` if it is not finite.
pub(super) fn damping(diagonal: &[f64]) -> Option<f64> {
    let mean = diagonal.iter().sum::<f64>() / diagonal.len() as f64;
    let damping = (DAMPING * mean).max(f64::MIN_POSITIVE.sqrt());
    mean.is_finite().then_some(damping)
}

/// Groups by falling mean of the diagonal, and the columns in each by falling diagonal. A last group of fewer
/// columns stays the last: others would not start where blocks do.
fn order(diagonal: &[f32], group: usize) -> Vec<usize> {
    let columns: Vec<usize> = (0..diagonal.len()).collect();
    let mut groups: Vec<Vec<usize>> = columns.chunks(group).map(<[usize]>::to_vec).collect();
    for columns in &mut groups {
        columns.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    }
    let mean = |columns: &[usize]| {
        columns.iter().map(|&c| diagonal[c]).sum::<f32>() / columns.len() as f32
    };
    let is_short = |columns: &[usize]| columns.len() < group;
    groups.sort_by(|a, b| {
        let by_mean = mean(b).total_cmp(&mean(a));
        is_short(a).cmp(&is_short(b)).then(by_mean)
    });
    groups.concat()
}

/// Quantizes `weights` (`[rows][cols]` of `layout`). Returns with the codes the squared error of the
/// outputs, a mean over tokens and a sum over rows.
///
/// # Panics
/// If the kind is not quantized, or the factor or weights do not fit the layout.
pub fn quantize(layout: Layout, weights: &[f32], factor: &Factor) -> (Codes, f64) {
    let (cols, padded) = (layout.cols(), layout.padded_cols());
    assert_eq!(weights.len(), layout.rows() * cols);
    assert_eq!(factor.size(), cols, "second moments against weights");
    let group = padded / layout.groups();
    assert_eq!(factor.group, group, "factor against group");
    let importance = factor.importance();
    let mut codes = Codes::zeros(layout);
    let Codes {
        codes: all,
        scales,
        minimums,
        ..
    } = &mut codes;
    let groups = layout.groups();
    // Kinds without minimum have none to write: a place for them keeps the loop below whole.
    let mut unused = vec![];
    if minimums.is_empty() {
        unused.resize(scales.len(), half::f16::ZERO);
    }
    let minimums = if minimums.is_empty() {
        &mut unused
    } else {
        minimums
    };
    let error = all
        .par_chunks_mut(ROWS * padded)
        .zip(scales.par_chunks_mut(ROWS * groups))
        .zip(minimums.par_chunks_mut(ROWS * groups))
        .zip(weights.par_chunks(ROWS * cols))
        .map(|(((codes, scales), minimums), weights)| {
            let mut rows = Rows {
                factor,
                grid: Grid::of(layout.kind()),
                group,
                importance: &importance,
                weights: reorder(weights, &factor.order),
                steps: vec![Step::default(); scales.len()],
                groups,
            };
            let error = rows.quantize(codes, padded);
            for (i, step) in rows.steps.iter().enumerate() {
                (scales[i], minimums[i]) = (step.scale, step.minimum);
            }
            error
        })
        .sum();
    (codes, error)
}

fn reorder(weights: &[f32], order: &[usize]) -> Vec<f32> {
    let rows = weights.chunks_exact(order.len());
    rows.flat_map(|row| order.iter().map(|&c| row[c])).collect()
}

/// Some rows on their way.
struct Rows<'a> {
    factor: &'a Factor,
    grid: Grid,
    group: usize,
    groups: usize,
    importance: &'a [f32],
    /// `[row][column in order]`, with what later columns make up for.
    weights: Vec<f32>,
    /// `[row][group]`
    steps: Vec<Step>,
}

impl Rows<'_> {
    fn quantize(&mut self, codes: &mut [i8], padded: usize) -> f64 {
        let size = self.factor.size();
        let rows = self.weights.len() / size;
        let mut total = 0.0;
        let mut errors = vec![0.0; rows * BLOCK];
        // A group's scale is found when its first column comes: groups start blocks or lie in them.
        for start in (0..size).step_by(BLOCK) {
            let end = size.min(start + BLOCK);
            for row in 0..rows {
                let errors = &mut errors[row * BLOCK..][..end - start];
                let codes = &mut codes[row * padded..][..padded];
                for (j, error) in (start..end).zip(errors) {
                    *error = self.column(row, j, end, codes);
                    total += f64::from(*error * *error);
                }
            }
            self.pass_on(&errors, start, end);
        }
        total
    }

    /// Quantizes column `j` of a row and corrects the columns up to `end`.
    fn column(&mut self, row: usize, j: usize, end: usize, codes: &mut [i8]) -> f32 {
        let size = self.factor.size();
        let weights = &mut self.weights[row * size..][..size];
        let original = self.factor.order[j];
        let group = original / self.group;
        // The columns of a group stand together, its last group may be shorter.
        let first = j == 0 || self.factor.order[j - 1] / self.group != group;
        let step = &mut self.steps[row * self.groups + group];
        if first {
            let len = self.group.min(size - group * self.group);
            *step = self
                .grid
                .search(&weights[j..j + len], &self.importance[j..j + len]);
        }
        let code = self.grid.code(*step, weights[j]);
        codes[original] = code;
        let upper = &self.factor.row(j)[j..end];
        let error = (weights[j] - self.grid.value(*step, code)) / upper[0];
        for (w, u) in weights[j..end].iter_mut().zip(upper) {
            *w -= error * u;
        }
        error
    }

    /// Corrects the columns from `end` on for the errors of `start..end`.
    fn pass_on(&mut self, errors: &[f32], start: usize, end: usize) {
        let size = self.factor.size();
        if end == size {
            return;
        }
        let errors = view(errors, BLOCK);
        let errors = errors.slice(s![.., ..end - start]);
        let upper = view(&self.factor.upper, size);
        let upper = upper.slice(s![start..end, end..]);
        let mut weights = view_mut(&mut self.weights, size);
        let mut weights = weights.slice_mut(s![.., end..]);
        general_mat_mul(-1.0, &errors, &upper, 1.0, &mut weights);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_group_stays_the_last() {
        // The last two columns matter most.
        assert_eq!(
            order(&[1.0, 2.0, 4.0, 3.0, 9.0, 8.0], 4),
            [2, 3, 1, 0, 4, 5]
        );
        assert_eq!(
            order(&[1.0, 2.0, 4.0, 3.0, 9.0, 8.0], 2),
            [4, 5, 2, 3, 1, 0]
        );
    }
}
