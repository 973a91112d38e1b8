//! Attention with an online softmax (Milakov and Gimelshein 2018; Dao et al. 2022), in spans of
//! positions whose results merge in order (Flash-Decoding, Dao et al. 2023).
//!
//! Spans and chunks start at absolute positions, and queries do not mix: a query gives the same bits
//! alone or in a batch, on one thread or many. (A value of F32 that is not finite spoils those that share its chunk,
//! even where they do not see it: it is multiplied by zero there.)
//!
//! A score that is not a number counts for nothing, unless all are such; an infinite one, where none are
//! capped, makes a result that is not a number.

mod floats;
mod integers;
mod rotation;
mod store;

use super::dots::Dots;
use super::lanes::{LANES, Lanes, map_lanes};
use super::math;
use crate::engine::AttentionShape;
use crate::kv::{CHUNK, KEY_BLOCK, KvLayer, Store};
use floats::Floats;
use integers::Integers;
use rotation::rotate;
use std::f32::consts::LOG2_E;
use std::ops::Range;
pub(crate) use store::kv_store;

/// Positions of a span.
pub(crate) const SPAN: usize = 512;

/// Queries that should share one load of keys and values: enough for the loads not to matter, few
/// enough for their scores and accumulators to stay in L1.
pub(crate) const QUERIES: usize = 24;

/// How many positions early keys and values are asked for: a chunk, since what is asked for in the order of
/// memory is read in the order of tiles.
const AHEAD: usize = CHUNK;

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

/// Keys and values of one head, and the queries that look at them.
trait Head<L: Lanes> {
    /// `scale` times the dot products of all queries with the keys of so many blocks from position `chunk` on.
    ///
    /// # Safety
    /// The ISA of `L`.
    unsafe fn scores(&self, chunk: usize, blocks: usize, scale: f32, out: &mut [[f32; CHUNK]]);

    /// Adds so many weighted values from position `chunk` on to the accumulators of all queries. A
    /// weight is zero where there is no value.
    ///
    /// # Safety
    /// The ISA of `L`.
    unsafe fn add_values(
        &mut self,
        chunk: usize,
        positions: usize,
        weights: &[[f32; CHUNK]],
        partial: &mut [f32],
    );
}

/// The partial results of all queries over the positions of a span, `[query][partial_len]`.
///
/// # Safety
/// The ISA of `W`, `D` and `S`.
#[inline(always)]
pub(crate) unsafe fn attend<W: Dots, D: Dots, S: Dots>(
    queries: &Queries,
    cache: &KvLayer,
    span: Span,
    partial: &mut [f32],
) {
    assert_eq!(queries.shape.head_dim, cache.head_dim, "cache shape");
    // SAFETY: the caller has the ISA.
    unsafe {
        match &cache.store {
            Store::F32 { keys, values } => {
                let head = Floats::new(queries, cache, keys, values);
                attend_head::<D::Floats>(queries, cache, head, span, partial);
            }
            Store::Q16(store) => {
                let head = Integers::<W>::new(queries, cache, store);
                attend_head::<W::Floats>(queries, cache, head, span, partial);
            }
            Store::Q8(store) => {
                let head = Integers::<D>::new(queries, cache, store);
                attend_head::<D::Floats>(queries, cache, head, span, partial);
            }
            Store::K8V4(store) => {
                let head = Integers::<S>::new(queries, cache, store);
                attend_head::<S::Floats>(queries, cache, head, span, partial);
            }
        }
    }
}

/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn attend_head<L: Lanes>(
    queries: &Queries,
    cache: &KvLayer,
    mut head: impl Head<L>,
    span: Span,
    partial: &mut [f32],
) {
    let count = queries.count();
    let stride = partial_len(cache.head_dim);
    assert!(partial.len() == count * stride);
    for state in partial.chunks_exact_mut(stride) {
        state.fill(0.0);
        state[stride - 2] = f32::NEG_INFINITY;
    }
    let visible: Vec<Range<usize>> = (0..count).map(|m| queries.visible(m)).collect();
    let seen = visible.iter().cloned();
    let seen = seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end));
    let seen = seen.unwrap_or(0..0);
    let (first, end) = (span.from.max(seen.start), span.to.min(seen.end));
    assert!(end <= cache.padded_capacity, "queries beyond the cache");
    let mut scores = vec![[0.0f32; CHUNK]; count];
    let softcap = queries.shape.softcap;
    let scale = queries.shape.scale * softcap.map_or(LOG2_E, |cap| 1.0 / cap);
    for chunk in (first / CHUNK * CHUNK..end).step_by(CHUNK) {
        let positions = CHUNK.min(end - chunk);
        // SAFETY: the caller has the ISA.
        unsafe {
            head.scores(chunk, positions.div_ceil(KEY_BLOCK), scale, &mut scores);
            let states = partial.chunks_exact_mut(stride);
            for ((scores, state), visible) in scores.iter_mut().zip(states).zip(&visible) {
                let from = visible.start.max(span.from).clamp(chunk, chunk + CHUNK) - chunk;
                let to = visible.end.min(span.to).clamp(chunk, chunk + CHUNK) - chunk;
                if let Some(cap) = softcap {
                    cap_scores::<L>(scores, cap);
                }
                online_softmax::<L>(scores, from..to.max(from), state);
            }
            head.add_values(chunk, positions, &scores, partial);
        }
    }
}

/// Work on some queries at once, on vectors that they share.
trait Tiled<L: Lanes> {
    /// Number of vectors.
    fn vectors(&self) -> usize;

    /// Queries `first..first + M`, vectors `vector..vector + B`.
    ///
    /// # Safety
    /// The ISA of `L`; so many queries and vectors.
    unsafe fn tile<const M: usize, const B: usize>(&mut self, first: usize, vector: usize);
}

/// `M` queries on all vectors, `B` of these at a time. Returns `M`.
///
/// # Safety
/// As [`Tiled::tile`].
#[inline(always)]
unsafe fn row_of_tiles<L: Lanes, const M: usize, const B: usize>(
    work: &mut impl Tiled<L>,
    first: usize,
) -> usize {
    let vectors = work.vectors();
    let mut vector = 0;
    // SAFETY: the caller's promises; all tiles are within the vectors.
    unsafe {
        while vector + B <= vectors {
            work.tile::<M, B>(first, vector);
            vector += B;
        }
        while vector < vectors {
            work.tile::<M, 1>(first, vector);
            vector += 1;
        }
    }
    M
}

/// `cap · tanh(x)`, in units of ln 2.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn cap_scores<L: Lanes>(scores: &mut [f32; CHUNK], cap: f32) {
    // SAFETY: the caller has the ISA.
    unsafe {
        let cap = L::splat(cap * LOG2_E);
        map_lanes::<L>(
            scores,
            #[inline(always)]
            |score, _| math::tanh(score).mul(cap),
        );
    }
}

/// Turns the scores of a chunk into weights relative to the largest score so far, and brings the
/// state up to it. Positions outside `seen` get weight zero. Scores are in units of ln 2, so that powers of two
/// do for exponentials.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn online_softmax<L: Lanes>(
    scores: &mut [f32; CHUNK],
    seen: Range<usize>,
    state: &mut [f32],
) {
    let (accumulator, rest) = state.split_at_mut(state.len() - 2);
    let [before, sum] = rest else {
        unreachable!("a state ends in two floats")
    };
    if seen.is_empty() {
        scores.fill(0.0);
        return;
    }
    // SAFETY: the caller has the ISA; every vector is within the scores.
    unsafe {
        let some_hidden = seen != (0..CHUNK);
        if some_hidden {
            hide(scores, &seen, f32::NEG_INFINITY);
        }
        let mut weights = load_chunk::<L>(scores);
        let mut largest = L::splat(f32::NEG_INFINITY);
        for score in weights {
            largest = score.max(largest);
        }
        // Of large numbers, rounded up, it would allow more than that.
        let limit = *before + math::EXP2_LARGEST;
        let limit = if limit - *before > math::EXP2_LARGEST {
            *before
        } else {
            limit
        };
        // Seldom after the first chunks, and a maximum across lanes takes long.
        let now = if largest.exceeds(limit) {
            largest.largest()
        } else {
            *before
        };
        let subtrahend = L::splat(now);
        for weight in &mut weights {
            *weight = math::exp2(weight.sub(subtrahend));
        }
        for (part, weight) in scores.chunks_exact_mut(LANES).zip(weights) {
            weight.store(part.as_mut_ptr());
        }
        if some_hidden {
            hide(scores, &seen, 0.0);
            weights = load_chunk::<L>(scores);
        }
        let mut total = L::splat(0.0);
        for weight in weights {
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

/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn load_chunk<L: Lanes>(x: &[f32; CHUNK]) -> [L; CHUNK / LANES] {
    // SAFETY: the caller has the ISA; every vector is within the chunk.
    std::array::from_fn(
        #[inline(always)]
        |i| unsafe { L::load(x.as_ptr().add(i * LANES)) },
    )
}

/// Replaces what lies outside `seen`: all elements alike, in whole vectors.
#[inline(always)]
fn hide(chunk: &mut [f32; CHUNK], seen: &Range<usize>, by: f32) {
    let (start, end) = (seen.start as u32, seen.end as u32);
    for (i, x) in (0..).zip(chunk) {
        *x = if start <= i && i < end { *x } else { by };
    }
}

/// Merges the partial results of one query, in order of their spans and `step` floats apart, into its
/// output, and rotates that back if values are `rotated`.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
pub(crate) unsafe fn merge<L: Lanes>(
    partials: &[f32],
    step: usize,
    rotated: usize,
    out: &mut [f32],
) {
    let stride = partial_len(out.len());
    if partials.len() <= step {
        // SAFETY: the caller has the ISA.
        unsafe { finish::<L>(&partials[..stride], out) };
        rotate(out, rotated);
        return;
    }
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
    if !largest.is_finite() {
        // No score was a number, or one was infinite.
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
    rotate(out, rotated);
}

/// The only partial result of a query as its output.
///
/// # Safety
/// The ISA of `L`.
#[inline(always)]
unsafe fn finish<L: Lanes>(partial: &[f32], out: &mut [f32]) {
    let (accumulator, rest) = partial.split_at(partial.len() - 2);
    if !rest[0].is_finite() {
        // No score was a number, or one was infinite.
        out.fill(f32::NAN);
        return;
    }
    // SAFETY: the caller has the ISA; an accumulator has `out.len()` floats, padded to 16.
    unsafe {
        let inverse = L::splat(1.0 / rest[1]);
        map_lanes::<L>(
            out,
            #[inline(always)]
            |_, i| L::load(accumulator.as_ptr().add(i)).mul(inverse),
        );
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
