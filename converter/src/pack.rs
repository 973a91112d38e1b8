//! The packer: streams weights through a quantizer into a file.
//!
//! Rows are read, quantized and packed in blocks, several threads at a time, so that memory does not
//! grow with the model.

use crate::Error;
use crate::checkpoint::Weight;
use crate::quantize::{rtn, search};
use crate::recipe::Method;
use kinglet::format::Writer;
use kinglet_kernels::packing::{Codes, Kind, Layout, PANEL, PackingError, pack_floats};
use std::ops::Range;

/// Floats that a thread holds at a time, at least one panel: 4 MB.
const BLOCK: usize = 1 << 20;

/// How far packed weights are from their source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Distance {
    /// Sum of squared differences.
    pub error: f64,
    /// Sum of squared weights.
    pub energy: f64,
    /// Whether the source's own codes were kept.
    pub kept_grid: bool,
}

impl Distance {
    /// `sqrt(error / energy)`
    pub fn relative(&self) -> f64 {
        if self.error == 0.0 {
            return 0.0;
        }
        (self.error / self.energy).sqrt()
    }

    /// Adds another part of the same tensor.
    pub(crate) fn merge(&mut self, other: Distance) {
        self.error += other.error;
        self.energy += other.energy;
    }

    fn add(&mut self, weight: f32, packed: f32) {
        self.error += f64::from(packed - weight).powi(2);
        self.energy += f64::from(weight).powi(2);
    }
}

/// Packs the matrix `name` and writes it; `progress` is told the weights that are done.
///
/// # Errors
/// A source that cannot be read, weights that are not finite, or a file that cannot be written.
pub fn matrix(
    writer: &mut Writer,
    name: &str,
    layout: Layout,
    source: &dyn Weight,
    method: Method,
    keep_grid: bool,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Distance, Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let keep_grid = keep_grid && source.grid() == Some(layout.kind());
    let mut total = Distance {
        kept_grid: keep_grid,
        ..Distance::default()
    };
    let blocks: Vec<Range<usize>> = row_blocks(layout, BLOCK).collect();
    for blocks in blocks.chunks(threads) {
        let block = |rows: Range<usize>| {
            let packed = pack_rows(name, layout, source, rows.clone(), method, keep_grid)?;
            progress(rows.len() * layout.cols());
            Ok(packed)
        };
        let packed: Vec<Result<(Vec<u8>, Distance), Error>> = std::thread::scope(|scope| {
            let tasks: Vec<_> = blocks
                .iter()
                .map(|rows| scope.spawn(move || block(rows.clone())))
                .collect();
            let join = |task: std::thread::ScopedJoinHandle<'_, _>| {
                task.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            tasks.into_iter().map(join).collect()
        });
        for packed in packed {
            let (bytes, distance) = packed?;
            writer.write(&bytes)?;
            total.merge(distance);
        }
    }
    Ok(total)
}

/// Rows in blocks of whole panels, each of up to `floats` weights but at least one panel.
pub(crate) fn row_blocks(layout: Layout, floats: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (floats / layout.cols() / PANEL).max(1) * PANEL;
    let starts = (0..layout.rows()).step_by(step);
    starts.map(move |start| start..layout.rows().min(start + step))
}

/// Writes a vector.
///
/// # Errors
/// As [`matrix`].
pub fn vector(writer: &mut Writer, name: &str, source: &dyn Weight) -> Result<(), Error> {
    let mut values = vec![0.0; source.shape().iter().product()];
    source.read_rows(0..values.len(), &mut values)?;
    check_finite(name, &values, 1, 0)?;
    Ok(writer.write_vector(&values)?)
}

/// Some rows, from a panel's first on, as whole panels.
fn pack_rows(
    name: &str,
    layout: Layout,
    source: &dyn Weight,
    rows: Range<usize>,
    method: Method,
    keep_grid: bool,
) -> Result<(Vec<u8>, Distance), Error> {
    let packing = |source| error(name, source);
    let cols = layout.cols();
    let part = Layout::new(layout.kind(), rows.len(), cols).map_err(packing)?;
    let mut bytes = vec![0; part.bytes()];
    if keep_grid && let Some(codes) = source.read_codes(rows.clone())? {
        for factors in [&codes.scales, &codes.minimums] {
            let factors: Vec<f32> = factors.iter().map(|f| f.to_f32()).collect();
            check_finite(name, &factors, part.groups(), rows.start)?;
        }
        codes.pack_into(&mut bytes).map_err(packing)?;
        return Ok((bytes, Distance::default()));
    }
    let mut weights = vec![0.0; rows.len() * cols];
    source.read_rows(rows.clone(), &mut weights)?;
    check_finite(name, &weights, cols, rows.start)?;
    if !layout.kind().is_quantized() {
        return floats(name, part, &weights, rows.start);
    }
    let codes = match method {
        Method::Rtn => rtn::quantize(part, &weights),
        Method::Search | Method::Gptq => search::quantize(part, &weights, None),
    };
    codes.pack_into(&mut bytes).map_err(packing)?;
    Ok((bytes, codes_distance(&codes, &weights)))
}

/// Packs rows of floats, the first of them row `first` of the matrix.
pub(crate) fn floats(
    name: &str,
    layout: Layout,
    weights: &[f32],
    first: usize,
) -> Result<(Vec<u8>, Distance), Error> {
    let mut distance = Distance::default();
    let mut bytes = vec![0; layout.bytes()];
    if layout.kind() == Kind::F16 {
        check_f16(name, weights, layout.cols(), first)?;
        for &w in weights {
            distance.add(w, half::f16::from_f32(w).to_f32());
        }
    }
    pack_floats(&layout, weights, &mut bytes).map_err(|e| error(name, e))?;
    Ok((bytes, distance))
}

/// A packing error of the weight `name`.
pub(crate) fn error(name: &str, source: PackingError) -> Error {
    Error::Runtime(kinglet::Error::Packing {
        name: name.to_owned(),
        source,
    })
}

pub(crate) fn codes_distance(codes: &Codes, weights: &[f32]) -> Distance {
    let mut distance = Distance::default();
    for (row, weights) in weights.chunks_exact(codes.layout().cols()).enumerate() {
        for (col, &w) in weights.iter().enumerate() {
            distance.add(w, codes.weight(row, col));
        }
    }
    distance
}

/// How far weights are from their source.
pub(crate) fn distance(weights: &[f32], source: &[f32]) -> Distance {
    let mut distance = Distance::default();
    for (&packed, &w) in weights.iter().zip(source) {
        distance.add(w, packed);
    }
    distance
}

pub(crate) fn check_finite(
    name: &str,
    weights: &[f32],
    cols: usize,
    first: usize,
) -> Result<(), Error> {
    let Some(at) = weights.iter().position(|w| !w.is_finite()) else {
        return Ok(());
    };
    Err(Error::NotFinite {
        name: name.to_owned(),
        row: first + at / cols,
        found: weights[at],
    })
}

fn check_f16(name: &str, weights: &[f32], cols: usize, first: usize) -> Result<(), Error> {
    let Some(at) = weights
        .iter()
        .position(|w| w.abs() > half::f16::MAX.to_f32())
    else {
        return Ok(());
    };
    Err(Error::BeyondF16 {
        name: name.to_owned(),
        row: first + at / cols,
        found: weights[at],
    })
}
