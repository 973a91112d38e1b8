//! A correction of low rank for a quantized layer (ZeroQuant-V2, Yao et al. 2023; LQER, Zhang et al.
//! 2024), made for the inputs that the layer gets.
//!
//! With `E = W - Q(W)` and the Cholesky factor `L` of the inputs' second moments, `H = L·Lᵀ`, the
//! outputs lose `|E·L|²`, and the truncated singular value decomposition of `E·L`, with `L` taken out
//! of it again, takes the most of that away: `U·Uᵀ·E`, where `U` are the first left singular vectors of
//! `E·L`. These are the eigenvectors of `E·H·Eᵀ`, so that neither `L` nor its inverse is needed.

use super::gptq::DAMPING;
use crate::calibrate::dense::{Moments, multiply, view, view_mut};
use kinglet::sampler::SplitMix64;
use kinglet_kernels::packing::{Group, Kind, Layout};

/// Multiplications by `E·H·Eᵀ`, from random vectors on (Halko et al. 2011). Each squares the distance
/// between singular values; those that are still close may as well be taken for each other.
const ITERATIONS: usize = 12;

/// The two matrices of a correction.
pub struct Correction {
    /// `[rank][inputs]`
    pub narrow: Vec<f32>,
    /// `[outputs][rank]`
    pub widen: Vec<f32>,
}

/// The correction of rank `rank` that makes the outputs' mean squared error smallest, for an error
/// (`[outputs][inputs]`) of the weights.
///
/// # Panics
/// If the error does not fit the moments, or the rank is larger than its sides.
pub fn correct(error: &[f32], moments: &Moments, rank: usize) -> Correction {
    let inputs = moments.size();
    let outputs = error.len() / inputs;
    assert!(rank <= outputs && rank <= inputs, "rank {rank}");
    let error = view(error, inputs);
    let moments = damped(moments);
    let moments = view(&moments, inputs);
    // Transposed: `[rank][outputs]` and `[rank][inputs]`.
    let mut random = SplitMix64(0);
    let mut basis: Vec<f32> = (0..rank * outputs)
        .map(|_| random.unit() as f32 - 0.5)
        .collect();
    let mut narrow = vec![0.0; rank * inputs];
    let mut weighted = narrow.clone();
    let project = |basis: &[f32], narrow: &mut [f32]| {
        multiply(
            1.0,
            view(basis, outputs),
            error,
            0.0,
            view_mut(narrow, inputs),
        );
    };
    orthonormalize(&mut basis, outputs);
    for _ in 0..ITERATIONS {
        project(&basis, &mut narrow);
        let out = view_mut(&mut weighted, inputs);
        multiply(1.0, view(&narrow, inputs), moments, 0.0, out);
        let out = view_mut(&mut basis, outputs);
        multiply(1.0, view(&weighted, inputs), error.t(), 0.0, out);
        orthonormalize(&mut basis, outputs);
    }
    project(&basis, &mut narrow);
    let widen = view(&basis, outputs).t().iter().copied().collect();
    Correction { narrow, widen }
}

/// The moments, as GPTQ takes them: what no token showed counts a little.
fn damped(moments: &Moments) -> Vec<f32> {
    let size = moments.size();
    let mean = moments.diagonal().iter().sum::<f32>() / size as f32;
    let mut full = moments.full();
    let diagonal = full.iter_mut().step_by(size + 1);
    diagonal.for_each(|x| *x += DAMPING as f32 * mean);
    full
}

/// Gives the rows of `cols` floats length 1 and right angles, by Gram and Schmidt's method done twice;
/// rows that depend on those before become zero.
fn orthonormalize(rows: &mut [f32], cols: usize) {
    let mut done: Vec<Vec<f64>> = vec![];
    let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
    for out in rows.chunks_exact_mut(cols) {
        let mut row: Vec<f64> = out.iter().map(|&x| f64::from(x)).collect();
        let mut norms = [0.0; 2];
        for norm_after in &mut norms {
            for other in &done {
                let along: f64 = row.iter().zip(other).map(|(x, y)| x * y).sum();
                row.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
            }
            *norm_after = norm(&row);
        }
        // Where the second time takes most away as well, nothing but rounding was left.
        if norms[1] > 0.5 * norms[0] {
            row.iter_mut().for_each(|x| *x /= norms[1]);
        } else {
            row.fill(0.0);
        }
        out.iter_mut()
            .zip(&row)
            .for_each(|(out, x)| *out = *x as f32);
        done.push(row);
    }
}

/// The layout of one of the matrices: the smaller of `q8` and `f16`, which rows shorter than a group
/// of 32 take less of.
///
/// # Panics
/// If a side is zero, or the matrix larger than one that it is to correct can be.
pub fn layout(rows: usize, cols: usize) -> Layout {
    let group = Group::G32;
    [Kind::Q8 { group }, Kind::F16]
        .map(|kind| Layout::new(kind, rows, cols).expect("smaller than what it corrects"))
        .into_iter()
        .min_by_key(Layout::bytes)
        .expect("two kinds")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUTS: usize = 40;
    const INPUTS: usize = 24;

    fn random(seed: u64, count: usize) -> Vec<f32> {
        let mut random = SplitMix64(seed);
        (0..count).map(|_| random.unit() as f32 - 0.5).collect()
    }

    /// The moments of inputs that are independent of each other, and of these sizes.
    fn independent(sizes: &[f32]) -> Moments {
        let mut moments = Moments::new(sizes.len());
        for (index, size) in sizes.iter().enumerate() {
            let mut row = vec![0.0; sizes.len()];
            row[index] = size * (sizes.len() as f32).sqrt();
            moments.add(&row, None);
        }
        moments
    }

    /// The mean squared error of the outputs that a correction leaves.
    fn rest(error: &[f32], moments: &Moments, correction: &Correction) -> f64 {
        let rank = correction.narrow.len() / INPUTS;
        let narrow = view(&correction.narrow, INPUTS);
        let rest = &view(error, INPUTS) - &view(&correction.widen, rank).dot(&narrow);
        let moments = damped(moments);
        let weighted = rest.dot(&view(&moments, INPUTS));
        rest.iter()
            .zip(&weighted)
            .map(|(a, b)| f64::from(a * b))
            .sum()
    }

    /// Known singular values, to which inputs of unequal sizes bring the error: what is left is the sum
    /// of the squares of those beyond the rank.
    #[test]
    fn no_correction_of_the_rank_is_better() {
        let sizes: Vec<f32> = (0..INPUTS).map(|i| 0.1 + (i * i % 17) as f32).collect();
        let (mut left, mut right) = (random(1, INPUTS * OUTPUTS), random(2, INPUTS * INPUTS));
        orthonormalize(&mut left, OUTPUTS);
        orthonormalize(&mut right, INPUTS);
        let values: Vec<f32> = (0..INPUTS).map(|i| 0.8f32.powi(i as i32)).collect();
        let moments = independent(&sizes);
        let damped = damped(&moments);
        let sizes: Vec<f32> = (0..INPUTS).map(|i| damped[i * INPUTS + i].sqrt()).collect();
        let mut error = vec![0.0; OUTPUTS * INPUTS];
        for (index, value) in values.iter().enumerate() {
            for (row, out) in error.chunks_exact_mut(INPUTS).enumerate() {
                for (col, out) in out.iter_mut().enumerate() {
                    let product = left[index * OUTPUTS + row] * right[index * INPUTS + col];
                    *out += value * product / sizes[col];
                }
            }
        }
        for rank in [1, 4, 9] {
            let found = rest(&error, &moments, &correct(&error, &moments, rank));
            let best: f64 = values[rank..].iter().map(|&v| f64::from(v * v)).sum();
            // Neighbouring vectors still mix by 0.8 to the power of twice the iterations: 0.5 %.
            assert!(found <= 1.005 * best, "rank {rank}: {found} against {best}");
        }
    }

    #[test]
    fn what_the_inputs_are_matters() {
        let error = random(3, OUTPUTS * INPUTS);
        let sizes: Vec<f32> = (0..INPUTS)
            .map(|i| if i % 6 == 0 { 9.0 } else { 1.0 })
            .collect();
        let moments = independent(&sizes);
        let plain = correct(&error, &independent(&[1.0; INPUTS]), 4);
        let weighted = correct(&error, &moments, 4);
        let [plain, weighted] = [plain, weighted].map(|c| rest(&error, &moments, &c));
        // Four inputs of 24 carry 324 parts of 344 of the error: rank 4 holds them and no more.
        assert!(weighted < 0.2 * plain, "{weighted} against {plain}");
    }

    #[test]
    fn full_rank_leaves_nothing_and_dependent_rows_no_nonsense() {
        let error = random(4, OUTPUTS * INPUTS);
        let ones = independent(&[1.0; INPUTS]);
        let size: f64 = error.iter().map(|&x| f64::from(x * x)).sum();
        let correction = correct(&error, &ones, INPUTS);
        // Squares of some dozens of roundings in f32.
        assert!(rest(&error, &ones, &correction) < 1e-11 * size);
        // An error of rank 1, and none at all.
        let row = random(5, INPUTS);
        let mut error: Vec<f32> = (0..OUTPUTS)
            .flat_map(|i| row.iter().map(move |x| x * i as f32))
            .collect();
        let correction = correct(&error, &ones, 3);
        assert!(rest(&error, &ones, &correction) < 1e-6);
        error.fill(0.0);
        let correction = correct(&error, &ones, 3);
        assert!(correction.narrow.iter().all(|&x| x == 0.0));
        assert!(correction.widen.iter().all(|&x| x == 0.0));
        // Inputs that are not finite say nothing.
        let correction = correct(&error, &independent(&[f32::NAN; INPUTS]), 3);
        assert!(correction.narrow.iter().all(|&x| x == 0.0));
    }
}
