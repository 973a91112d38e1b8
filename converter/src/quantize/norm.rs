//! Norm correction: once the layers that read a norm are quantized, its weight is fitted to them.
//!
//! A norm tweaked after quantization (Norm Tweaking, Li et al. 2023) costs nothing when the model runs.
//! Here not by gradient steps but in closed form: the factors `s` of the input channels for which
//! `Q·(s ∘ x)` is closest to `W·x` in the mean over the inputs solve
//! `(H ∘ QᵀQ)·s = (H ∘ QᵀW)·1`, where `H` are the second moments of the inputs.

use super::cholesky;
use super::gptq::damping;
use crate::calibrate::dense::{Moments, multiply, view, view_mut};

/// How far from 1 a factor may be: inputs that say so little that it went further are left alone.
const FARTHEST: f32 = 0.5;

/// The factor of each input channel, for layers (`[outputs][inputs]` each, original and quantized) that
/// share it; `None` if the moments are not those of any inputs.
pub fn factors(moments: &Moments, layers: &[(Vec<f32>, &[f32])]) -> Option<Vec<f32>> {
    let size = moments.size();
    let means = moments.full();
    let (mut normal, mut right) = (vec![0.0f64; size * size], vec![0.0f64; size]);
    let mut products = vec![0.0f32; size * size];
    for (original, quantized) in layers {
        let (w, q) = (view(original, size), view(quantized, size));
        multiply(1.0, q.t(), q, 0.0, view_mut(&mut products, size));
        let terms = products.iter().zip(&means);
        for (sum, (product, mean)) in normal.iter_mut().zip(terms) {
            *sum += f64::from(product * mean);
        }
        multiply(1.0, q.t(), w, 0.0, view_mut(&mut products, size));
        let rows = products.chunks_exact(size).zip(means.chunks_exact(size));
        for (sum, (products, means)) in right.iter_mut().zip(rows) {
            let terms = products.iter().zip(means).map(|(p, m)| f64::from(p * m));
            *sum += terms.sum::<f64>();
        }
    }
    // Towards 1 where inputs say little.
    let diagonal: Vec<f64> = (0..size).map(|i| normal[i * size + i]).collect();
    let damping = damping(&diagonal)?;
    for i in 0..size {
        normal[i * size + i] += damping;
        right[i] += damping;
    }
    cholesky::factor(&mut normal, size).then(|| solve(&normal, right))
}

/// Solves `L·Lᵀ·s = right`, factors that make no sense replaced by 1.
fn solve(lower: &[f64], mut right: Vec<f64>) -> Vec<f32> {
    let size = right.len();
    for i in 0..size {
        let known: f64 = (0..i).map(|k| lower[i * size + k] * right[k]).sum();
        right[i] = (right[i] - known) / lower[i * size + i];
    }
    for i in (0..size).rev() {
        let known: f64 = (i + 1..size).map(|k| lower[k * size + i] * right[k]).sum();
        right[i] = (right[i] - known) / lower[i * size + i];
    }
    let sensible = |s: f32| if (s - 1.0).abs() <= FARTHEST { s } else { 1.0 };
    right.into_iter().map(|s| sensible(s as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinglet::sampler::SplitMix64;

    const INPUTS: usize = 12;

    fn random(seed: u64, count: usize) -> Vec<f32> {
        let mut random = SplitMix64(seed);
        (0..count).map(|_| random.unit() as f32 - 0.5).collect()
    }

    fn moments() -> Moments {
        let mut moments = Moments::new(INPUTS);
        moments.add(&random(1, 200 * INPUTS), None);
        moments
    }

    /// Layers whose columns have shrunk, each by a factor of its own, get them back.
    #[test]
    fn columns_that_shrank_are_brought_back() {
        let expected: Vec<f32> = (0..INPUTS).map(|i| 0.8 + 0.05 * i as f32).collect();
        let layers: Vec<(Vec<f32>, Vec<f32>)> = [20, 7]
            .map(|outputs| {
                let original = random(outputs as u64, outputs * INPUTS);
                let shrunk = original.iter().enumerate();
                let shrunk = shrunk.map(|(at, w)| w / expected[at % INPUTS]).collect();
                (original, shrunk)
            })
            .into();
        let layers: Vec<_> = layers.iter().map(|(w, q)| (w.clone(), &q[..])).collect();
        let found = factors(&moments(), &layers).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            // The damping, 1 % of the mean of the diagonal, draws them towards 1.
            assert!((found - expected).abs() < 0.03, "{found} {expected}");
        }
    }

    /// No other factors leave less error, up to what the damping keeps.
    #[test]
    fn rounded_layers_lose_less() {
        let original = random(3, 30 * INPUTS);
        let rounded: Vec<f32> = original.iter().map(|w| (w * 4.0).round() / 4.0).collect();
        let moments = moments();
        let scales = factors(&moments, &[(original.clone(), &rounded)]).unwrap();
        let loss = |scales: &[f32]| -> f64 {
            let rows = original
                .chunks_exact(INPUTS)
                .zip(rounded.chunks_exact(INPUTS));
            let row = |(w, q): (&[f32], &[f32])| {
                let error = |i: usize| f64::from(q[i] * scales[i] - w[i]);
                let pairs = (0..INPUTS).flat_map(|i| (0..INPUTS).map(move |j| (i, j)));
                pairs
                    .map(|(i, j)| f64::from(moments.get(i, j)) * error(i) * error(j))
                    .sum::<f64>()
            };
            rows.map(row).sum()
        };
        assert!(loss(&scales) < 0.99 * loss(&[1.0; INPUTS]));
    }

    #[test]
    fn inputs_that_are_not_finite_say_nothing() {
        let mut moments = Moments::new(2);
        moments.add(&[f32::NAN, 1.0], None);
        assert!(factors(&moments, &[(vec![1.0, 2.0], &[1.0, 2.0])]).is_none());
    }
}
