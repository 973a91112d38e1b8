//! Attention with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022), in spans of
//! positions whose results merge in order (Flash-Decoding, Dao et al. 2023).
//!
//! Spans and chunks start at absolute positions, and queries do not mix: a query gives the same bits
//! alone or in a batch, on one thread or many.

use super::lanes::{LANES, Lanes, load_part, map_lanes};
use super::math;
use crate::engine::AttentionShape;
use crate::kv::{CHUNK, KEY_BLOCK, KvLayer, Store};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Positions of a span.
pub(crate) const SPAN: usize = 512;

/// Queries that should share one load of keys and values: enough for the loads not to matter, few
/// enough for their scores and accumulators to stay in L1.
pub(crate) const QUERIES: usize = 24;

/// So few queries read the cache faster than it comes: what follows is asked for early.
const FEW: usize = 4;

/// Bytes of a cache line.
const LINE: usize = 64;

/// How many positions early.
const AHEAD: usize = 64;

/// Some rows of queries and the head of keys and values that they look at.
pub(crate) struct Queries<'a> {
    pub shape: &'a AttentionShape,
    /// `[row][heads · head_dim]`, row `i` at position `start + i`.
    pub data: &'a [f32],
    pub start: usize,
    pub rows: Range<usize>,
    pub kv_head: usize,
    pub sight: Sight,
}

/// Which positions queries see, and where these lie.
#[derive(Clone, Copy)]
pub(crate) enum Sight {
    /// Those up to their own, within the window; the cache has every head.
    Causal,
    /// All of so many, whatever their own; the cache has their head alone.
    Whole(usize),
}

/// Positions of which a partial result is made.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub from: usize,
    pub to: usize,
}

impl Queries<'_> {
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// Number of queries: rows times heads of the group.
    pub fn count(&self) -> usize {
        self.rows.len() * self.group()
    }

    /// Row and query head of query `m`.
    pub fn place(&self, m: usize) -> (usize, usize) {
        let group = self.group();
        (
            self.rows.start + m / group,
            self.kv_head * group + m % group,
        )
    }

    #[inline(always)]
    fn query(&self, m: usize) -> &[f32] {
        let (row, head) = self.place(m);
        &self.data[(row * self.shape.heads + head) * self.shape.head_dim..][..self.shape.head_dim]
    }

    /// Positions that query `m` sees.
    fn visible(&self, m: usize) -> Range<usize> {
        match self.sight {
            Sight::Causal => visible(self.shape, self.start + self.place(m).0),
            Sight::Whole(positions) => 0..positions,
        }
    }

    /// The head of the cache that the queries look at.
    fn cache_head(&self) -> usize {
        match self.sight {
            Sight::Causal => self.kv_head,
            Sight::Whole(_) => 0,
        }
    }
}

/// Positions that a query at `position` sees, with a causal mask.
pub(crate) fn visible(shape: &AttentionShape, position: usize) -> Range<usize> {
    let from = shape
        .window
        .map_or(0, |window| (position + 1).saturating_sub(window));
    from..position + 1
}

/// Floats of a partial result: the accumulator, the largest score, the sum of powers of two.
pub(crate) fn partial_len(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES) + 2
}

/// A stored element, read 16 at a time.
trait Element: Copy {
    /// # Safety
    /// The ISA of `L`; `from` good for 16 elements.
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const f32) -> L {
        // SAFETY: the caller's promises.
        unsafe { L::load(from) }
    }
}

impl Element for u16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u16) -> L {
        // SAFETY: the caller's promises.
        unsafe { L::load_f16(from) }
    }
}

impl Element for i8 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const i8) -> L {
        // SAFETY: the caller's promises.
        unsafe { L::load_i8(from) }
    }
}

/// Keys and values of one head.
struct Head<'a, E> {
    keys: &'a [E],
    values: &'a [E],
    /// Scales of keys and of values, for INT8.
    scales: Option<(&'a [f32], &'a [f32])>,
    head_dim: usize,
}

/// The partial results of all queries over the positions of a span, `[query][partial_len]`.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn attend<L: Lanes>(
    queries: &Queries,
    cache: &KvLayer,
    span: Span,
    partial: &mut [f32],
) {
    let head = queries.cache_head();
    let keys = cache.key_at(head, 0)..cache.key_at(head + 1, 0);
    let values = cache.value_at(head, 0)..cache.value_at(head + 1, 0);
    let head_dim = cache.head_dim;
    // SAFETY: the caller has the ISA.
    unsafe {
        match &cache.store {
            Store::F32 { keys: k, values: v } => {
                let (keys, values) = (&k[keys], &v[values]);
                attend_head::<L, f32>(
                    queries,
                    &Head {
                        keys,
                        values,
                        scales: None,
                        head_dim,
                    },
                    span,
                    partial,
                );
            }
            Store::F16 { keys: k, values: v } => {
                let (keys, values) = (&k[keys], &v[values]);
                attend_head::<L, u16>(
                    queries,
                    &Head {
                        keys,
                        values,
                        scales: None,
                        head_dim,
                    },
                    span,
                    partial,
                );
            }
            Store::Q8 {
                keys: k,
                values: v,
                key_scales,
                value_scales,
            } => {
                let (keys, values) = (&k[keys], &v[values]);
                let own = head * cache.padded_capacity..(head + 1) * cache.padded_capacity;
                let scales = Some((&key_scales[own.clone()], &value_scales[own]));
                attend_head::<L, i8>(
                    queries,
                    &Head {
                        keys,
                        values,
                        scales,
                        head_dim,
                    },
                    span,
                    partial,
                );
            }
        }
    }
}

/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn attend_head<L: Lanes, E: Element>(
    queries: &Queries,
    head: &Head<E>,
    span: Span,
    partial: &mut [f32],
) {
    let count = queries.count();
    let stride = partial_len(head.head_dim);
    assert!(partial.len() == count * stride);
    for state in partial.chunks_exact_mut(stride) {
        state.fill(0.0);
        state[stride - 2] = f32::NEG_INFINITY;
    }
    let seen = (0..count).map(|m| queries.visible(m));
    let seen = seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
    let seen = seen.unwrap_or(0..0);
    let (first, end) = (span.from.max(seen.start), span.to.min(seen.end));
    assert!(
        end * head.head_dim <= head.keys.len(),
        "queries beyond the cache"
    );
    let mut weights = vec![[0.0f32; CHUNK]; count];
    for chunk in (first / CHUNK * CHUNK..end).step_by(CHUNK) {
        let positions = CHUNK.min(end - chunk);
        let padded = positions.next_multiple_of(KEY_BLOCK);
        let mut scores = Scores {
            queries,
            head,
            chunk,
            blocks: padded / KEY_BLOCK,
            out: &mut weights,
        };
        // SAFETY: the caller has the ISA; chunks end within the padded capacity.
        unsafe {
            in_tiles::<L>(count, &mut scores);
            for m in 0..count {
                let visible = queries.visible(m);
                let from = visible.start.max(span.from).clamp(chunk, chunk + padded) - chunk;
                let to = visible.end.min(span.to).clamp(chunk, chunk + padded) - chunk;
                let state = &mut partial[m * stride..][..stride];
                let weights = &mut weights[m][..padded];
                online_softmax::<L>(queries.shape, weights, from..to.max(from), state);
                if let Some((_, scales)) = head.scales {
                    let scales = &scales[chunk..chunk + padded];
                    map_lanes::<L>(
                        weights,
                        #[inline(always)]
                        |w, i| w.mul(L::load(scales.as_ptr().add(i))),
                    );
                }
            }
            let mut values = WeightedValues {
                head,
                chunk,
                positions,
                weights: &weights,
                partial,
            };
            in_tiles::<L>(count, &mut values);
        }
    }
}

/// Work on some queries at once, on vectors that they share.
trait Tiled {
    /// Queries `first..first + M`, `B` vectors at a time.
    ///
    /// # Safety
    /// The ISA of `L`; so many queries.
    unsafe fn tile<L: Lanes, const M: usize, const B: usize>(&mut self, first: usize);
}

/// All queries, in tiles whose `M · B` sums, `B` shared vectors and one splat fit the registers, and
/// are enough to hide the latency of a multiply-add.
///
/// # Safety
/// The ISA of `L`; `count` queries in `work`.
#[inline(always)]
unsafe fn in_tiles<L: Lanes>(count: usize, work: &mut impl Tiled) {
    let mut first = 0;
    // SAFETY: the caller's promises.
    unsafe {
        while first < count {
            let rest = count - first;
            first += match rest {
                6.. => tile::<L, 6, 2, 1>(work, first),
                4.. => tile::<L, 4, 4, 1>(work, first),
                3 => tile::<L, 3, 4, 1>(work, first),
                2 => tile::<L, 2, 4, 2>(work, first),
                _ => tile::<L, 1, 4, 2>(work, first),
            };
        }
    }
}

/// One tile of `M` queries, `WIDE` shared vectors at a time where registers are wide, else `NARROW`.
/// Returns `M`.
///
/// # Safety
/// As [`Tiled::tile`].
#[inline(always)]
unsafe fn tile<L: Lanes, const M: usize, const WIDE: usize, const NARROW: usize>(
    work: &mut impl Tiled,
    first: usize,
) -> usize {
    // SAFETY: the caller's promises.
    unsafe {
        if L::WIDE {
            work.tile::<L, M, WIDE>(first);
        } else {
            work.tile::<L, M, NARROW>(first);
        }
    }
    M
}

/// Dot products of queries with the keys of a chunk's first blocks.
struct Scores<'a, E> {
    queries: &'a Queries<'a>,
    head: &'a Head<'a, E>,
    chunk: usize,
    blocks: usize,
    out: &'a mut [[f32; CHUNK]],
}

impl<E: Element> Tiled for Scores<'_, E> {
    #[inline(always)]
    unsafe fn tile<L: Lanes, const M: usize, const B: usize>(&mut self, first: usize) {
        let mut queries = [std::ptr::null(); M];
        for (m, query) in queries.iter_mut().enumerate() {
            *query = self.queries.query(first + m).as_ptr();
        }
        let mut block = 0;
        // SAFETY: the caller's promises; a query has `head_dim` floats.
        unsafe {
            while block + B <= self.blocks {
                self.of_blocks::<L, M, B>(queries, first, block);
                block += B;
            }
            while block < self.blocks {
                self.of_blocks::<L, M, 1>(queries, first, block);
                block += 1;
            }
        }
    }
}

impl<E: Element> Scores<'_, E> {
    /// # Safety
    /// As [`Tiled::tile`]; `head_dim` floats in each of the queries.
    #[inline(always)]
    unsafe fn of_blocks<L: Lanes, const M: usize, const B: usize>(
        &mut self,
        queries: [*const f32; M],
        first: usize,
        block: usize,
    ) {
        let head = self.head;
        let position = self.chunk + block * KEY_BLOCK;
        let len = KEY_BLOCK * head.head_dim;
        let keys = head.keys[position * head.head_dim..][..B * len].as_ptr();
        // SAFETY: `B` blocks of keys, and the caller's promises.
        unsafe {
            let mut sums = [[L::splat(0.0); B]; M];
            for d in 0..head.head_dim {
                // Once for each line.
                if M <= FEW && (d * LANES * size_of::<E>()).is_multiple_of(LINE) {
                    for b in 0..B {
                        let ahead = keys.wrapping_add((b + AHEAD / KEY_BLOCK) * len + d * LANES);
                        L::prefetch(ahead.cast());
                    }
                }
                let keys: [L; B] =
                    std::array::from_fn(|b| E::load::<L>(keys.add(b * len + d * LANES)));
                for (sums, query) in sums.iter_mut().zip(queries) {
                    let query = L::splat(*query.add(d));
                    for (sum, key) in sums.iter_mut().zip(keys) {
                        *sum = key.fma(query, *sum);
                    }
                }
            }
            for (m, sums) in sums.into_iter().enumerate() {
                for (b, mut sum) in sums.into_iter().enumerate() {
                    if let Some((scales, _)) = head.scales {
                        let scales = &scales[position + b * KEY_BLOCK..][..LANES];
                        sum = sum.mul(L::load(scales.as_ptr()));
                    }
                    let out = &mut self.out[first + m][(block + b) * KEY_BLOCK..][..LANES];
                    sum.store(out.as_mut_ptr());
                }
            }
        }
    }
}

/// Turns the scores of a chunk into weights relative to the largest score so far, and brings the
/// state up to it. Positions outside `seen` get weight zero. The largest score of a state is in units of
/// ln 2, so that powers of two do for exponentials.
///
/// # Safety
/// The ISA of `L`; whole vectors of weights.
#[inline(always)]
unsafe fn online_softmax<L: Lanes>(
    shape: &AttentionShape,
    weights: &mut [f32],
    seen: Range<usize>,
    state: &mut [f32],
) {
    if seen.is_empty() {
        weights.fill(0.0);
        return;
    }
    let (accumulator, rest) = state.split_at_mut(state.len() - 2);
    let [before, sum] = rest else {
        unreachable!("a state ends in two floats")
    };
    // SAFETY: the caller has the ISA; every vector is within the weights.
    unsafe {
        let scale = match shape.softcap {
            None => L::splat(shape.scale * LOG2_E),
            Some(cap) => {
                let scale = L::splat(shape.scale);
                let cap = L::splat(cap);
                map_lanes::<L>(
                    weights,
                    #[inline(always)]
                    |score, _| math::tanh(score.mul(scale).div(cap)).mul(cap),
                );
                L::splat(LOG2_E)
            }
        };
        let mut largest = L::splat(f32::NEG_INFINITY);
        for (i, part) in weights.chunks_exact_mut(LANES).enumerate() {
            hide(part, i * LANES, &seen, f32::NEG_INFINITY);
            largest = L::load(part.as_ptr()).mul(scale).max(largest);
        }
        // Seldom after the first chunks, and a maximum across lanes takes long.
        let now = if largest.exceeds(*before) {
            largest.largest()
        } else {
            *before
        };
        let shift = L::splat(-now);
        let mut total = L::splat(0.0);
        for (i, part) in weights.chunks_exact_mut(LANES).enumerate() {
            let score = L::load(part.as_ptr()).fma(scale, shift);
            let mut weight = math::exp2(score);
            weight.store(part.as_mut_ptr());
            if hide(part, i * LANES, &seen, 0.0) {
                weight = L::load(part.as_ptr());
            }
            total = total.add(weight);
        }
        if now > *before {
            let factor = scaled_by::<L>(*before, now);
            map_lanes::<L>(
                accumulator,
                #[inline(always)]
                |x, _| x.mul(L::splat(factor)),
            );
            *sum *= factor;
            *before = now;
        }
        *sum += total.sum();
    }
}

/// Replaces what lies outside `seen` in a vector whose first lane is `first`. Returns whether anything
/// does.
#[inline(always)]
fn hide(part: &mut [f32], first: usize, seen: &Range<usize>, by: f32) -> bool {
    let any = first < seen.start || first + LANES > seen.end;
    if any {
        for (lane, x) in part.iter_mut().enumerate() {
            if !seen.contains(&(first + lane)) {
                *x = by;
            }
        }
    }
    any
}

/// Adds the weighted values of a chunk's first positions to the accumulators.
struct WeightedValues<'a, E> {
    head: &'a Head<'a, E>,
    chunk: usize,
    positions: usize,
    weights: &'a [[f32; CHUNK]],
    partial: &'a mut [f32],
}

impl<E: Element> Tiled for WeightedValues<'_, E> {
    #[inline(always)]
    unsafe fn tile<L: Lanes, const M: usize, const B: usize>(&mut self, first: usize) {
        let width = self.head.head_dim.next_multiple_of(LANES);
        let mut d = 0;
        // SAFETY: the caller's promises.
        unsafe {
            while d + B * LANES <= width {
                self.of_dimensions::<L, M, B>(first, d);
                d += B * LANES;
            }
            while d < width {
                self.of_dimensions::<L, M, 1>(first, d);
                d += LANES;
            }
        }
    }
}

impl<E: Element> WeightedValues<'_, E> {
    /// The `B` vectors of dimensions from `d` on.
    ///
    /// # Safety
    /// As [`Tiled::tile`]; the dimensions must be in the head.
    #[inline(always)]
    unsafe fn of_dimensions<L: Lanes, const M: usize, const B: usize>(
        &mut self,
        first: usize,
        d: usize,
    ) {
        let width = self.head.head_dim.next_multiple_of(LANES);
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
                        // Once for each line.
                        if ((d + b * LANES) * size_of::<E>()).is_multiple_of(LINE) {
                            let at = (position + AHEAD) * width + b * LANES;
                            L::prefetch(values.wrapping_add(at).cast());
                        }
                    }
                }
                let values: [L; B] =
                    std::array::from_fn(|b| E::load::<L>(values.add(position * width + b * LANES)));
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

/// Merges the partial results of one query, in order of their spans and `step` floats apart, into its
/// output.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn merge<L: Lanes>(partials: &[f32], step: usize, out: &mut [f32]) {
    let stride = partial_len(out.len());
    // A span of which the query sees nothing has no largest score.
    let seen = || {
        let parts = partials.chunks(step).map(|part| &part[..stride]);
        parts.filter(|part| part[stride - 2] > f32::NEG_INFINITY)
    };
    let largest = seen().fold(f32::NEG_INFINITY, |largest, part| {
        if part[stride - 2] > largest {
            part[stride - 2]
        } else {
            largest
        }
    });
    if largest == f32::NEG_INFINITY {
        // No score was a number.
        out.fill(f32::NAN);
        return;
    }
    // SAFETY: the caller has the ISA; an accumulator has `out.len()` floats, padded to 16.
    unsafe {
        let sum = seen().fold(0.0, |sum, part| {
            sum + part[stride - 1] * scaled_by::<L>(part[stride - 2], largest)
        });
        let inverse = 1.0 / sum;
        for (index, part) in seen().enumerate() {
            let factor = L::splat(scaled_by::<L>(part[stride - 2], largest) * inverse);
            if index == 0 {
                map_lanes::<L>(
                    out,
                    #[inline(always)]
                    |_, i| L::load(part.as_ptr().add(i)).mul(factor),
                );
            } else {
                map_lanes::<L>(
                    out,
                    #[inline(always)]
                    |x, i| L::load(part.as_ptr().add(i)).fma(factor, x),
                );
            }
        }
    }
}

/// 2 to the power of `own - largest`.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn scaled_by<L: Lanes>(own: f32, largest: f32) -> f32 {
    if own == largest {
        return 1.0;
    }
    let mut factor = [0.0f32; LANES];
    // SAFETY: the caller has the ISA.
    unsafe { math::exp2(L::splat(own - largest)).store(factor.as_mut_ptr()) };
    factor[0]
}

/// Stores the key and the value of one position and head.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn kv_store<L: Lanes>(
    cache: &mut KvLayer,
    position: usize,
    kv_head: usize,
    key: &[f32],
    value: &[f32],
) {
    let (key_at, value_at) = (
        cache.key_at(kv_head, position),
        cache.value_at(kv_head, position),
    );
    let at = kv_head * cache.padded_capacity + position;
    // SAFETY: the caller has the ISA.
    unsafe {
        match &mut cache.store {
            Store::F32 { keys, values } => {
                scatter(key, &mut keys[key_at..]);
                values[value_at..][..value.len()].copy_from_slice(value);
            }
            Store::F16 { keys, values } => {
                for from in (0..key.len()).step_by(LANES) {
                    let len = LANES.min(key.len() - from);
                    let mut halves = [0u16; LANES];
                    load_part::<L>(key[from..].as_ptr(), len).store_f16(halves.as_mut_ptr());
                    scatter(&halves[..len], &mut keys[key_at + from * KEY_BLOCK..]);
                    let row = &mut values[value_at + from..][..LANES];
                    load_part::<L>(value[from..].as_ptr(), len).store_f16(row.as_mut_ptr());
                }
            }
            Store::Q8 {
                keys,
                values,
                key_scales,
                value_scales,
            } => {
                key_scales[at] = quantize::<L>(
                    key,
                    #[inline(always)]
                    |from, codes| {
                        let len = LANES.min(key.len() - from);
                        scatter(&codes[..len], &mut keys[key_at + from * KEY_BLOCK..]);
                    },
                );
                value_scales[at] = quantize::<L>(
                    value,
                    #[inline(always)]
                    |from, codes| {
                        values[value_at + from..][..LANES].copy_from_slice(codes);
                    },
                );
            }
        }
    }
}

/// Puts the dimensions of a key into a block.
fn scatter<E: Copy>(key: &[E], block: &mut [E]) {
    for (d, &x) in key.iter().enumerate() {
        block[d * KEY_BLOCK] = x;
    }
}

/// Quantizes a vector to INT8, 16 codes at a time, and returns the scale.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn quantize<L: Lanes>(x: &[f32], mut put: impl FnMut(usize, &[i8; LANES])) -> f32 {
    let largest = x
        .iter()
        .fold(0.0f32, |a, &x| if x.abs() > a { x.abs() } else { a });
    let usable = (1e-30..=f32::MAX).contains(&largest);
    let inverse = if usable { 127.0 / largest } else { 0.0 };
    for from in (0..x.len()).step_by(LANES) {
        let mut codes = [0i8; LANES];
        if usable {
            // SAFETY: the caller has the ISA; at most 16 floats are left.
            unsafe {
                let part = load_part::<L>(x[from..].as_ptr(), LANES.min(x.len() - from));
                part.mul(L::splat(inverse))
                    .round()
                    .store_i8(codes.as_mut_ptr());
            }
        }
        put(from, &codes);
    }
    if usable { largest / 127.0 } else { 0.0 }
}
