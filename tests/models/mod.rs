//! Tiny models in foreign formats, byte by byte, to be damaged; and what the fuzz targets share.

pub mod folder;
pub mod gguf;

use kinglet_convert::checkpoint::Checkpoint;

/// Between the parts of an input of the fuzz target `kgl`; never part of a JSON text.
pub const KGL_SEPARATOR: &[u8] = b"\xff\xfe";

/// Between the parts of an input of the fuzz target `safetensors`.
pub const FOLDER_SEPARATOR: &[u8] = KGL_SEPARATOR;

/// The parts between separators; those that are missing are empty, the last one has the rest.
pub fn parted<'a, const N: usize>(bytes: &'a [u8], separator: &[u8]) -> [&'a [u8]; N] {
    let mut rest = bytes;
    std::array::from_fn(|part| {
        let end = (part + 1 < N)
            .then(|| rest.windows(separator.len()).position(|w| w == separator))
            .flatten();
        let (taken, after) = match end {
            Some(end) => (&rest[..end], &rest[end + separator.len()..]),
            None => (rest, &[][..]),
        };
        rest = after;
        taken
    })
}

/// Reads the first and last rows of every weight, and their codes where they lie on a grid.
pub fn read_some(checkpoint: &Checkpoint) {
    for weight in checkpoint.weights.values() {
        let shape = weight.shape();
        let (rows, cols) = (shape[0], shape.get(1).copied().unwrap_or(1));
        for range in [0..rows.min(2), rows - 1..rows] {
            let mut out = vec![0.0; range.len() * cols];
            let _ = weight.read_rows(range.clone(), &mut out);
            let codes = weight.read_codes(range).ok().flatten();
            assert_eq!(codes.is_some(), weight.grid().is_some());
        }
    }
}
