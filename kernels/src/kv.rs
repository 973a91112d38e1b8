//! The key/value cache of one layer, in the layout that attention reads.

use crate::generic::dots::STEP;
use crate::generic::lanes::LANES;
use crate::isa::Isa;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::str::FromStr;

/// Positions of a block of keys: one lane each.
pub(crate) const KEY_BLOCK: usize = 16;

/// Positions that attention takes at once; capacities are padded to it.
pub(crate) const CHUNK: usize = 64;

/// Bytes of a cache line.
const LINE: usize = 64;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KvKind {
    /// IEEE 754 binary32: for reference runs.
    F32,
    /// INT16 with one f32 scale per position and head: hardly less exact than binary16 would be, and read by
    /// integer dot products, as the kinds below. A vector with elements that are not finite, or of 2.6e33 and
    /// more, counts as zero.
    #[default]
    Q16,
    /// INT8 with one f32 scale per position and head.
    Q8,
    /// Keys are kept as [`KvKind::Q8`] does; values rotated, as INT4 codes of uneven levels, with one f32
    /// scale per position and head.
    K8V4,
}

impl KvKind {
    /// Every kind.
    pub const ALL: [KvKind; 4] = [KvKind::F32, KvKind::Q16, KvKind::Q8, KvKind::K8V4];

    /// Bytes that one layer needs for `capacity` positions, but for those that align it; `None` beyond
    /// `usize::MAX`.
    pub fn bytes(self, kv_heads: usize, head_dim: usize, capacity: usize) -> Option<usize> {
        let (element, scales) = match self {
            KvKind::F32 => (4, 0),
            KvKind::Q16 | KvKind::Q8 | KvKind::K8V4 => (1, 2 * size_of::<f32>()),
        };
        let per_position = self
            .key_width(head_dim)?
            .checked_add(self.value_width(head_dim)?)?
            .checked_mul(element)?
            .checked_add(scales)?;
        capacity
            .checked_next_multiple_of(CHUNK)?
            .checked_mul(kv_heads)?
            .checked_mul(per_position)
    }

    /// Elements that the key of one position takes up, or bytes of its codes.
    fn key_width(self, head_dim: usize) -> Option<usize> {
        match self {
            KvKind::F32 => Some(head_dim),
            KvKind::Q16 => head_dim.checked_mul(2)?.checked_next_multiple_of(STEP),
            KvKind::Q8 | KvKind::K8V4 => head_dim.checked_next_multiple_of(STEP),
        }
    }

    /// Elements that the value of one position takes up, or bytes of its codes: whole vectors of 16 lanes.
    fn value_width(self, head_dim: usize) -> Option<usize> {
        let padded = head_dim.checked_next_multiple_of(LANES)?;
        Some(match self {
            KvKind::F32 | KvKind::Q8 => padded,
            KvKind::Q16 => padded.checked_mul(2)?,
            KvKind::K8V4 => padded / 2,
        })
    }
}

/// `f32`, `q16`, `q8`, `k8v4`.
impl fmt::Display for KvKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            KvKind::F32 => "f32",
            KvKind::Q16 => "q16",
            KvKind::Q8 => "q8",
            KvKind::K8V4 => "k8v4",
        })
    }
}

/// The name of a cache kind is not one of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown kind of KV cache {0:?}: expected f32, q16, q8 or k8v4")]
pub struct UnknownKvKind(String);

impl FromStr for KvKind {
    type Err = UnknownKvKind;

    fn from_str(name: &str) -> Result<KvKind, UnknownKvKind> {
        let found = KvKind::ALL
            .into_iter()
            .find(|kind| kind.to_string() == name);
        found.ok_or_else(|| UnknownKvKind(name.to_owned()))
    }
}

/// Keys and values of one layer.
///
/// Keys lie in blocks of 16 positions, `[kv_head][position / 16][dimension][position % 16]`, so that
/// scores of 16 positions build up in the lanes of a vector; values lie in rows,
/// `[kv_head][position][dimension padded to 16]`, so that their weighted sum does. Neither needs a
/// sum across lanes. Of codes, as many of the elements that a sum takes lie together as four bytes hold, as
/// integer dot products want them. INT8: keys `[kv_head][position / 16][dimension / 4][position % 16][dimension % 4]`,
/// values `[kv_head][position / 4][dimension padded to 16][position % 4]`; INT16 with two in place of four,
/// which some instruction sets have the other way round within a line, `[dimension % 2][position % 16]` for
/// keys: a cache is read with the instruction set that wrote it.
/// INT4 values of two fours share bytes, `[kv_head][position / 8][dimension padded to 16][position % 4]`, the first four in the
/// low nibbles.
pub struct KvLayer {
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Elements that a key takes up, or bytes of its codes.
    pub(crate) key_width: usize,
    /// Elements that a value takes up, or bytes of its codes.
    pub(crate) value_width: usize,
    /// A multiple of [`CHUNK`].
    pub(crate) padded_capacity: usize,
    capacity: usize,
    /// The instruction set that has written here: others may lay codes out in another way.
    pub(crate) written_by: Option<Isa>,
    pub(crate) store: Store,
}

/// Memory of a cache.
pub(crate) enum Store {
    F32 {
        keys: Lines<f32>,
        values: Lines<f32>,
    },
    Q16(CodeStore),
    Q8(CodeStore),
    K8V4(CodeStore),
}

/// Bytes of codes, and a scale for each position and head.
pub(crate) struct CodeStore {
    pub keys: Lines<i8>,
    pub values: Lines<i8>,
    pub key_scales: Vec<f32>,
    pub value_scales: Vec<f32>,
}

/// A chunk of one head's positions, to be written.
pub(crate) struct HeadChunk<'a> {
    /// As in [`KvLayer`].
    pub key_width: usize,
    pub value_width: usize,
    /// [`KvLayer::rotated`]
    pub rotated: usize,
    pub store: ChunkStore<'a>,
}

/// Memory of a [`HeadChunk`].
pub(crate) enum ChunkStore<'a> {
    F32 {
        keys: &'a mut [f32],
        values: &'a mut [f32],
    },
    Q16(CodeChunk<'a>),
    Q8(CodeChunk<'a>),
    K8V4(CodeChunk<'a>),
}

/// What a chunk has of a [`CodeStore`].
pub(crate) struct CodeChunk<'a> {
    pub keys: &'a mut [i8],
    pub values: &'a mut [i8],
    pub key_scales: &'a mut [f32],
    pub value_scales: &'a mut [f32],
}

/// Elements from the start of a cache line on, so that a vector is within one. Not by the alignment
/// of an allocation: zeroed memory comes untouched from the system only with the ordinary one.
pub(crate) struct Lines<T> {
    memory: Vec<T>,
    start: usize,
}

impl<T: Clone + Default> Lines<T> {
    fn zeroed(len: usize) -> Lines<T> {
        let mut memory = vec![T::default(); len + LINE / size_of::<T>()];
        let start = memory.as_ptr().align_offset(LINE);
        memory.truncate(start + len);
        Lines { memory, start }
    }
}

impl<T> Deref for Lines<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        &self.memory[self.start..]
    }
}

impl<T> DerefMut for Lines<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..]
    }
}

impl KvLayer {
    /// An empty cache for `capacity` positions. The memory is zeroed by the system when it is first
    /// touched.
    ///
    /// # Panics
    /// If a dimension is zero, or [`KvKind::bytes`] is `None`.
    pub fn new(kind: KvKind, kv_heads: usize, head_dim: usize, capacity: usize) -> KvLayer {
        assert!(
            kv_heads > 0 && head_dim > 0 && capacity > 0,
            "an empty KV cache"
        );
        assert!(
            kind.bytes(kv_heads, head_dim, capacity).is_some(),
            "a KV cache beyond memory"
        );
        let positions = capacity.next_multiple_of(CHUNK);
        let widths = kind.key_width(head_dim).zip(kind.value_width(head_dim));
        let (key_width, value_width) = widths.expect("counted above");
        let keys = kv_heads * positions * key_width;
        let values = kv_heads * positions * value_width;
        let scales = kv_heads * positions;
        let integers = || CodeStore {
            keys: Lines::zeroed(keys),
            values: Lines::zeroed(values),
            key_scales: vec![0.0; scales],
            value_scales: vec![0.0; scales],
        };
        let store = match kind {
            KvKind::F32 => Store::F32 {
                keys: Lines::zeroed(keys),
                values: Lines::zeroed(values),
            },
            KvKind::Q16 => Store::Q16(integers()),
            KvKind::Q8 => Store::Q8(integers()),
            KvKind::K8V4 => Store::K8V4(integers()),
        };
        KvLayer {
            kv_heads,
            head_dim,
            key_width,
            value_width,
            padded_capacity: positions,
            capacity,
            written_by: None,
            store,
        }
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether positions `start..start + rows` fit.
    pub(crate) fn has_room(&self, start: usize, rows: usize) -> bool {
        rows <= self.capacity && start <= self.capacity - rows
    }

    /// How many dimensions of a value are rotated together, one from each part of it: 1 where none is.
    pub(crate) fn rotated(&self) -> usize {
        match self.store {
            Store::F32 { .. } | Store::Q16(_) | Store::Q8(_) => 1,
            Store::K8V4(_) if self.head_dim.is_multiple_of(4) => 4,
            Store::K8V4(_) => 1,
        }
    }

    /// Some chunks of every head, `[kv_head][chunk]`.
    pub(crate) fn chunks_mut(&mut self, chunks: Range<usize>) -> Vec<HeadChunk<'_>> {
        let (key_width, value_width) = (self.key_width, self.value_width);
        let (positions, rotated) = (self.padded_capacity, self.rotated());
        let of_head = |store| HeadChunk {
            key_width,
            value_width,
            rotated,
            store,
        };
        let [keys_cut, values_cut, scales_cut] = [key_width, value_width, 1].map(|width| Cut {
            head: positions * width,
            chunk: CHUNK * width,
            chunks: chunks.clone(),
        });
        let (store, kind): (_, fn(_) -> _) = match &mut self.store {
            Store::F32 { keys, values } => {
                let both = keys_cut.of(keys).zip(values_cut.of(values));
                return both
                    .map(|(keys, values)| of_head(ChunkStore::F32 { keys, values }))
                    .collect();
            }
            Store::Q16(store) => (store, ChunkStore::Q16),
            Store::Q8(store) => (store, ChunkStore::Q8),
            Store::K8V4(store) => (store, ChunkStore::K8V4),
        };
        let chunks = store.chunks_mut([keys_cut, values_cut, scales_cut]);
        chunks.map(|chunk| of_head(kind(chunk))).collect()
    }

    /// The keys of one head.
    pub(crate) fn keys_of(&self, kv_head: usize) -> Range<usize> {
        self.head(kv_head, self.key_width)
    }

    /// The values of one head.
    pub(crate) fn values_of(&self, kv_head: usize) -> Range<usize> {
        self.head(kv_head, self.value_width)
    }

    /// The scales of one head's keys, or of its values.
    pub(crate) fn scales_of(&self, kv_head: usize) -> Range<usize> {
        self.head(kv_head, 1)
    }

    /// What belongs to one head, at `width` elements for each position.
    fn head(&self, kv_head: usize, width: usize) -> Range<usize> {
        let len = self.padded_capacity * width;
        kv_head * len..(kv_head + 1) * len
    }
}

/// Where chunks of all heads lie.
struct Cut {
    /// Elements of a head.
    head: usize,
    /// Elements of a chunk.
    chunk: usize,
    chunks: Range<usize>,
}

impl Cut {
    /// The chunks, `[kv_head][chunk]`.
    fn of<'a, T>(&self, all: &'a mut [T]) -> impl Iterator<Item = &'a mut [T]> + use<'a, T> {
        let (chunk, range) = (
            self.chunk,
            self.chunks.start * self.chunk..self.chunks.end * self.chunk,
        );
        all.chunks_exact_mut(self.head)
            .flat_map(move |head| head[range.clone()].chunks_exact_mut(chunk))
    }
}

impl CodeStore {
    fn chunks_mut(
        &mut self,
        [keys, values, scales]: [Cut; 3],
    ) -> impl Iterator<Item = CodeChunk<'_>> {
        let codes = keys.of(&mut self.keys).zip(values.of(&mut self.values));
        let key_scales = scales.of(&mut self.key_scales);
        let scales = key_scales.zip(scales.of(&mut self.value_scales));
        codes
            .zip(scales)
            .map(|((keys, values), (key_scales, value_scales))| CodeChunk {
                keys,
                values,
                key_scales,
                value_scales,
            })
    }
}
