//! Attention over the thread pool: how queries and positions are cut into tasks.

use crate::engine::AttentionShape;
use crate::generic::Ops;
use crate::generic::attention::{QUERIES, Queries, SPAN, Sight, Span, partial_len, visible};
use crate::kv::{CHUNK, KvKind, KvLayer};
use crate::pool::ThreadPool;
use std::ops::Range;
use std::sync::{Mutex, TryLockError};

/// Causal attention of all rows, see [`crate::Engine::attention`].
pub(crate) fn attention(
    ops: &Ops,
    pool: &ThreadPool,
    shape: &AttentionShape,
    queries: &[f32],
    start: usize,
    cache: &KvLayer,
    out: &mut [f32],
) {
    let width = shape.heads * shape.head_dim;
    let rows = queries.len() / width;
    assert_eq!(queries.len(), rows * width, "queries are not whole rows");
    assert_eq!(queries.len(), out.len(), "attention output against queries");
    shape.check();
    assert_eq!(
        (cache.kv_heads, cache.head_dim),
        (shape.kv_heads, shape.head_dim),
        "cache shape"
    );
    assert!(cache.has_room(start, rows), "queries beyond the cache");
    let group = shape.heads / shape.kv_heads;
    let out = Output {
        data: out.as_mut_ptr(),
        heads: shape.heads,
        head_dim: shape.head_dim,
    };
    let tile = (QUERIES / group).max(1);
    let tiles = rows.div_ceil(tile);
    let queries_of = |task: usize| {
        let from = task / shape.kv_heads * tile;
        let kv_head = task % shape.kv_heads;
        Queries {
            shape,
            data: queries,
            start,
            rows: from..rows.min(from + tile),
            kv_head,
            sight: Sight::Causal,
        }
    };
    let tasks = tiles * shape.kv_heads;
    if tasks >= 2 * pool.threads() {
        pool.run(tasks, &|task| {
            let queries = queries_of(task);
            let spans = spans(shape, start, &queries.rows);
            attend_all(ops, &queries, cache, spans, &out);
        });
        return;
    }
    for_each_span(
        ops,
        pool,
        cache,
        &(0..tasks).map(queries_of).collect::<Vec<_>>(),
        &out,
    );
}

/// Some queries over all their spans.
fn attend_all(ops: &Ops, queries: &Queries, cache: &KvLayer, spans: Range<usize>, out: &Output) {
    let stride = queries.count() * partial_len(cache.head_dim);
    let mut partials = vec![0.0; spans.len() * stride];
    for (index, partial) in spans.zip(partials.chunks_exact_mut(stride)) {
        // SAFETY: the table is that of an available ISA.
        unsafe { (ops.attend)(queries, cache, span(index), partial) };
    }
    merge_all(ops, queries, cache, &partials, stride, out);
}

/// Memory for [`crate::Engine::attention_within`]: each thread's keys and values of one head.
pub struct HeadCaches {
    head_dim: usize,
    positions: usize,
    caches: Vec<Mutex<KvLayer>>,
}

impl HeadCaches {
    /// Memory for heads of `head_dim` in sequences of up to `positions`, on a pool of `threads`.
    ///
    /// # Panics
    /// As [`KvLayer::new`].
    pub fn new(kind: KvKind, head_dim: usize, positions: usize, threads: usize) -> HeadCaches {
        let cache = |_| Mutex::new(KvLayer::new(kind, 1, head_dim, positions));
        HeadCaches {
            head_dim,
            positions,
            caches: (0..threads.max(1)).map(cache).collect(),
        }
    }

    /// Positions that fit.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Calls `task` with a cache that no other thread has; there is one for each.
    fn borrow<R>(&self, task: impl FnOnce(&mut KvLayer) -> R) -> R {
        loop {
            for cache in &self.caches {
                match cache.try_lock() {
                    Ok(mut cache) => return task(&mut cache),
                    // What a task that panicked has left is written over.
                    Err(TryLockError::Poisoned(cache)) => return task(&mut cache.into_inner()),
                    Err(TryLockError::WouldBlock) => {}
                }
            }
            std::thread::yield_now();
        }
    }
}

/// Queries (`[row][heads · head_dim]`), keys and values (`[row][kv_heads · head_dim]`).
pub(crate) struct Rows<'a> {
    pub queries: &'a [f32],
    pub keys: &'a [f32],
    pub values: &'a [f32],
}

/// Attention inside whole sequences, see [`crate::Engine::attention_within`]. A task is one head of
/// one sequence.
pub(crate) fn attention_within(
    ops: &Ops,
    pool: &ThreadPool,
    shape: &AttentionShape,
    lengths: &[usize],
    rows: Rows,
    caches: &HeadCaches,
    out: &mut [f32],
) {
    shape.check();
    let total: usize = lengths.iter().sum();
    let width = shape.heads * shape.head_dim;
    let kv_width = shape.kv_heads * shape.head_dim;
    assert!(shape.window.is_none(), "a window needs a causal mask");
    assert_eq!(rows.queries.len(), total * width, "queries against lengths");
    assert_eq!(rows.keys.len(), total * kv_width, "keys against lengths");
    assert_eq!(rows.values.len(), rows.keys.len(), "values against keys");
    assert_eq!(
        rows.queries.len(),
        out.len(),
        "attention output against queries"
    );
    assert_eq!(caches.head_dim, shape.head_dim, "head caches");
    assert!(
        lengths.iter().all(|&len| len <= caches.positions),
        "sequences beyond the head caches"
    );
    let starts: Vec<usize> = lengths
        .iter()
        .scan(0, |end, len| {
            *end += len;
            Some(*end - len)
        })
        .collect();
    let tile = (QUERIES * shape.kv_heads / shape.heads).max(1);
    let output = Output {
        data: out.as_mut_ptr(),
        heads: shape.heads,
        head_dim: shape.head_dim,
    };
    pool.run(lengths.len() * shape.kv_heads, &|task| {
        let (sequence, kv_head) = (task / shape.kv_heads, task % shape.kv_heads);
        let (start, len) = (starts[sequence], lengths[sequence]);
        // SAFETY: this sequence's rows follow `start` rows of the output.
        let out = unsafe { output.skip(start) };
        caches.borrow(|cache| {
            let mut chunks = cache.chunks_mut(0..len.div_ceil(CHUNK));
            for position in 0..len {
                let at = (start + position) * kv_width + kv_head * shape.head_dim;
                let (key, value) = (
                    &rows.keys[at..][..shape.head_dim],
                    &rows.values[at..][..shape.head_dim],
                );
                let chunk = &mut chunks[position / CHUNK];
                // SAFETY: the table is that of an available ISA.
                unsafe { (ops.kv_store)(chunk, position % CHUNK, key, value) };
            }
            for first in (0..len).step_by(tile) {
                let queries = Queries {
                    shape,
                    data: &rows.queries[start * width..(start + len) * width],
                    start: 0,
                    rows: first..len.min(first + tile),
                    kv_head,
                    sight: Sight::Whole(len),
                };
                attend_all(ops, &queries, cache, 0..len.div_ceil(SPAN), &out);
            }
        });
    });
}

/// A few tasks' worth of queries, as when decoding: spans are spread over the threads instead.
fn for_each_span(ops: &Ops, pool: &ThreadPool, cache: &KvLayer, tiles: &[Queries], out: &Output) {
    let mut jobs = vec![];
    for (tile, queries) in tiles.iter().enumerate() {
        jobs.extend(spans(queries.shape, queries.start, &queries.rows).map(|index| (tile, index)));
    }
    let longest = tiles.iter().map(Queries::count).max().unwrap_or(0);
    let stride = longest * partial_len(cache.head_dim);
    let mut partials = vec![0.0; jobs.len() * stride];
    pool.for_each_chunk(&mut partials, stride.max(1), |job, partial| {
        let (tile, index) = jobs[job];
        let len = tiles[tile].count() * partial_len(cache.head_dim);
        // SAFETY: the table is that of an available ISA.
        unsafe { (ops.attend)(&tiles[tile], cache, span(index), &mut partial[..len]) };
    });
    let mut rest = &partials[..];
    for queries in tiles {
        let count = spans(queries.shape, queries.start, &queries.rows).len();
        let own;
        (own, rest) = rest.split_at(count * stride);
        merge_all(ops, queries, cache, own, stride, out);
    }
}

/// The spans that any of the rows sees.
fn spans(shape: &AttentionShape, start: usize, rows: &Range<usize>) -> Range<usize> {
    let first = visible(shape, start + rows.start).start;
    let last = start + rows.end;
    first / SPAN..last.div_ceil(SPAN)
}

fn span(index: usize) -> Span {
    Span {
        from: index * SPAN,
        to: (index + 1) * SPAN,
    }
}

/// Merges `[span][query][partial]`, spans `step` floats apart, into the output of each query.
fn merge_all(
    ops: &Ops,
    queries: &Queries,
    cache: &KvLayer,
    partials: &[f32],
    step: usize,
    out: &Output,
) {
    let stride = partial_len(queries.shape.head_dim);
    for m in 0..queries.count() {
        let (row, head) = queries.place(m);
        // SAFETY: each query's output belongs to the task that has the query; the table is that of
        // an available ISA.
        unsafe {
            (ops.merge)(
                &partials[m * stride..],
                step,
                cache.rotated(),
                out.of(row, head),
            )
        };
    }
}

/// The output, of which each task writes the parts of its own queries.
struct Output {
    data: *mut f32,
    heads: usize,
    head_dim: usize,
}

// SAFETY: tasks write disjoint parts, as `of` demands.
unsafe impl Sync for Output {}

impl Output {
    /// The output from a row on.
    ///
    /// # Safety
    /// `row` must be within the output.
    unsafe fn skip(&self, row: usize) -> Output {
        Output {
            // SAFETY: `[row][heads][head_dim]`, as the caller promises.
            data: unsafe { self.data.add(row * self.heads * self.head_dim) },
            ..*self
        }
    }

    /// # Safety
    /// `row` and `head` must be within the output, and no other reference to this part alive.
    #[allow(clippy::mut_from_ref)]
    unsafe fn of(&self, row: usize, head: usize) -> &mut [f32] {
        // SAFETY: `[row][heads][head_dim]`, as the caller promises.
        unsafe {
            let start = self.data.add((row * self.heads + head) * self.head_dim);
            std::slice::from_raw_parts_mut(start, self.head_dim)
        }
    }
}
