//! Attention over keys of INT16 or INT8, and values of INT16, INT8 or INT4, by integer dot products.
//!
//! Queries and weights become integers: of 16 bits like INT16 keys and values, of up to 16256, whose rounding
//! is far below that of INT8 keys and values, or, with INT4 values, of up to 127.

use super::{AHEAD, Head, Queries, Tiled, load_chunk, partial_len, row_of_tiles};
use crate::generic::dots::{BYTES, Dots, Multipliers, STEP};
use crate::generic::lanes::{LANES, Lanes, lanes_at};
use crate::generic::quantize::{SMALLEST, largest_magnitude};
use crate::kv::{CHUNK, CodeStore, KEY_BLOCK, KvLayer};
use std::array::{from_mut, from_ref};
use std::marker::PhantomData;

/// One query in integers: `x = scale · multiplier`.
struct Query {
    /// Sums of the high digits and of the low ones, where these are needed.
    total: [i32; 2],
    scale: f32,
}

impl Query {
    /// A query with elements that are not finite gets a scale that is not a number. Its multipliers are as
    /// long as it is, in vectors.
    ///
    /// # Safety
    /// The ISA of `D`.
    #[inline(always)]
    unsafe fn new<D: Dots>(x: &[f32], multipliers: &mut [Multipliers]) -> Query {
        // SAFETY: the caller has the ISA.
        unsafe {
            let (largest, finite) = largest_magnitude::<D::Floats>(x);
            let usable = finite && largest >= SMALLEST;
            let range = D::range(x.len());
            let mut totals = [D::Floats::splat(0.0); 2];
            if usable {
                let inverse = D::Floats::splat(range / largest);
                for (i, to) in multipliers.iter_mut().enumerate() {
                    let part = lanes_at::<D::Floats>(x, i * LANES);
                    let [high, low] = D::signed_put(part.mul(inverse).round(), to);
                    if D::NEEDS_TOTAL {
                        totals = [totals[0].add(high), totals[1].add(low)];
                    }
                }
            }
            let total = match D::NEEDS_TOTAL {
                true => [totals[0].sum() as i32, totals[1].sum() as i32],
                false => [0; 2],
            };
            Query {
                total,
                scale: match (finite, usable) {
                    (false, _) => f32::NAN,
                    (true, false) => 0.0,
                    (true, true) => largest / range,
                },
            }
        }
    }
}

/// What each lane starts with when weights are rounded: spread over one step, so that of many small weights
/// as many become one as their sum says, where each alone would become none.
const HALF_STEPS: [f32; LANES] = {
    let mut steps = [0.0; LANES];
    let mut lane = 0;
    while lane < LANES {
        steps[lane] = (lane as f32 + 0.5) / LANES as f32 - 0.5;
        lane += 1;
    }
    steps
};

/// One query's weights in a chunk, each multiplied by the scale of its value, in integers.
#[derive(Clone, Copy, Default)]
struct ChunkWeights {
    multipliers: [Multipliers; CHUNK / LANES],
    scale: f32,
}

impl ChunkWeights {
    /// Those of `M` queries, each step for all of them: alone, one would mostly wait for its own results.
    ///
    /// # Safety
    /// The ISA of `D`.
    #[inline(always)]
    unsafe fn set<D: Dots, const M: usize>(
        queries: &mut [ChunkWeights; M],
        weights: &[[f32; CHUNK]; M],
        scales: &[f32; CHUNK],
    ) {
        // What is carried can round up by one more.
        let range = D::LARGEST - 1.0;
        // SAFETY: the caller has the ISA; every vector is within the chunk.
        unsafe {
            let scales = load_chunk::<D::Floats>(scales);
            let mut scaled = [[D::Floats::splat(0.0); CHUNK / LANES]; M];
            let mut largest = [D::Floats::splat(0.0); M];
            for m in 0..M {
                let weights = load_chunk::<D::Floats>(&weights[m]);
                for (i, scaled) in scaled[m].iter_mut().enumerate() {
                    *scaled = weights[i].mul(scales[i]);
                    largest[m] = scaled.max(largest[m]);
                }
            }
            let mut inverses = [0.0f32; M];
            for m in 0..M {
                let largest = largest[m].largest();
                let usable = largest >= SMALLEST;
                (queries[m].scale, inverses[m]) = if usable {
                    (largest / range, range / largest)
                } else {
                    (0.0, 0.0)
                };
            }
            let mut carried = [D::Floats::load(HALF_STEPS.as_ptr()); M];
            for i in 0..CHUNK / LANES {
                for m in 0..M {
                    let inverse = D::Floats::splat(inverses[m]);
                    let exact = scaled[m][i].fma(inverse, carried[m]);
                    let whole = exact.round();
                    carried[m] = exact.sub(whole);
                    D::put(whole, &mut queries[m].multipliers[i]);
                }
            }
        }
    }
}

/// Keys and values of one head, and the queries that look at them.
pub(super) struct Integers<'a, D> {
    keys: &'a [i8],
    values: &'a [i8],
    key_scales: &'a [f32],
    value_scales: &'a [f32],
    head_dim: usize,
    key_width: usize,
    value_width: usize,
    /// Dimensions of a value, padded.
    value_dims: usize,
    queries: Vec<Query>,
    /// Those of each query, one after the other.
    multipliers: Vec<Multipliers>,
    weights: Vec<ChunkWeights>,
    dots: PhantomData<D>,
}

impl<'a, D: Dots> Integers<'a, D> {
    /// The head that the queries look at.
    ///
    /// # Safety
    /// The ISA of `D`.
    #[inline(always)]
    pub unsafe fn new(queries: &Queries, cache: &KvLayer, store: &'a CodeStore) -> Self {
        let head = queries.cache_head();
        let (count, vectors) = (queries.count(), cache.head_dim.div_ceil(LANES));
        let mut multipliers = vec![Multipliers::default(); count * vectors];
        let mut integers = Vec::with_capacity(count);
        for (m, multipliers) in multipliers.chunks_exact_mut(vectors).enumerate() {
            // SAFETY: the caller has the ISA.
            integers.push(unsafe { Query::new::<D>(queries.query(m), multipliers) });
        }
        Integers {
            keys: &store.keys[cache.keys_of(head)],
            values: &store.values[cache.values_of(head)],
            key_scales: &store.key_scales[cache.scales_of(head)],
            value_scales: &store.value_scales[cache.scales_of(head)],
            head_dim: cache.head_dim,
            key_width: cache.key_width,
            value_width: cache.value_width,
            value_dims: cache.value_width * D::STEPS * D::ELEMENTS / STEP,
            queries: integers,
            multipliers,
            weights: vec![ChunkWeights::default(); count],
            dots: PhantomData,
        }
    }

    /// All queries, in tiles whose sums fit the registers.
    ///
    /// # Safety
    /// The ISA of `D`.
    #[inline(always)]
    unsafe fn in_tiles(&self, work: &mut impl Tiled<D::Floats>) {
        let count = self.queries.len();
        let mut first = 0;
        // SAFETY: the caller has the ISA; there are so many queries.
        unsafe {
            while first < count {
                let wide = D::Floats::WIDE;
                first += match (wide, D::QUERIES.min(count - first)) {
                    (true, 6..) => row_of_tiles::<D::Floats, 6, 4>(work, first),
                    // Those that can have six at once have half the registers of sums for each.
                    (true, 3..) if D::QUERIES >= 6 => row_of_tiles::<D::Floats, 3, 4>(work, first),
                    (true, 3..) => row_of_tiles::<D::Floats, 3, 2>(work, first),
                    (true, 2) => row_of_tiles::<D::Floats, 2, 4>(work, first),
                    (true, _) => row_of_tiles::<D::Floats, 1, 4>(work, first),
                    (false, 6..) => row_of_tiles::<D::Floats, 6, 1>(work, first),
                    (false, 3..) => row_of_tiles::<D::Floats, 3, 1>(work, first),
                    (false, 2) => row_of_tiles::<D::Floats, 2, 1>(work, first),
                    (false, _) => row_of_tiles::<D::Floats, 1, 1>(work, first),
                };
            }
        }
    }
}

impl<D: Dots> Head<D::Floats> for Integers<'_, D> {
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
        unsafe { self.in_tiles(&mut scores) };
    }

    #[inline(always)]
    unsafe fn add_values(
        &mut self,
        chunk: usize,
        positions: usize,
        weights: &[[f32; CHUNK]],
        partial: &mut [f32],
    ) {
        let scales = self.value_scales[chunk..][..CHUNK].try_into();
        let scales = scales.expect("a chunk of scales");
        for line in 0..CHUNK / LANES {
            let scales = self
                .value_scales
                .as_ptr()
                .wrapping_add(chunk + AHEAD + line * LANES);
            D::Floats::prefetch(scales.cast());
        }
        let (threes, others) = self.weights.as_chunks_mut::<3>();
        let (weights, other_weights) = weights.as_chunks::<3>();
        for (queries, weights) in threes.iter_mut().zip(weights) {
            // SAFETY: the caller has the ISA.
            unsafe { ChunkWeights::set::<D, 3>(queries, weights, scales) };
        }
        for (query, weights) in others.iter_mut().zip(other_weights) {
            let (query, weights) = (from_mut(query), from_ref(weights));
            // SAFETY: as above.
            unsafe { ChunkWeights::set::<D, 1>(query, weights, scales) };
        }
        let mut values = WeightedValues {
            head: self,
            chunk,
            positions,
            partial,
        };
        // SAFETY: the caller has the ISA.
        unsafe { self.in_tiles(&mut values) };
    }
}

/// Scaled dot products of queries with the keys of a chunk's first blocks.
struct Scores<'a, D> {
    head: &'a Integers<'a, D>,
    chunk: usize,
    blocks: usize,
    scale: f32,
    out: &'a mut [[f32; CHUNK]],
}

impl<D: Dots> Tiled<D::Floats> for Scores<'_, D> {
    #[inline(always)]
    fn vectors(&self) -> usize {
        self.blocks
    }

    #[inline(always)]
    unsafe fn tile<const M: usize, const B: usize>(&mut self, first: usize, block: usize) {
        let head = self.head;
        let position = self.chunk + block * KEY_BLOCK;
        let len = KEY_BLOCK * head.key_width;
        let keys = head.keys[position * head.key_width..][..B * len].as_ptr();
        let queries: &[Query; M] = head.queries[first..first + M]
            .try_into()
            .expect("as many queries");
        // SAFETY: `B` blocks of keys, as many dimensions in each query, and the caller's promises.
        unsafe {
            let vectors = head.head_dim.div_ceil(LANES);
            let multipliers = &head.multipliers[first * vectors..][..M * vectors];
            let multipliers: [*const i8; M] =
                std::array::from_fn(|m| multipliers[m * vectors..].as_ptr().cast());
            let mut sums: [[D; B]; M] =
                std::array::from_fn(|m| [D::signed_zero(queries[m].total); B]);
            for step in 0..head.key_width / STEP {
                let bytes: [D::Bytes; B] = std::array::from_fn(|b| {
                    let at = b * len + step * BYTES;
                    // In the order of memory.
                    let ahead = AHEAD * head.key_width + (step * B + b) * BYTES;
                    D::Floats::prefetch(keys.wrapping_add(ahead).cast());
                    D::signed_load(keys.add(at))
                });
                for (sums, multipliers) in sums.iter_mut().zip(multipliers) {
                    let multipliers = multipliers.add(D::at(step));
                    for (sum, bytes) in sums.iter_mut().zip(bytes) {
                        *sum = sum.signed_dot(multipliers, bytes);
                    }
                }
            }
            for (m, (sums, query)) in sums.into_iter().zip(queries).enumerate() {
                let scale = D::Floats::splat(query.scale * self.scale);
                for (b, sum) in sums.into_iter().enumerate() {
                    let scales = &head.key_scales[position + b * KEY_BLOCK..][..LANES];
                    if m == 0 {
                        D::Floats::prefetch(scales.as_ptr().wrapping_add(AHEAD).cast());
                    }
                    let scales = D::Floats::load(scales.as_ptr());
                    let out = &mut self.out[first + m][(block + b) * KEY_BLOCK..][..LANES];
                    sum.to_floats()
                        .mul(scale)
                        .mul(scales)
                        .store(out.as_mut_ptr());
                }
            }
        }
    }
}

/// Adds the weighted values of a chunk's first positions to the accumulators.
struct WeightedValues<'a, D> {
    head: &'a Integers<'a, D>,
    chunk: usize,
    positions: usize,
    partial: &'a mut [f32],
}

impl<D: Dots> Tiled<D::Floats> for WeightedValues<'_, D> {
    #[inline(always)]
    fn vectors(&self) -> usize {
        self.head.value_dims / LANES
    }

    #[inline(always)]
    unsafe fn tile<const M: usize, const B: usize>(&mut self, first: usize, vector: usize) {
        let head = self.head;
        let d = vector * LANES;
        let (width, dims) = (head.value_width, head.value_dims);
        let stride = partial_len(head.head_dim);
        let rows = self.positions.div_ceil(D::STEPS * D::ELEMENTS);
        let values = &head.values[self.chunk * width..][..rows * STEP * dims];
        let ahead = values.as_ptr().wrapping_add(AHEAD * width);
        let values = values[d * STEP..].as_ptr();
        let out = &mut self.partial[first * stride..][..M * stride];
        let out = out[d..].as_mut_ptr();
        let weights: &[ChunkWeights; M] = head.weights[first..first + M]
            .try_into()
            .expect("as many queries");
        // SAFETY: rows of `dims` times four bytes for each `D::STEPS` steps; accumulators of `dims` floats.
        unsafe {
            let mut sums = [[D::zero(); B]; M];
            for row in 0..rows {
                let values = values.add(row * STEP * dims);
                for part in 0..D::STEPS {
                    // No `from_fn`: its own functions would not be inlined around so much.
                    let mut bytes = [D::load(values); B];
                    for (b, bytes) in bytes.iter_mut().enumerate() {
                        let values = values.add(b * BYTES);
                        if part == 0 {
                            // In the order of memory, whatever the tile reads.
                            let line = (vector / B * rows + row) * B + b;
                            D::Floats::prefetch(ahead.wrapping_add(line * BYTES).cast());
                        }
                        *bytes = D::load_values(values, part);
                    }
                    let at = D::at(row * D::STEPS + part);
                    for (sums, weights) in sums.iter_mut().zip(weights) {
                        let multipliers = weights.multipliers.as_ptr().cast::<i8>().add(at);
                        for (sum, bytes) in sums.iter_mut().zip(bytes) {
                            *sum = sum.dot(multipliers, bytes);
                        }
                    }
                }
            }
            for (m, (sums, weights)) in sums.into_iter().zip(weights).enumerate() {
                let scale = D::Floats::splat(weights.scale);
                for (b, sum) in sums.into_iter().enumerate() {
                    let out = out.add(m * stride + b * LANES);
                    let before = D::Floats::load(out);
                    sum.to_floats().fma(scale, before).store(out);
                }
            }
        }
    }
}
