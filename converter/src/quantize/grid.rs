//! The grid of one group of weights: which scale and minimum serve it best.

use half::f16;
use kinglet_kernels::packing::Kind;

/// The codes of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// The code that stands for zero; 0 for kinds with minimum.
    zero: f32,
    low: f32,
    high: f32,
    minimum: bool,
}

/// Scale and minimum (0 without) of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// The distance of neighbouring weights; may be negative in a symmetric kind.
    pub scale: f16,
    /// The weight of code 0, for kinds with minimum.
    pub minimum: f16,
}

impl Step {
    /// The step that takes `smallest` to code 0 and `largest` to `steps`: the scale makes up for what
    /// the minimum lost in half precision.
    pub(super) fn of_range(smallest: f32, largest: f32, steps: f32) -> Step {
        let minimum = to_f16(smallest);
        Step {
            scale: to_f16((largest - minimum.to_f32()).max(0.0) / steps),
            minimum,
        }
    }

    /// 0 for a scale of 0, whose codes do not matter.
    pub(super) fn inverse(self) -> f32 {
        match self.scale.to_f32() {
            0.0 => 0.0,
            scale => 1.0 / scale,
        }
    }
}

/// Parts of the widest range that are tried as a group's range, largest first: weights beyond it are
/// clipped to the advantage of all others.
const RANGES: [f32; 12] = [
    1.06, 1.0, 0.96, 0.92, 0.88, 0.84, 0.80, 0.76, 0.72, 0.67, 0.62, 0.55,
];

/// With more bits than this, clipping pays little.
const CLIPPED_BITS: usize = 5;

impl Grid {
    /// The grid of a kind.
    ///
    /// # Panics
    /// If the kind is not quantized.
    pub fn of(kind: Kind) -> Grid {
        let (low, high) = kind.code_range();
        Grid {
            zero: f32::from(kind.zero_code()),
            low: f32::from(low),
            high: f32::from(high),
            minimum: kind.has_minimum(),
        }
    }

    /// The code nearest to `weight`.
    pub fn code(&self, step: Step, weight: f32) -> i8 {
        self.code_with(step.minimum.to_f32(), step.inverse(), weight) as i8
    }

    /// The code nearest to `weight`, as a float, from the minimum and the inverse of the scale.
    fn code_with(&self, minimum: f32, inverse: f32, weight: f32) -> f32 {
        let steps = round((weight - minimum) * inverse + self.zero);
        steps.clamp(self.low, self.high)
    }

    /// What a code stands for.
    pub fn value(&self, step: Step, code: i8) -> f32 {
        let steps = f32::from(code) - self.zero;
        step.scale.to_f32() * steps + step.minimum.to_f32()
    }

    /// The step that makes `Σ importance · (weight - rounded)²` smallest among those that are
    /// tried: a clipping search too (Choukroun et al. 2019), since ranges that cut off the largest
    /// weights are among them.
    pub fn search(&self, weights: &[f32], importance: &[f32]) -> Step {
        if self.minimum {
            return self.search_with_minimum(weights, importance);
        }
        let extreme = extreme(weights);
        if extreme == 0.0 || !extreme.is_finite() {
            return Step::default();
        }
        // With a scale of either sign the extreme lies at the end of the grid with one more code.
        let widest = extreme / (self.low - self.zero);
        let ranges = self.ranges();
        let candidates = ranges
            .iter()
            .flat_map(|range| [range * widest, -range * widest]);
        let mut best = (f32::NEG_INFINITY, widest);
        for scale in candidates {
            let (gain, fitted) = self.fit(weights, importance, scale);
            if gain > best.0 {
                best = (gain, fitted);
            }
        }
        // The codes of the fitted scale may differ: fit it to them once more.
        let (gain, fitted) = self.fit(weights, importance, best.1);
        if gain > best.0 {
            best.1 = fitted;
        }
        self.nearest_step(weights, importance, [best.1, widest])
    }

    /// The step of least error among the two f16 scales around each of `scales`: which way to
    /// round a fitted scale depends on the weights that it clips.
    fn nearest_step(&self, weights: &[f32], importance: &[f32], scales: [f32; 2]) -> Step {
        let around = |scale: f32| {
            let nearest = to_f16(scale);
            let away = if nearest.to_f32().abs() < scale.abs() {
                1
            } else {
                -1
            };
            let other = f16::from_bits(nearest.to_bits().saturating_add_signed(away));
            [nearest, other]
        };
        let mut best = (f32::INFINITY, Step::default());
        for scale in scales.into_iter().flat_map(around) {
            let step = Step {
                scale,
                minimum: f16::ZERO,
            };
            let error = self.error(weights, importance, step);
            if error < best.0 {
                best = (error, step);
            }
        }
        best.1
    }

    /// `Σ importance · (weight - rounded)²`.
    fn error(&self, weights: &[f32], importance: &[f32], step: Step) -> f32 {
        let (scale, inverse) = (step.scale.to_f32(), step.inverse());
        let mut error = [0.0f32; 8];
        for (weights, importance) in weights.chunks(8).zip(importance.chunks(8)) {
            for (lane, (w, i)) in weights.iter().zip(importance).enumerate() {
                let steps = self.code_with(0.0, inverse, *w) - self.zero;
                error[lane] += i * (scale * steps - w).powi(2);
            }
        }
        error.iter().sum()
    }

    fn ranges(&self) -> &'static [f32] {
        let codes = (self.high - self.low) as usize + 1;
        if codes.ilog2() as usize > CLIPPED_BITS {
            &RANGES[1..3]
        } else {
            &RANGES
        }
    }

    /// The best scale for the codes that `scale` gives, and by how much those explain the weights:
    /// `(Σ i·w·c)² / Σ i·c²`, the larger the smaller the error.
    fn fit(&self, weights: &[f32], importance: &[f32], scale: f32) -> (f32, f32) {
        let inverse = 1.0 / scale;
        let (low, high) = (self.low - self.zero, self.high - self.zero);
        let (mut product, mut square) = ([0.0f32; 8], [0.0f32; 8]);
        let lanes = weights.chunks(8).zip(importance.chunks(8));
        for (weights, importance) in lanes {
            for (lane, (w, i)) in weights.iter().zip(importance).enumerate() {
                let code = round(w * inverse).clamp(low, high);
                product[lane] += i * w * code;
                square[lane] += i * code * code;
            }
        }
        let (product, square): (f32, f32) = (product.iter().sum(), square.iter().sum());
        if square <= 0.0 || !square.is_finite() {
            return (f32::NEG_INFINITY, scale);
        }
        (product * product / square, product / square)
    }

    fn search_with_minimum(&self, weights: &[f32], importance: &[f32]) -> Step {
        let smallest = weights.iter().copied().fold(f32::INFINITY, f32::min);
        let largest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (middle, half) = ((smallest + largest) / 2.0, (largest - smallest) / 2.0);
        let plain = Step::of_range(smallest, largest, self.high - self.low);
        let mut best = (self.fit_line(weights, importance, plain).0, plain);
        for range in self.ranges() {
            let mut scale = 2.0 * half * range / (self.high - self.low);
            let mut minimum = middle - half * range;
            // Codes, then the best line through them, until it is found.
            for _ in 0..3 {
                let step = Step {
                    scale: to_f16(scale),
                    minimum: to_f16(minimum),
                };
                let (error, line) = self.fit_line(weights, importance, step);
                if error < best.0 {
                    best = (error, step);
                }
                (scale, minimum) = line;
            }
        }
        best.1
    }

    /// The error of a step, and the scale and minimum that serve its codes best.
    fn fit_line(&self, weights: &[f32], importance: &[f32], step: Step) -> (f32, (f32, f32)) {
        let (scale, minimum, inverse) =
            (step.scale.to_f32(), step.minimum.to_f32(), step.inverse());
        let [mut n, mut x, mut y, mut xx, mut xy, mut error] = [0.0f64; 6];
        for (&w, &i) in weights.iter().zip(importance) {
            let code = self.code_with(minimum, inverse, w);
            let difference = f64::from(scale * code + minimum - w);
            let (w, i, code) = (f64::from(w), f64::from(i), f64::from(code));
            n += i;
            x += i * code;
            y += i * w;
            xx += i * code * code;
            xy += i * code * w;
            error += i * difference * difference;
        }
        let determinant = n * xx - x * x;
        if determinant <= 1e-9 * n * xx {
            return (error as f32, (scale, minimum));
        }
        let slope = (n * xy - x * y) / determinant;
        (error as f32, (slope as f32, ((y - slope * x) / n) as f32))
    }
}

/// Round half to even of magnitudes below 2²², in two additions that every CPU can vectorize.
fn round(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    let x = x.clamp(-1e6, 1e6);
    (x + SHIFT) - SHIFT
}

/// The weight of largest magnitude, with its sign.
pub(super) fn extreme(weights: &[f32]) -> f32 {
    let larger = |a: f32, &b: &f32| if b.abs() > a.abs() { b } else { a };
    weights.iter().fold(0.0, larger)
}

/// The nearest finite f16.
pub(super) fn to_f16(value: f32) -> f16 {
    let limit = f16::MAX.to_f32();
    f16::from_f32(value.clamp(-limit, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::rtn;
    use kinglet_kernels::packing::Layout;
    use proptest::prelude::*;

    proptest! {
        /// A search that tries the plain range among others is never worse than rounding, but for
        /// the order of the sums.
        #[test]
        fn search_is_at_least_as_good_as_rounding(
            kind in prop::sample::select(vec!["q4g32", "q4mg32", "q8g32", "q4g64", "q4mg128"]),
            weights in prop::collection::vec(-2.0f32..2.0, 1..128),
            seed in 1u32..1000,
        ) {
            let kind: Kind = kind.parse().unwrap();
            let group = kind.group().unwrap().len();
            let weights = &weights[..weights.len().min(group)];
            let importance: Vec<f32> = (0..weights.len() as u32)
                .map(|i| 0.5 + (i * seed % 97) as f32)
                .collect();
            let layout = Layout::new(kind, 1, weights.len()).unwrap();
            let plain = rtn::quantize(layout, weights);
            let grid = Grid::of(kind);
            let step = grid.search(weights, &importance);
            let (mut searched, mut rounded) = (0.0, 0.0);
            for (col, (&w, &i)) in weights.iter().zip(&importance).enumerate() {
                searched += i * (grid.value(step, grid.code(step, w)) - w).powi(2);
                rounded += i * (plain.weight(0, col) - w).powi(2);
            }
            prop_assert!(searched <= rounded * 1.00001, "{searched} {rounded}");
        }
    }

    #[test]
    fn extremes_are_finite() {
        for kind in ["q4g32", "q4mg32", "q8g32"] {
            let grid = Grid::of(kind.parse().unwrap());
            for value in [0.0, f32::MIN_POSITIVE, 1e-7, f32::MAX, f32::MIN] {
                let step = grid.search(&[value; 32], &[1.0; 32]);
                let back = grid.value(step, grid.code(step, value));
                assert!(back.is_finite(), "{kind} of {value}");
            }
        }
    }
}
