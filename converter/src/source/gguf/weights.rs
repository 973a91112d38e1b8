//! From the tensor names of GGUF to ours.

use super::reader::{Contents, TensorInfo};
use super::types::{GgmlType, nibbles};
use crate::Error;
use crate::checkpoint::Weight;
use crate::source::file::SourceFile;
use half::f16;
use kinglet::config::ModelConfig;
use kinglet::format::names::expected_weights;
use kinglet_kernels::packing::{Codes, Group, Kind, Layout};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Rows of a tensor.
pub(super) struct Rows {
    pub file: Arc<SourceFile>,
    pub tensor: TensorInfo,
    pub first: usize,
    pub shape: Vec<usize>,
    /// Length of a head, where its rows alternate between the two halves that a rotary embedding
    /// turns; ours stand half by half.
    pub interleaved: Option<usize>,
}

impl Rows {
    fn cols(&self) -> usize {
        self.shape.get(1).copied().unwrap_or(1)
    }

    fn row_bytes(&self) -> usize {
        // An element of a vector, whose type has blocks of one, is a row.
        let (len, bytes) = self.tensor.kind.block();
        self.cols() / len * bytes
    }

    /// Calls `each` with the blocks of every row, in our order.
    fn for_each_row(
        &self,
        rows: Range<usize>,
        mut each: impl FnMut(usize, &[u8]),
    ) -> Result<(), Error> {
        let size = self.row_bytes();
        let at = |row: usize| self.tensor.offset + ((self.first + row) * size) as u64;
        if self.interleaved.is_none() {
            let mut bytes = vec![0; rows.len() * size];
            self.file.read_at(at(rows.start), &mut bytes)?;
            bytes
                .chunks_exact(size)
                .enumerate()
                .for_each(|(i, row)| each(i, row));
            return Ok(());
        }
        let mut bytes = vec![0; size];
        for (i, row) in rows.enumerate() {
            let row = match self.interleaved {
                Some(head) => {
                    let (start, within) = (row / head * head, row % head);
                    start + within % (head / 2) * 2 + within / (head / 2)
                }
                None => row,
            };
            self.file.read_at(at(row), &mut bytes)?;
            each(i, &bytes);
        }
        Ok(())
    }
}

impl Weight for Rows {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn read_rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let cols = self.cols();
        let kind = self.tensor.kind;
        self.for_each_row(rows, |i, row| {
            kind.dequantize(row, &mut out[i * cols..][..cols])
        })
    }

    fn grid(&self) -> Option<Kind> {
        let group = Group::G32;
        match self.tensor.kind {
            GgmlType::Q4_0 | GgmlType::Q4_1 => Some(Kind::Q4 {
                group,
                minimum: self.tensor.kind == GgmlType::Q4_1,
            }),
            GgmlType::Q8_0 => Some(Kind::Q8 { group }),
            _ => None,
        }
    }

    fn read_codes(&self, rows: Range<usize>) -> Result<Option<Codes>, Error> {
        let Some(kind) = self.grid() else {
            return Ok(None);
        };
        let layout = Layout::new(kind, rows.len(), self.cols())
            .map_err(|e| Error::source(self.file.path(), e.to_string()))?;
        let mut codes = Codes::zeros(layout);
        let (groups, cols) = (layout.groups(), layout.padded_cols());
        let (_, bytes) = self.tensor.kind.block();
        self.for_each_row(rows, |i, row| {
            for (g, block) in row.chunks_exact(bytes).enumerate() {
                let f16_at = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]);
                codes.scales[i * groups + g] = f16_at(0);
                let out = &mut codes.codes[i * cols + g * 32..][..32];
                match self.tensor.kind {
                    GgmlType::Q8_0 => {
                        for (out, &code) in out.iter_mut().zip(&block[2..]) {
                            *out = code as i8;
                        }
                    }
                    GgmlType::Q4_1 => {
                        codes.minimums[i * groups + g] = f16_at(2);
                        nibbles(&block[4..], |j, code| out[j] = code as i8);
                    }
                    _ => nibbles(&block[2..], |j, code| out[j] = code as i8),
                }
            }
        })?;
        Ok(Some(codes))
    }
}

/// Finds every weight that the configuration needs.
///
/// # Errors
/// A tensor that is missing, or of another shape than the metadata makes it.
pub fn find(
    file: &Arc<SourceFile>,
    contents: &Contents,
    config: &ModelConfig,
) -> Result<BTreeMap<String, Arc<dyn Weight>>, Error> {
    let mut weights: BTreeMap<String, Arc<dyn Weight>> = BTreeMap::new();
    for (name, shape) in expected_weights(config) {
        let place = place(contents, config, &name, shape[0]);
        let fail = |reason: String| Error::tensor(file.path(), &place.tensor, reason);
        let tensor = contents.tensors.get(&place.tensor);
        let tensor = tensor.ok_or_else(|| fail("missing".to_owned()))?;
        let mut expected = shape.clone();
        expected[0] = place.rows;
        expected.reverse();
        let mut found = tensor.dimensions.clone();
        while found.len() > expected.len() && found.last() == Some(&1) {
            found.pop();
        }
        if found != expected {
            return Err(fail(format!(
                "dimensions {found:?}, but the metadata makes it {expected:?}"
            )));
        }
        // A vector is read element by element.
        let (block, _) = tensor.kind.block();
        if shape.len() == 1 && block > 1 {
            return Err(fail(format!(
                "a vector of type {:?}: expected F32, F16 or BF16",
                tensor.kind
            )));
        }
        // LLaMA's query and key rows are stored for a rotary embedding of neighbours.
        let rotated = config.architecture == "llama"
            && [".q", ".k", ".q_bias", ".k_bias"]
                .iter()
                .any(|end| name.ends_with(end));
        let rows = Rows {
            file: file.clone(),
            tensor: tensor.clone(),
            first: place.first,
            shape,
            interleaved: rotated.then_some(config.head_dim),
        };
        weights.insert(name, Arc::new(rows));
    }
    Ok(weights)
}

/// Where a weight of ours is: tensor, and which of the rows that are stacked there.
struct Place {
    tensor: String,
    first: usize,
    rows: usize,
}

fn place(contents: &Contents, config: &ModelConfig, name: &str, rows: usize) -> Place {
    let whole = |tensor: String| Place {
        tensor,
        first: 0,
        rows,
    };
    match name {
        "embed" => return whole("token_embd.weight".to_owned()),
        "norm" => return whole("output_norm.weight".to_owned()),
        "head" => return whole("output.weight".to_owned()),
        _ => {}
    }
    let mut parts = name.splitn(3, '.').skip(1);
    let layer = parts.next().unwrap_or_default();
    let part = parts.next().unwrap_or_default();
    let of_layer = |rest: &str| format!("blk.{layer}.{rest}");
    let (queries, keys) = (
        config.heads * config.head_dim,
        config.kv_heads * config.head_dim,
    );
    // Phi-3 stacks query, key and value, and gate and up.
    let stacked = |rest: &str, first: usize, rows: usize| {
        let tensor = of_layer(rest);
        let there = contents.tensors.contains_key(&tensor);
        there.then_some(Place {
            tensor,
            first,
            rows,
        })
    };
    const QKV: &str = "attn_qkv.weight";
    let ffn = config.intermediate_size;
    let gate = config.architecture != "phi3"
        || contents.tensors.contains_key(&of_layer("ffn_gate.weight"));
    let fused = match part {
        "q" => stacked(QKV, 0, queries + 2 * keys),
        "k" => stacked(QKV, queries, queries + 2 * keys),
        "v" => stacked(QKV, queries + keys, queries + 2 * keys),
        "gate" if !gate => stacked("ffn_up.weight", 0, 2 * ffn),
        "up" if !gate => stacked("ffn_up.weight", ffn, 2 * ffn),
        _ => None,
    };
    fused.unwrap_or_else(|| {
        whole(of_layer(match part {
            "attn_norm" => "attn_norm.weight",
            "attn_post_norm" => "post_attention_norm.weight",
            "ffn_norm" => "ffn_norm.weight",
            "ffn_post_norm" => "post_ffw_norm.weight",
            "q" => "attn_q.weight",
            "k" => "attn_k.weight",
            "v" => "attn_v.weight",
            "o" => "attn_output.weight",
            "q_bias" => "attn_q.bias",
            "k_bias" => "attn_k.bias",
            "v_bias" => "attn_v.bias",
            "q_norm" => "attn_q_norm.weight",
            "k_norm" => "attn_k_norm.weight",
            "gate" => "ffn_gate.weight",
            "up" => "ffn_up.weight",
            _ => "ffn_down.weight",
        }))
    })
}
