//! The text that stands in where no calibration text is given.

/// Varied prose, dialogue, code, lists and questions, written for this purpose.
pub const BUILT_IN: &str = include_str!("../calibration.txt");
