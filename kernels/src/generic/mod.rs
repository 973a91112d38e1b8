//! Float loops, each written once over [`lanes::Lanes`].
//!
//! An ISA instantiates them all in one table (`ops_table!`): functions compiled with its target
//! features, which inline the loop and the operations of its lanes.

pub(crate) mod attention;
pub(crate) mod dots;
pub(crate) mod elementwise;
pub(crate) mod lanes;
pub(crate) mod math;
pub(crate) mod norm;
pub(crate) mod quantize;
mod table;

pub(crate) use table::{Ops, ops, ops_table};
