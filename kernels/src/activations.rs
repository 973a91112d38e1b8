//! Activations quantized on the fly: the right-hand side of every integer matmul.

/// Columns that share a scale in quantized activations, whatever the group of the weights. More would spare
/// multiplications by scales, a tenth of the work of prompts; but beside INT8 weights, 64 columns give SmolLM2 1.5
/// times the KL divergence, 128 columns 2.5 times, whole rows 7.5 times.
pub const ACTIVATION_GROUP: usize = 32;

/// Rows of a matmul input as INT8, symmetric, one f32 scale per row and [`ACTIVATION_GROUP`]
/// columns: `scale = max|x| / 127`, `code = round_ties_even(x * (127 / max|x|))` in -127..=127. A
/// group whose `max|x|` is below 1e-30 is all zeros with scale 0 (so that 127 / max|x| is finite). One
/// with an element that is not finite is all zeros with a scale that is not a number, so that all that is
/// computed from it is none.
///
/// Rows are padded with zeros to a multiple of 128 columns, the largest weight group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantizedRows {
    pub(crate) rows: usize,
    /// Columns with padding: a multiple of 128.
    pub(crate) stride: usize,
    /// `[row][stride]`
    pub(crate) codes: Vec<i8>,
    /// `[row][stride / 32]`
    pub(crate) scales: Vec<f32>,
    /// Sum of the codes of each group, `[row][stride / 32]`.
    pub(crate) sums: Vec<i32>,
}

impl QuantizedRows {
    /// The value that a row and column stand for, and the scale of its group.
    ///
    /// # Panics
    /// If `row` or `col` is out of range.
    pub fn get(&self, row: usize, col: usize) -> (f32, f32) {
        assert!(
            row < self.rows && col < self.stride,
            "row or column out of range"
        );
        let at = row * self.stride + col;
        let scale = self.scales[at / ACTIVATION_GROUP];
        (f32::from(self.codes[at]) * scale, scale)
    }

    /// What quantizing `rows` of `cols` floats into these codes lost: `out = rows - scale · code`.
    ///
    /// # Panics
    /// If `rows` are not those that were quantized, or `out` is not as long.
    pub fn residual(&self, rows: &[f32], cols: usize, out: &mut [f32]) {
        assert_eq!(rows.len(), self.rows * cols, "rows against their codes");
        assert!(out.len() == rows.len() && cols <= self.stride);
        let codes = self.codes.chunks_exact(self.stride);
        let scales = self.scales.chunks_exact(self.stride / ACTIVATION_GROUP);
        let rows = rows.chunks_exact(cols).zip(out.chunks_exact_mut(cols));
        for ((x, out), (codes, scales)) in rows.zip(codes.zip(scales)) {
            let groups = x
                .chunks(ACTIVATION_GROUP)
                .zip(out.chunks_mut(ACTIVATION_GROUP));
            let codes = codes.chunks(ACTIVATION_GROUP).zip(scales);
            for ((x, out), (codes, scale)) in groups.zip(codes) {
                for ((x, out), &code) in x.iter().zip(out).zip(codes) {
                    *out = x - f32::from(code) * scale;
                }
            }
        }
    }

    /// Sets the shape, keeping the memory. The contents are unspecified afterwards.
    pub(crate) fn reshape(&mut self, rows: usize, cols: usize) {
        self.rows = rows;
        self.stride = cols.next_multiple_of(128);
        let groups = rows * self.stride / ACTIVATION_GROUP;
        self.codes.resize(rows * self.stride, 0);
        self.scales.resize(groups, 0.0);
        self.sums.resize(groups, 0);
    }
}
