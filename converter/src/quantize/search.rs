//! Rounding to the nearest code with a scale searched for each group, weighted by how much each
//! input matters if that is known.

use super::grid::Grid;
use kinglet_kernels::packing::{Codes, Layout};

/// Quantizes `weights` (`[rows][cols]` of `layout`); `importance` is the mean square of each input.
///
/// # Panics
/// If the kind is not quantized, or the slices do not fit the layout.
pub fn quantize(layout: Layout, weights: &[f32], importance: Option<&[f32]>) -> Codes {
    assert_eq!(weights.len(), layout.rows() * layout.cols());
    let equal = vec![1.0; layout.cols()];
    let importance = importance.unwrap_or(&equal);
    let grid = Grid::of(layout.kind());
    let mut codes = Codes::zeros(layout);
    let group = layout.padded_cols() / layout.groups();
    for (row, weights) in weights.chunks_exact(layout.cols()).enumerate() {
        let out = &mut codes.codes[row * layout.padded_cols()..][..layout.padded_cols()];
        let groups = weights.chunks(group).zip(importance.chunks(group));
        for (g, (weights, importance)) in groups.enumerate() {
            let step = grid.search(weights, importance);
            for (out, &w) in out[g * group..].iter_mut().zip(weights) {
                *out = grid.code(step, w);
            }
            let at = row * layout.groups() + g;
            codes.scales[at] = step.scale;
            if let Some(minimum) = codes.minimums.get_mut(at) {
                *minimum = step.minimum;
            }
        }
    }
    codes
}
