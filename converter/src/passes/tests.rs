//! Rotations are orthogonal, and folded weights are what they say, whichever rows are read.

use super::fold::{RotatedColumns, RotatedRows, ScaledColumns, ScaledRows};
use super::rotation::Rotation;
use crate::Error;
use crate::checkpoint::Weight;
use proptest::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// `[rows][cols]`
struct Floats([usize; 2], Vec<f32>);

impl Weight for Floats {
    fn shape(&self) -> &[usize] {
        &self.0
    }

    fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        out.copy_from_slice(&self.1[rows.start * self.0[1]..rows.end * self.0[1]]);
        Ok(())
    }
}

fn read(weight: &dyn Weight, rows: Range<usize>) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows.len() * weight.shape()[1]];
    weight.read_rows(rows, &mut out).unwrap();
    out
}

/// The matrix of a rotation, column by column.
fn matrix(rotation: &Rotation) -> Vec<Vec<f32>> {
    let size = rotation.size();
    let column = |at: usize| {
        let mut unit = vec![0.0; size];
        unit[at] = 1.0;
        rotation.apply(&mut unit, 1);
        unit
    };
    (0..size).map(column).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

/// A few roundings of numbers up to 1, in sums of up to a hundred terms.
const ROUNDING: f64 = 2e-6;

#[test]
fn rotations_of_any_size_are_orthogonal_and_their_own_inverses() {
    for size in [1, 2, 3, 8, 12, 20, 64, 80, 96, 7 * 16] {
        let columns = matrix(&Rotation::new(size));
        for (i, a) in columns.iter().enumerate() {
            for (j, b) in columns.iter().enumerate() {
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((dot(a, b) - expected).abs() < ROUNDING, "{size}: {i} {j}");
                assert!(f64::from(a[j] - b[i]).abs() < ROUNDING, "{size}: {i} {j}");
            }
        }
    }
}

/// The point of it: no dimension keeps more than an even share, up to the √2 of a Hartley transform.
#[test]
fn rotations_spread_each_dimension() {
    for size in [64, 96, 576] {
        let most = (2.0 / size as f32).sqrt() * 1.001;
        for column in matrix(&Rotation::new(size)) {
            assert!(column.iter().all(|x| x.abs() <= most), "{size}");
        }
    }
}

proptest! {
    #[test]
    fn any_rows_of_a_folded_weight_are_those_of_the_whole(
        blocks in 1usize..4,
        size in prop::sample::select(vec![1usize, 2, 6, 8]),
        cols in 1usize..5,
        from in 0usize..24,
        len in 1usize..24,
        seed in 1u32..1000,
    ) {
        let rows = blocks * size;
        let range = from % rows..rows.min(from % rows + len);
        let value = |at: usize| ((at as u32 * 37 + seed) % 101) as f32 / 50.0 - 1.0;
        let factors = |count: usize| (0..count).map(|at| 1.5 + value(at)).collect::<Vec<f32>>();
        let floats = |rows: usize, cols: usize| -> Arc<dyn Weight> {
            Arc::new(Floats([rows, cols], (0..rows * cols).map(value).collect()))
        };
        let rotation = Arc::new(Rotation::new(size));
        let columns = matrix(&rotation);

        let inner = floats(rows, cols);
        let whole = read(&*inner, 0..rows);
        let rotated = RotatedRows { inner: inner.clone(), rotation: rotation.clone() };
        let found = read(&rotated, range.clone());
        for (row, found) in range.clone().zip(found.chunks_exact(cols)) {
            for (col, found) in found.iter().enumerate() {
                let block = row / size * size;
                let of_column: Vec<f32> = (block..block + size).map(|r| whole[r * cols + col]).collect();
                prop_assert!((f64::from(*found) - dot(&columns[row - block], &of_column)).abs() < ROUNDING);
            }
        }
        let scaled = ScaledRows { inner: inner.clone(), factors: factors(rows) };
        let expected = range.clone().flat_map(|row| {
            let whole = &whole;
            (0..cols).map(move |col| whole[row * cols + col] * (1.5 + value(row)))
        });
        prop_assert_eq!(read(&scaled, range.clone()), expected.collect::<Vec<f32>>());
        let scaled = ScaledColumns { inner, factors: factors(cols) };
        let expected = range.clone().flat_map(|row| {
            let whole = &whole;
            (0..cols).map(move |col| whole[row * cols + col] * (1.5 + value(col)))
        });
        prop_assert_eq!(read(&scaled, range), expected.collect::<Vec<f32>>());

        let inner = floats(cols, rows);
        let whole = read(&*inner, 0..cols);
        let found = read(&RotatedColumns { inner, rotation }, 0..cols);
        for (at, found) in found.iter().enumerate() {
            let block = at / size * size;
            let expected = dot(&columns[at % size], &whole[block..block + size]);
            prop_assert!((f64::from(*found) - expected).abs() < ROUNDING);
        }
    }
}
