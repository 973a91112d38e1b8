//! Dense linear algebra on row-major slices of floats, on all cores.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, LinalgScalar, s};
use rayon::prelude::*;

/// Rows of a product that a thread takes at a time.
const ROWS: usize = 128;

/// A `rows` × `cols` view of a slice that holds nothing else.
///
/// # Panics
/// If the slice is not whole rows.
pub(crate) fn view<T>(values: &[T], cols: usize) -> ArrayView2<'_, T> {
    let shape = (values.len() / cols, cols);
    ArrayView2::from_shape(shape, values).expect("whole rows")
}

/// [`view`] to write to.
pub(crate) fn view_mut<T>(values: &mut [T], cols: usize) -> ArrayViewMut2<'_, T> {
    let shape = (values.len() / cols, cols);
    ArrayViewMut2::from_shape(shape, values).expect("whole rows")
}

/// `out = beta · out + alpha · a · b`, rows of `out` spread over all cores.
pub(crate) fn multiply<T: LinalgScalar + Send + Sync>(
    alpha: T,
    a: ArrayView2<T>,
    b: ArrayView2<T>,
    beta: T,
    mut out: ArrayViewMut2<T>,
) {
    out.axis_chunks_iter_mut(ndarray::Axis(0), ROWS)
        .zip(a.axis_chunks_iter(ndarray::Axis(0), ROWS))
        .par_bridge()
        .for_each(|(mut out, a)| general_mat_mul(alpha, &a, &b, beta, &mut out));
}

/// A dense linear layer, `out = x · weightsᵀ + bias`.
#[derive(Clone, Debug)]
pub struct Dense {
    /// Inputs (columns).
    pub inputs: usize,
    /// `[outputs][inputs]`
    pub weights: Vec<f32>,
    /// `[outputs]`
    pub bias: Option<Vec<f32>>,
}

impl Dense {
    /// Outputs (rows).
    pub fn outputs(&self) -> usize {
        self.weights.len() / self.inputs
    }

    /// `[token][inputs]` to `[token][outputs]`.
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let outputs = self.outputs();
        let mut out = vec![0.0; x.len() / self.inputs * outputs];
        let weights = view(&self.weights, self.inputs);
        let x = view(x, self.inputs);
        multiply(1.0, x, weights.t(), 0.0, view_mut(&mut out, outputs));
        if let Some(bias) = &self.bias {
            for row in out.chunks_exact_mut(outputs) {
                row.iter_mut().zip(bias).for_each(|(out, b)| *out += b);
            }
        }
        out
    }

    /// Adds the gradient of the input, `gradient · weights`, to `out`.
    pub fn backward(&self, gradient: &[f32], out: &mut [f32]) {
        let gradient = view(gradient, self.outputs());
        let weights = view(&self.weights, self.inputs);
        multiply(1.0, gradient, weights, 1.0, view_mut(out, self.inputs));
    }
}

/// A mean of outer products, `[size][size]`, of which the lower triangle is kept up.
#[derive(Clone, Debug)]
pub struct Moments {
    size: usize,
    /// What is taken from each row first.
    centre: Option<Vec<f32>>,
    values: Vec<f32>,
    rows: usize,
}

/// Tokens whose outer products are summed at once, so that their scaled copy stays small.
const MOMENT_ROWS: usize = 4096;

impl Moments {
    /// Of no rows.
    pub fn new(size: usize) -> Moments {
        Moments {
            size,
            centre: None,
            values: vec![0.0; size * size],
            rows: 0,
        }
    }

    /// Of no rows, each of which will be taken less `centre`.
    pub fn about(centre: Vec<f32>) -> Moments {
        let size = centre.len();
        Moments {
            centre: Some(centre),
            ..Moments::new(size)
        }
    }

    /// Adds rows of `x` (`[row][size]`), each outer product times the row's weight if there are
    /// any.
    pub fn add(&mut self, x: &[f32], weights: Option<&[f32]>) {
        let size = self.size;
        self.rows += x.len() / size;
        for (index, x) in x.chunks(MOMENT_ROWS * size).enumerate() {
            let mut scaled = x.to_vec();
            if let Some(centre) = &self.centre {
                let rows = scaled.chunks_exact_mut(size);
                rows.for_each(|row| row.iter_mut().zip(centre).for_each(|(x, c)| *x -= c));
            }
            if let Some(weights) = weights {
                let weights = &weights[index * MOMENT_ROWS..];
                for (row, w) in scaled.chunks_exact_mut(size).zip(weights) {
                    let root = w.sqrt();
                    row.iter_mut().for_each(|x| *x *= root);
                }
            }
            let x = view(&scaled, size);
            let rows = self.values.par_chunks_mut(ROWS * size).enumerate();
            rows.for_each(|(index, rows)| {
                // The lower triangle: columns up to the last of these rows.
                let from = index * ROWS;
                let to = from + rows.len() / size;
                let mut out = view_mut(rows, size);
                let mut out = out.slice_mut(s![.., ..to]);
                let (left, right) = (x.slice(s![.., from..to]), x.slice(s![.., ..to]));
                general_mat_mul(1.0, &left.t(), &right, 1.0, &mut out);
            });
        }
    }

    /// Adds another mean, times `factor`.
    pub fn add_scaled(&mut self, other: &Moments, factor: f32) {
        let factor = factor * self.rows.max(1) as f32 / other.rows.max(1) as f32;
        self.rows = self.rows.max(1);
        for (value, other) in self.values.iter_mut().zip(&other.values) {
            *value += factor * other;
        }
    }

    /// Columns.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The mean at `(i, j)`.
    pub fn get(&self, i: usize, j: usize) -> f32 {
        let at = i.max(j) * self.size + i.min(j);
        self.values[at] / self.rows.max(1) as f32
    }

    /// The means at `(i, i)`.
    pub fn diagonal(&self) -> Vec<f32> {
        (0..self.size).map(|i| self.get(i, i)).collect()
    }

    /// All means, both triangles.
    pub fn full(&self) -> Vec<f32> {
        let row = |i| (0..self.size).map(move |j| self.get(i, j));
        (0..self.size).flat_map(row).collect()
    }
}

/// The mean of rows of `x` (`[row][size]`), weighted.
pub fn mean(x: &[f32], size: usize, weights: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0f64; size];
    for (row, &weight) in x.chunks_exact(size).zip(weights) {
        let weighted = row.iter().map(|&x| f64::from(x) * f64::from(weight));
        sums.iter_mut().zip(weighted).for_each(|(sum, x)| *sum += x);
    }
    let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
    sums.iter().map(|sum| (sum / total) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_small_matrices() {
        let layer = Dense {
            inputs: 2,
            weights: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            bias: Some(vec![0.5, 0.0, -1.0]),
        };
        assert_eq!(layer.forward(&[1.0, -1.0]), [-0.5, -1.0, -2.0]);
        let mut gradient = vec![10.0, 0.0];
        layer.backward(&[1.0, 1.0, 0.0], &mut gradient);
        assert_eq!(gradient, [14.0, 6.0]);
    }

    #[test]
    fn moments_are_weighted_means_of_outer_products() {
        let mut moments = Moments::new(2);
        moments.add(&[1.0, 2.0, 3.0, -1.0], Some(&[1.0, 4.0]));
        let all = [(0, 0, 18.5), (0, 1, -5.0), (1, 0, -5.0), (1, 1, 4.0)];
        for (i, j, expected) in all {
            assert!((moments.get(i, j) - expected).abs() < 1e-5, "{i} {j}");
            assert_eq!(moments.full()[2 * i + j], moments.get(i, j));
        }
    }

    #[test]
    fn moments_about_the_mean_are_covariances() {
        let (x, weights) = ([1.0, 2.0, 3.0, -1.0], [1.0, 3.0]);
        let mean = mean(&x, 2, &weights);
        assert_eq!(mean, [2.5, -0.25]);
        let mut moments = Moments::about(mean);
        moments.add(&x, Some(&weights));
        // (1.5², 1.5·2.25, 2.25²) and three times (0.5², 0.5·0.75, 0.75²), signs aside, halved.
        let all = [(0, 0, 1.5), (0, 1, -2.25), (1, 1, 3.375)];
        for (i, j, expected) in all {
            assert!((moments.get(i, j) - expected).abs() < 1e-5, "{i} {j}");
        }
    }
}
