//! Round to nearest, each group on its own: the baseline that needs no data.

use super::grid::{Step, extreme, to_f16};
use half::f16;
use kinglet_kernels::packing::{Codes, Kind, Layout};

/// Quantizes `weights` (`[rows][cols]` of `layout`).
///
/// - `q8`: the scale takes the largest magnitude to ±127.
/// - `q3` to `q6`: the scale takes the weight of largest magnitude to code 0, so that all codes serve
///   (the grid has one more negative step than positive ones).
/// - `q4` with minimum: scale and minimum take the smallest weight to 0 and the largest to 15.
///
/// Scales are rounded to f16 before codes are chosen.
///
/// # Panics
/// If the kind is not quantized, or the weights are not as many as the layout says.
pub fn quantize(layout: Layout, weights: &[f32]) -> Codes {
    assert_eq!(weights.len(), layout.rows() * layout.cols());
    let mut codes = Codes::zeros(layout);
    let group = layout.padded_cols() / layout.groups();
    let rows = weights.chunks_exact(layout.cols());
    for (row, weights) in rows.enumerate() {
        let out = &mut codes.codes[row * layout.padded_cols()..][..layout.padded_cols()];
        for (g, (weights, out)) in weights.chunks(group).zip(out.chunks_mut(group)).enumerate() {
            let at = row * layout.groups() + g;
            match layout.kind() {
                Kind::Q4 { minimum: true, .. } => {
                    (codes.scales[at], codes.minimums[at]) = with_minimum(weights, out);
                }
                Kind::Q8 { .. } => codes.scales[at] = eight_bits(weights, out),
                kind => codes.scales[at] = symmetric(weights, kind.zero_code(), out),
            }
        }
    }
    codes
}

/// 0 for a scale of 0, whose codes do not matter.
fn inverse(scale: f16) -> f32 {
    if scale == f16::ZERO {
        0.0
    } else {
        1.0 / scale.to_f32()
    }
}

fn eight_bits(weights: &[f32], codes: &mut [i8]) -> f16 {
    let scale = to_f16(extreme(weights).abs() / 127.0);
    let inverse = inverse(scale);
    for (code, w) in codes.iter_mut().zip(weights) {
        *code = (w * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    scale
}

fn symmetric(weights: &[f32], zero: i8, codes: &mut [i8]) -> f16 {
    let steps = f32::from(zero);
    let scale = to_f16(extreme(weights) / -steps);
    let inverse = inverse(scale);
    for (code, w) in codes.iter_mut().zip(weights) {
        *code = (w * inverse).round_ties_even().clamp(-steps, steps - 1.0) as i8 + zero;
    }
    scale
}

fn with_minimum(weights: &[f32], codes: &mut [i8]) -> (f16, f16) {
    let smallest = weights.iter().copied().fold(f32::INFINITY, f32::min);
    let largest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let step = Step::of_range(smallest, largest, 15.0);
    let (minimum, inverse) = (step.minimum, step.inverse());
    for (code, w) in codes.iter_mut().zip(weights) {
        let steps = (w - minimum.to_f32()) * inverse;
        *code = steps.round_ties_even().clamp(0.0, 15.0) as i8;
    }
    (step.scale, minimum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(Kind::quantized().collect::<Vec<_>>())
    }

    proptest! {
        /// Half a step of the group's grid, and what rounding the scale and minimum to f16 adds:
        /// a relative 2^-11, or an absolute 2^-25 where they are subnormal, once for each step
        /// of the largest code.
        #[test]
        fn errors_stay_within_half_a_step(
            kind in kinds(),
            rows in 1usize..4,
            cols in 1usize..200,
            seed in any::<u64>(),
            magnitude in -3i32..4,
        ) {
            let layout = Layout::new(kind, rows, cols).unwrap();
            let mut state = seed | 1;
            let weights: Vec<f32> = (0..rows * cols).map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 10f32.powi(magnitude)
            }).collect();
            let codes = quantize(layout, &weights);
            let group = layout.padded_cols() / layout.groups();
            for row in 0..rows {
                for col in 0..cols {
                    let from = col / group * group;
                    let range = &weights[row * cols + from..row * cols + cols.min(from + group)];
                    let largest = extreme(range).abs();
                    let code = codes.codes[row * layout.padded_cols() + col];
                    prop_assert!((kind.code_range().0..=kind.code_range().1).contains(&code));
                    // A symmetric 4-bit grid has no code 8: a weight opposite to the extreme may
                    // be a whole step away. So it is with 3, 5 and 6 bits.
                    let (step, codes_to_extreme) = match kind {
                        Kind::Q8 { .. } => (0.5 * largest / 127.0, 127.0),
                        _ if !kind.has_minimum() => {
                            let steps = f32::from(kind.zero_code());
                            (largest / steps, steps)
                        }
                        _ => (0.5 * 2.0 * largest / 15.0, 15.0 + 1.0),
                    };
                    let rounding = largest * 2e-3 + codes_to_extreme * 2f32.powi(-25);
                    let error = (codes.weight(row, col) - weights[row * cols + col]).abs();
                    prop_assert!(error <= step * 1.01 + rounding, "{error} against {step}");
                }
            }
        }
    }

    #[test]
    fn extremes_are_finite() {
        for kind in ["q8g32", "q4g32", "q4mg32"] {
            let layout = Layout::new(kind.parse().unwrap(), 1, 32).unwrap();
            for value in [0.0, f32::MIN_POSITIVE, 1e-7, f32::MAX, f32::MIN] {
                let codes = quantize(layout, &[value; 32]);
                assert!(codes.weight(0, 0).is_finite(), "{kind} of {value}");
            }
        }
    }

    #[test]
    fn weights_on_the_grid_stay() {
        let layout = Layout::new("q4g32".parse().unwrap(), 1, 32).unwrap();
        let weights: Vec<f32> = (0..32).map(|i| (i % 16 - 8) as f32 * 0.25).collect();
        let codes = quantize(layout, &weights);
        let back: Vec<f32> = (0..32).map(|col| codes.weight(0, col)).collect();
        assert_eq!(back, weights);
    }
}
