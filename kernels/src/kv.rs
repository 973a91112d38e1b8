//! The key/value cache of one layer, in the layout that attention reads.

use std::fmt;
use std::str::FromStr;

/// Positions of a block of keys: one lane each.
pub(crate) const KEY_BLOCK: usize = 16;

/// Positions that attention takes at once; capacities are padded to it.
pub(crate) const CHUNK: usize = 64;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KvKind {
    /// IEEE 754 binary32: for reference runs.
    F32,
    /// IEEE 754 binary16.
    #[default]
    F16,
    /// INT8 with one f32 scale per position and head.
    Q8,
}

impl KvKind {
    /// Every kind.
    pub const ALL: [KvKind; 3] = [KvKind::F32, KvKind::F16, KvKind::Q8];

    /// Bytes that one layer needs for `capacity` positions; `None` beyond `usize::MAX`.
    pub fn bytes(self, kv_heads: usize, head_dim: usize, capacity: usize) -> Option<usize> {
        let element = match self {
            KvKind::F32 => 4,
            KvKind::F16 => 2,
            KvKind::Q8 => 1,
        };
        let scales = if self == KvKind::Q8 {
            2 * size_of::<f32>()
        } else {
            0
        };
        let per_position = head_dim
            .checked_add(padded(head_dim)?)?
            .checked_mul(element)?
            .checked_add(scales)?;
        capacity
            .checked_next_multiple_of(CHUNK)?
            .checked_mul(kv_heads)?
            .checked_mul(per_position)
    }
}

/// `f32`, `f16`, `q8`.
impl fmt::Display for KvKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            KvKind::F32 => "f32",
            KvKind::F16 => "f16",
            KvKind::Q8 => "q8",
        })
    }
}

/// The name of a cache kind is not one of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown kind of KV cache {0:?}: expected f32, f16 or q8")]
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

/// `head_dim` padded to whole vectors of 16 lanes.
pub(crate) fn padded(head_dim: usize) -> Option<usize> {
    head_dim.checked_next_multiple_of(16)
}

/// Keys and values of one layer.
///
/// Keys lie in blocks of 16 positions, `[kv_head][position / 16][dimension][position % 16]`, so that
/// scores of 16 positions build up in the lanes of a vector; values lie in rows,
/// `[kv_head][position][dimension padded to 16]`, so that their weighted sum does. Neither needs a
/// sum across lanes.
pub struct KvLayer {
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// A multiple of [`CHUNK`].
    pub(crate) padded_capacity: usize,
    capacity: usize,
    pub(crate) store: Store,
}

/// Memory of a cache.
pub(crate) enum Store {
    F32 {
        keys: Vec<f32>,
        values: Vec<f32>,
    },
    F16 {
        keys: Vec<u16>,
        values: Vec<u16>,
    },
    Q8 {
        keys: Vec<i8>,
        values: Vec<i8>,
        key_scales: Vec<f32>,
        value_scales: Vec<f32>,
    },
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
        let keys = kv_heads * positions * head_dim;
        let values = kv_heads * positions * head_dim.next_multiple_of(16);
        let scales = kv_heads * positions;
        let store = match kind {
            KvKind::F32 => Store::F32 {
                keys: vec![0.0; keys],
                values: vec![0.0; values],
            },
            KvKind::F16 => Store::F16 {
                keys: vec![0; keys],
                values: vec![0; values],
            },
            KvKind::Q8 => Store::Q8 {
                keys: vec![0; keys],
                values: vec![0; values],
                key_scales: vec![0.0; scales],
                value_scales: vec![0.0; scales],
            },
        };
        KvLayer {
            kv_heads,
            head_dim,
            padded_capacity: positions,
            capacity,
            store,
        }
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Where a position's key starts; its dimensions are [`KEY_BLOCK`] apart.
    #[inline(always)]
    pub(crate) fn key_at(&self, kv_head: usize, position: usize) -> usize {
        let block = kv_head * (self.padded_capacity / KEY_BLOCK) + position / KEY_BLOCK;
        block * self.head_dim * KEY_BLOCK + position % KEY_BLOCK
    }

    /// Where a position's value starts.
    #[inline(always)]
    pub(crate) fn value_at(&self, kv_head: usize, position: usize) -> usize {
        (kv_head * self.padded_capacity + position) * self.head_dim.next_multiple_of(16)
    }
}
