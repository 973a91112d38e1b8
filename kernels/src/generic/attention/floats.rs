//! Attention over keys and values that are floats.

use super::{AHEAD, Head, Queries, Tiled, partial_len, row_of_tiles};
use crate::generic::lanes::{LANES, Lanes};
use crate::kv::{CHUNK, KEY_BLOCK, KvLayer};

/// So few queries read the cache faster than it comes: what follows is asked for early.
const FEW: usize = 4;

/// Keys and values of one head, and the queries that look at them.
pub(super) struct Floats<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    head_dim: usize,
    value_width: usize,
    queries: Vec<&'a [f32]>,
}

impl<'a> Floats<'a> {
    /// The head that the queries look at, in all keys and values of a cache.
    #[inline(always)]
    pub fn new(queries: &'a Queries, cache: &KvLayer, keys: &'a [f32], values: &'a [f32]) -> Self {
        let head = queries.cache_head();
        Floats {
            keys: &keys[cache.keys_of(head)],
            values: &values[cache.values_of(head)],
            head_dim: cache.head_dim,
            value_width: cache.value_width,
            queries: (0..queries.count()).map(|m| queries.query(m)).collect(),
        }
    }

    /// All queries, in tiles whose `M · B` sums, `B` shared vectors and one splat fit the registers,
    /// and are enough to hide the latency of a multiply-add.
    ///
    /// # Safety
    /// The ISA of `L`.
    #[inline(always)]
    unsafe fn in_tiles<L: Lanes>(&self, work: &mut impl Tiled<L>) {
        let count = self.queries.len();
        let mut first = 0;
        // SAFETY: the caller has the ISA; there are so many queries.
        unsafe {
            while first < count {
                first += match (L::WIDE, count - first) {
                    (true, 6..) => row_of_tiles::<L, 6, 2>(work, first),
                    (true, 4..) => row_of_tiles::<L, 4, 4>(work, first),
                    (true, 3) => row_of_tiles::<L, 3, 4>(work, first),
                    (true, 2) => row_of_tiles::<L, 2, 4>(work, first),
                    (true, _) => row_of_tiles::<L, 1, 4>(work, first),
                    (false, 6..) => row_of_tiles::<L, 6, 1>(work, first),
                    (false, 4..) => row_of_tiles::<L, 4, 1>(work, first),
                    (false, 3) => row_of_tiles::<L, 3, 1>(work, first),
                    (false, 2) => row_of_tiles::<L, 2, 2>(work, first),
                    (false, _) => row_of_tiles::<L, 1, 2>(work, first),
                };
            }
        }
    }
}

impl<L: Lanes> Head<L> for Floats<'_> {
    #[inline(always)]
    unsafe fn scores(&self, chunk: usize, blocks: usize, scale: f32, out: &mut [[f32; CHUNK]]) {
        let mut scores = Scores {
            head: self,
            chunk,
            blocks,
            scale,
            out,
        };
        // SAFETY: the caller has the ISA.
        unsafe { self.in_tiles::<L>(&mut scores) };
    }

    #[inline(always)]
    unsafe fn add_values(
        &mut self,
        chunk: usize,
        positions: usize,
        weights: &[[f32; CHUNK]],
        partial: &mut [f32],
    ) {
        let mut values = WeightedValues {
            head: self,
            chunk,
            positions,
            weights,
            partial,
        };
        // SAFETY: the caller has the ISA.
        unsafe { self.in_tiles::<L>(&mut values) };
    }
}

/// Scaled dot products of queries with the keys of a chunk's first blocks.
struct Scores<'a> {
    head: &'a Floats<'a>,
    chunk: usize,
    blocks: usize,
    scale: f32,
    out: &'a mut [[f32; CHUNK]],
}

impl<L: Lanes> Tiled<L> for Scores<'_> {
    #[inline(always)]
    fn vectors(&self) -> usize {
        self.blocks
    }

    #[inline(always)]
    unsafe fn tile<const M: usize, const B: usize>(&mut self, first: usize, block: usize) {
        let head = self.head;
        let position = self.chunk + block * KEY_BLOCK;
        let len = KEY_BLOCK * head.head_dim;
        let keys = head.keys[position * head.head_dim..][..B * len].as_ptr();
        let queries: &[&[f32]; M] = head.queries[first..first + M]
            .try_into()
            .expect("as many queries");
        // SAFETY: `B` blocks of keys, `head_dim` floats in each query, and the caller's promises.
        unsafe {
            let mut sums = [[L::splat(0.0); B]; M];
            for d in 0..head.head_dim {
                // In the order of memory.
                if M <= FEW {
                    for b in 0..B {
                        let ahead = AHEAD * head.head_dim + (d * B + b) * LANES;
                        L::prefetch(keys.wrapping_add(ahead).cast());
                    }
                }
                let keys: [L; B] = std::array::from_fn(|b| L::load(keys.add(b * len + d * LANES)));
                for (sums, query) in sums.iter_mut().zip(queries) {
                    let query = L::splat(*query.get_unchecked(d));
                    for (sum, key) in sums.iter_mut().zip(keys) {
                        *sum = key.fma(query, *sum);
                    }
                }
            }
            let scale = L::splat(self.scale);
            for (m, sums) in sums.into_iter().enumerate() {
                for (b, sum) in sums.into_iter().enumerate() {
                    let out = &mut self.out[first + m][(block + b) * KEY_BLOCK..][..LANES];
                    sum.mul(scale).store(out.as_mut_ptr());
                }
            }
        }
    }
}

/// Adds the weighted values of a chunk's first positions to the accumulators.
struct WeightedValues<'a> {
    head: &'a Floats<'a>,
    chunk: usize,
    positions: usize,
    weights: &'a [[f32; CHUNK]],
    partial: &'a mut [f32],
}

impl<L: Lanes> Tiled<L> for WeightedValues<'_> {
    #[inline(always)]
    fn vectors(&self) -> usize {
        self.head.value_width / LANES
    }

    #[inline(always)]
    unsafe fn tile<const M: usize, const B: usize>(&mut self, first: usize, vector: usize) {
        let d = vector * LANES;
        let width = self.head.value_width;
        let stride = partial_len(self.head.head_dim);
        let values = &self.head.values[self.chunk * width..][..self.positions * width];
        let values = values[d..].as_ptr();
        let out = &mut self.partial[first * stride..][..M * stride];
        let out = out[d..].as_mut_ptr();
        let weights: &[[f32; CHUNK]; M] = self.weights[first..first + M]
            .try_into()
            .expect("as many rows");
        // SAFETY: rows of `width` elements for each position; accumulators of `width` floats.
        unsafe {
            let mut sums: [[L; B]; M] = std::array::from_fn(|m| {
                std::array::from_fn(|b| L::load(out.add(m * stride + b * LANES)))
            });
            for position in 0..self.positions {
                if M <= FEW {
                    for b in 0..B {
                        let at = (position + AHEAD) * width + b * LANES;
                        L::prefetch(values.wrapping_add(at).cast());
                    }
                }
                let values: [L; B] =
                    std::array::from_fn(|b| L::load(values.add(position * width + b * LANES)));
                for (sums, weights) in sums.iter_mut().zip(weights) {
                    let weight = L::splat(*weights.get_unchecked(position));
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = value.fma(weight, *sum);
                    }
                }
            }
            for (m, sums) in sums.into_iter().enumerate() {
                for (b, sum) in sums.into_iter().enumerate() {
                    sum.store(out.add(m * stride + b * LANES));
                }
            }
        }
    }
}
