//! Tables of the rotary position embedding (Su et al. 2021) and its stretched variants.

use crate::config::{Rope, RopeScaling};
use std::f64::consts::PI;

/// Cosines and sines for positions `0..`, `[position][dims / 2]`.
pub struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// The table for a context of `positions`. LongRoPE takes its long factors when the context is
    /// longer than the one before stretching.
    ///
    /// Angles are products of f32 as in `transformers`; their cosines are computed by `libm` in f64,
    /// so that they are the same on every platform.
    pub fn new(rope: &Rope, positions: usize) -> RopeTable {
        let (frequencies, factor) = frequencies(rope, positions);
        let half = frequencies.len();
        let mut table = RopeTable {
            half,
            cos: Vec::with_capacity(positions * half),
            sin: Vec::with_capacity(positions * half),
        };
        for position in 0..positions {
            for frequency in &frequencies {
                let angle = f64::from(position as f32 * frequency);
                table.cos.push(libm::cos(angle) as f32 * factor);
                table.sin.push(libm::sin(angle) as f32 * factor);
            }
        }
        table
    }

    /// Cosines and sines of `rows` positions from `start` on.
    pub fn rows(&self, start: usize, rows: usize) -> (&[f32], &[f32]) {
        let range = start * self.half..(start + rows) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// Inverse frequencies, `dims / 2` of them, and the factor on cosines and sines.
fn frequencies(rope: &Rope, positions: usize) -> (Vec<f32>, f32) {
    let dims = rope.dims as f64;
    let theta = f64::from(rope.theta);
    let plain = |i: usize| libm::pow(theta, -((2 * i) as f64) / dims);
    let stretch = |map: &dyn Fn(usize, f64) -> f64| -> Vec<f32> {
        (0..rope.dims / 2)
            .map(|i| map(i, plain(i)) as f32)
            .collect()
    };
    match &rope.scaling {
        None => (stretch(&|_, f| f), 1.0),
        Some(RopeScaling::Linear { factor }) => (stretch(&|_, f| f / f64::from(*factor)), 1.0),
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_positions,
        }) => {
            let (factor, low) = (f64::from(*factor), f64::from(*low_freq_factor));
            let (high, original) = (f64::from(*high_freq_factor), *original_positions as f64);
            let llama3 = |_, f: f64| {
                let wavelength = 2.0 * PI / f;
                if wavelength < original / high {
                    f
                } else if wavelength > original / low {
                    f / factor
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * f / factor + smooth * f
                }
            };
            (stretch(&llama3), 1.0)
        }
        Some(RopeScaling::LongRope {
            short,
            long,
            original_positions,
            attention_factor,
        }) => {
            let factors = if positions > *original_positions {
                long
            } else {
                short
            };
            (
                stretch(&|i, f| f / f64::from(factors[i])),
                *attention_factor,
            )
        }
        Some(RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_positions,
            attention_factor,
        }) => {
            // The dimension whose wavelength makes so many turns over the original context.
            let dimension = |turns: f32| {
                let original = *original_positions as f64;
                let ratio = original / (f64::from(turns) * 2.0 * PI);
                dims * libm::log(ratio) / (2.0 * libm::log(theta))
            };
            let low = dimension(*beta_fast).floor().max(0.0);
            let high = dimension(*beta_slow).ceil().min(dims - 1.0);
            let width = if high > low { high - low } else { 0.001 };
            let yarn = |i: usize, f: f64| {
                let ramp = ((i as f64 - low) / width).clamp(0.0, 1.0);
                f / f64::from(*factor) * ramp + f * (1.0 - ramp)
            };
            (stretch(&yarn), *attention_factor)
        }
    }
}
