//! The key/value cache of one layer, in the layout that attention reads.

use std::fmt;
use std::str::FromStr;

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
    /// Bytes that one layer needs for `capacity` positions.
    pub fn bytes(self, kv_heads: usize, head_dim: usize, capacity: usize) -> usize {
        todo!()
    }
}

/// Keys and values of one layer, `[kv_head][position][head_dim]`, head_dim padded to 16.
pub struct KvLayer {}

impl KvLayer {
    /// An empty cache for `capacity` positions.
    pub fn new(kind: KvKind, kv_heads: usize, head_dim: usize, capacity: usize) -> KvLayer {
        todo!()
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        todo!()
    }
}
