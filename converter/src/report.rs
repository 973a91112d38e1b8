//! What a conversion did: size, bits per weight and error, for people and for scripts.

use crate::pack::Distance;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The report of one conversion.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The source, as it was named.
    pub source: String,
    /// Bytes of its weights.
    pub source_bytes: u64,
    /// The file that was written.
    pub output: String,
    /// Its bytes.
    pub output_bytes: u64,
    /// Weights of the model, a head beside a tied embedding not counted.
    pub parameters: u64,
    /// Bits of the file per weight.
    pub bits_per_weight: f64,
    /// Matrices that take their inputs as two INT8.
    pub precise: usize,
    /// Bytes of the head, where a rotation wrote it beside the embedding that it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_beside: Option<u64>,
    /// Seconds that it took.
    pub seconds: f64,
    /// Every tensor.
    pub tensors: Vec<TensorReport>,
}

/// One tensor of a report.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// Logical shape.
    pub shape: Vec<usize>,
    /// Name of its kind.
    pub kind: String,
    /// Bytes in the file.
    pub bytes: u64,
    /// Root of the squared error, relative to the weights: `|W' - W| / |W|`.
    pub relative_error: f64,
    /// Whether the source's own codes were kept bit for bit.
    pub kept_grid: bool,
    #[serde(skip)]
    pub(crate) distance: Distance,
}

impl TensorReport {
    /// Whether this is half of a low-rank correction.
    fn corrects(&self) -> bool {
        ["_narrow", "_widen"]
            .iter()
            .any(|half| self.name.ends_with(half))
    }

    /// The last part of the name: what the tensor does in its layer.
    fn role(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// Tensors of one role and kind.
#[derive(Default)]
struct Row {
    tensors: usize,
    bytes: u64,
    kept: usize,
    error: f64,
    energy: f64,
}

/// A table with a row for each role, then the totals.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut order: Vec<(&str, &str)> = vec![];
        let mut rows: BTreeMap<(&str, &str), Row> = BTreeMap::new();
        for tensor in &self.tensors {
            let role = match tensor.shape.len() {
                1 => "norms, biases",
                _ if tensor.corrects() => "corrections",
                _ => tensor.role(),
            };
            let key = (role, tensor.kind.as_str());
            if !order.contains(&key) {
                order.push(key);
            }
            let row = rows.entry(key).or_default();
            row.tensors += 1;
            row.bytes += tensor.bytes;
            row.kept += usize::from(tensor.kept_grid);
            row.error += tensor.distance.error;
            row.energy += tensor.distance.energy;
        }
        writeln!(
            f,
            "{:<14} {:>8}  {:<8} {:>11} {:>12}",
            "weights", "tensors", "kind", "size", "rel. error"
        )?;
        for (role, kind) in order {
            let row = &rows[&(role, kind)];
            let distance = Distance {
                error: row.error,
                energy: row.energy,
                kept_grid: false,
            };
            let error = match distance.relative() {
                _ if row.kept == row.tensors => "grid kept".to_owned(),
                0.0 => "0".to_owned(),
                error => format!("{:.3} %", 100.0 * error),
            };
            let size = megabytes(row.bytes);
            let tensors = row.tensors;
            writeln!(
                f,
                "{role:<14} {tensors:>8}  {kind:<8} {size:>11} {error:>12}"
            )?;
        }
        if self.precise > 0 {
            writeln!(
                f,
                "\n{} matrices take their inputs as two INT8",
                self.precise
            )?;
        }
        if let Some(bytes) = self.head_beside {
            let bytes = megabytes(bytes);
            writeln!(
                f,
                "\nthe rotated head is not the embedding any more: {bytes}"
            )?;
        }
        writeln!(
            f,
            "\n{} → {}: {} → {} ({:.1} %), {:.2} bits per weight, {:.1} s",
            self.source,
            self.output,
            megabytes(self.source_bytes),
            megabytes(self.output_bytes),
            100.0 * self.output_bytes as f64 / self.source_bytes.max(1) as f64,
            self.bits_per_weight,
            self.seconds,
        )
    }
}

/// Millions of bytes.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}
