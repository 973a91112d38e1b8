//! Packed weights: one layout for every ISA.
//!
//! A matrix of `rows` × `cols` (K) is cut into panels of [`PANEL`] rows. A panel holds, each plane
//! starting on a 64-byte boundary:
//!
//! | plane | present in | order |
//! |---|---|---|
//! | scales, f16 | all but floats | `[group][row]` |
//! | minimums, f16 | `q4` with minimum | `[group][row]` |
//! | codes | all | see below |
//!
//! - `q8`: `i8`, `[k / 4][row][k % 4]`: 64 bytes hold 4 consecutive K of 16 rows, so one
//!   `vpdpbusd`, or four `sdot`, take them to 16 row sums without a horizontal add.
//! - `q4`: 64 bytes hold 8 consecutive K: byte `[k / 8][row][k % 4]`, low nibble for `k % 8 < 4`,
//!   high nibble for the rest: one mask and one shift give two vectors ordered as `q8`.
//! - `q3`, `q5`, `q6`: for each 32 columns a plane of their low bits (two of them for `q3`, else
//!   four), then one of their high bits. A plane of `w` bits is `w` lines of 64 bytes
//!   `[row][k % 4]`, each byte with `8 / w` columns that are four apart, lowest bits first.
//! - `f16`, `f32`: `[k][row]`.
//!
//! Rows are padded to the panel and columns to the group with zeros.

mod codes;
mod layout;
mod matrix;

pub use codes::Codes;
pub use layout::{Group, Kind, Layout, PANEL, PackingError, SplitBits};
pub use matrix::{PackedMatrix, pack_floats};
