//! Weights with a transformation folded in, computed when rows are read.

use super::rotation::Rotation;
use crate::Error;
use crate::checkpoint::Weight;
use std::ops::Range;
use std::sync::Arc;

fn columns(weight: &dyn Weight) -> usize {
    weight.shape().get(1).copied().unwrap_or(1)
}

/// Each row times its factor.
pub(super) struct ScaledRows {
    pub inner: Arc<dyn Weight>,
    /// One for each row.
    pub factors: Vec<f32>,
}

impl Weight for ScaledRows {
    fn shape(&self) -> &[usize] {
        self.inner.shape()
    }

    fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        self.inner.read_rows(rows.clone(), out)?;
        let cols = columns(self);
        for (row, factor) in out.chunks_exact_mut(cols).zip(&self.factors[rows]) {
            row.iter_mut().for_each(|w| *w *= factor);
        }
        Ok(())
    }
}

/// Each column times its factor.
pub(super) struct ScaledColumns {
    pub inner: Arc<dyn Weight>,
    /// One for each column.
    pub factors: Vec<f32>,
}

impl Weight for ScaledColumns {
    fn shape(&self) -> &[usize] {
        self.inner.shape()
    }

    fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        self.inner.read_rows(rows, out)?;
        for row in out.chunks_exact_mut(self.factors.len()) {
            row.iter_mut().zip(&self.factors).for_each(|(w, f)| *w *= f);
        }
        Ok(())
    }
}

/// `weights · R`, each block of as many columns as the rotation has dimensions for itself.
pub(super) struct RotatedColumns {
    pub inner: Arc<dyn Weight>,
    pub rotation: Arc<Rotation>,
}

impl Weight for RotatedColumns {
    fn shape(&self) -> &[usize] {
        self.inner.shape()
    }

    fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        self.inner.read_rows(rows, out)?;
        for block in out.chunks_exact_mut(self.rotation.size()) {
            self.rotation.apply(block, 1);
        }
        Ok(())
    }
}

/// `R · weights`, each block of as many rows as the rotation has dimensions for itself: whole blocks
/// are in memory while a row is read.
pub(super) struct RotatedRows {
    pub inner: Arc<dyn Weight>,
    pub rotation: Arc<Rotation>,
}

impl Weight for RotatedRows {
    fn shape(&self) -> &[usize] {
        self.inner.shape()
    }

    fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let (size, cols) = (self.rotation.size(), columns(self));
        let mut block = vec![0.0; size * cols];
        let mut out = out;
        let mut next = rows.start;
        while next < rows.end {
            let first = next / size * size;
            let end = rows.end.min(first + size);
            self.inner.read_rows(first..first + size, &mut block)?;
            self.rotation.apply(&mut block, cols);
            let (part, rest) = out.split_at_mut((end - next) * cols);
            part.copy_from_slice(&block[(next - first) * cols..(end - first) * cols]);
            (out, next) = (rest, end);
        }
        Ok(())
    }
}

/// A vector of ones: a norm's weight that went into the layers after it.
pub(super) struct Ones(pub [usize; 1]);

impl Weight for Ones {
    fn shape(&self) -> &[usize] {
        &self.0
    }

    fn read_rows(&self, _: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        out.fill(1.0);
        Ok(())
    }
}
