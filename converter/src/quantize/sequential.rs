//! Quantizes a model front to back: each layer for the inputs that the layers before it, as they
//! were quantized and corrected, give it.

use super::gptq::{self, Factor};
use super::{low_rank, norm, rtn, search};
use crate::Error;
use crate::calibrate::dense::{Dense, Moments, mean, multiply, view, view_mut};
use crate::calibrate::{Block, Calibration, NORMS, STAGES, Sensitivity};
use crate::checkpoint::Checkpoint;
use crate::pack::{self, Distance};
use crate::recipe::{Method, Quantize};
use kinglet::format::names::{bias_name, correction, layer};
use kinglet_kernels::packing::{Codes, Group, Layout};
use std::collections::BTreeMap;

/// A matrix, packed.
pub struct Made {
    /// As the file has it.
    pub bytes: Vec<u8>,
    /// How far it is from its source.
    pub distance: Distance,
}

/// A model on its way.
pub struct Sequential<'a> {
    checkpoint: &'a Checkpoint,
    calibration: &'a Calibration,
    sensitivity: &'a Sensitivity,
    quantize: &'a Quantize,
    /// Whether the embedding is the head, too.
    tied: bool,
    /// Residual stream of the model as quantized so far, `[token][hidden_size]`.
    x: Vec<f32>,
    ready: BTreeMap<String, Made>,
    /// Biases and norms that have been made or changed.
    vectors: BTreeMap<String, Vec<f32>>,
}

/// What the linear layers that share an input are quantized for.
struct Inputs {
    moments: Moments,
    /// Their mean, where biases make up for it: the moments are about it then.
    mean: Option<Vec<f32>>,
    factors: BTreeMap<Group, Option<Factor>>,
}

/// Floats of a large matrix that are held at a time, but at least a panel: 64 MB.
const ROWS: usize = 16 << 20;

impl<'a> Sequential<'a> {
    /// Before the first matrix; `tied`: of a file whose embedding is the head, too.
    ///
    /// # Errors
    /// An embedding that cannot be read.
    pub fn new(
        checkpoint: &'a Checkpoint,
        calibration: &'a Calibration,
        sensitivity: &'a Sensitivity,
        quantize: &'a Quantize,
        tied: bool,
    ) -> Result<Sequential<'a>, Error> {
        Ok(Sequential {
            checkpoint,
            calibration,
            sensitivity,
            quantize,
            tied,
            x: calibration.embed(checkpoint)?,
            ready: BTreeMap::new(),
            vectors: BTreeMap::new(),
        })
    }

    /// Packs the matrix `name`. Matrices must be asked for in the order of a file: the embedding,
    /// then those of each layer, then the head. `layout_of` gives the layouts of a whole layer.
    ///
    /// # Errors
    /// Weights that cannot be read or are not finite.
    pub fn matrix(
        &mut self,
        name: &str,
        layout_of: &dyn Fn(&str) -> Layout,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Made, Error> {
        if let Some(made) = self.ready.remove(name) {
            return Ok(made);
        }
        let index = name
            .strip_prefix("layers.")
            .and_then(|rest| rest.split('.').next());
        if let Some(index) = index.and_then(|index| index.parse().ok()) {
            self.layer(index, layout_of, progress)?;
            let made = self.ready.remove(name);
            return made.ok_or_else(|| {
                Error::source(
                    &self.checkpoint.origin.name,
                    format!("no linear layer {name}"),
                )
            });
        }
        let moments = self.sensitivity.vocabulary(name, self.tied);
        self.tall(name, layout_of(name), &moments, progress)
    }

    /// The bias or norm `name`, where quantizing its layer has made or changed it: it comes after the
    /// matrices of its layer in a file.
    pub fn vector(&mut self, name: &str) -> Option<Vec<f32>> {
        self.vectors.remove(name)
    }

    /// Whether everything that was made has been taken.
    pub fn is_taken(&self) -> bool {
        self.ready.is_empty() && self.vectors.is_empty()
    }

    /// Quantizes the linear layers of block `index` and runs it.
    fn layer(
        &mut self,
        index: usize,
        layout_of: &dyn Fn(&str) -> Layout,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<(), Error> {
        let context = self.calibration.context(&self.checkpoint.config);
        let mut block = Block::read(self.checkpoint, index)?;
        let mut input = vec![];
        for (stage, parts) in STAGES.iter().enumerate() {
            input = block.stage_input(&context, stage, &self.x, &input);
            let weights = &self.sensitivity.token_weights[index][stage];
            let mut inputs = self.inputs(&input, block.dense_mut(parts[0]).inputs, weights);
            let norm = NORMS[stage].filter(|_| self.quantize.norm_correction);
            let mut originals = vec![];
            for part in *parts {
                let name = layer(index, part);
                let dense = block.dense_mut(part);
                if norm.is_some() {
                    originals.push(dense.weights.clone());
                }
                self.small(&name, layout_of, dense, &mut inputs)?;
                progress(dense.weights.len());
            }
            if let Some(norm) = norm {
                self.norm(&layer(index, norm), &mut block, parts, originals, &inputs)?;
            }
            block.add_output(&context, stage, &input, &mut self.x);
        }
        Ok(())
    }

    /// Fits the norm `name` to the layers `parts` that read it, and puts what changes into their
    /// weights, for the layers that follow.
    fn norm(
        &mut self,
        name: &str,
        block: &mut Block,
        parts: &[&str],
        originals: Vec<Vec<f32>>,
        inputs: &Inputs,
    ) -> Result<(), Error> {
        let quantized: Vec<Vec<f32>> = parts
            .iter()
            .map(|part| block.dense_mut(part).weights.clone())
            .collect();
        let quantized = quantized.iter().map(Vec::as_slice);
        let layers: Vec<_> = originals.into_iter().zip(quantized).collect();
        let Some(factors) = norm::factors(&inputs.moments, &layers) else {
            return Ok(());
        };
        let mut weights = self.checkpoint.read(name)?;
        weights.iter_mut().zip(&factors).for_each(|(w, s)| *w *= s);
        self.vectors.insert(name.to_owned(), weights);
        for part in parts {
            for row in block
                .dense_mut(part)
                .weights
                .chunks_exact_mut(factors.len())
            {
                row.iter_mut().zip(&factors).for_each(|(w, s)| *w *= s);
            }
        }
        Ok(())
    }

    /// What rows of `size` inputs, so weighted, say.
    fn inputs(&self, rows: &[f32], size: usize, weights: &[f32]) -> Inputs {
        let biased = self.quantize.bias_correction;
        let mean = biased.then(|| mean(rows, size, weights));
        let mut moments = mean
            .clone()
            .map_or_else(|| Moments::new(size), Moments::about);
        moments.add(rows, Some(weights));
        Inputs {
            moments,
            mean,
            factors: BTreeMap::new(),
        }
    }

    /// Quantizes a matrix in memory, corrects it, and replaces it by what that stands for.
    fn small(
        &mut self,
        name: &str,
        layout_of: &dyn Fn(&str) -> Layout,
        dense: &mut Dense,
        inputs: &mut Inputs,
    ) -> Result<(), Error> {
        let layout = layout_of(name);
        pack::check_finite(name, &dense.weights, layout.cols(), 0)?;
        let Some(group) = layout.kind().group() else {
            let made = pack_floats(name, layout, &mut dense.weights)?;
            self.ready.insert(name.to_owned(), made);
            return Ok(());
        };
        let moments = &inputs.moments;
        let factor = inputs
            .factors
            .entry(group)
            .or_insert_with(|| self.factor(moments, group));
        let kept = self.kept(name, layout, 0..layout.rows())?;
        let kept_grid = kept.is_some();
        let codes = kept.unwrap_or_else(|| self.codes(layout, &dense.weights, factor.as_ref()));
        let original = self.quantize.corrects().then(|| dense.weights.clone());
        let mut made = pack_codes(name, &codes, &mut dense.weights)?;
        made.distance.kept_grid = kept_grid;
        if let Some(original) = original {
            self.correct(name, layout_of, &original, dense, inputs)?;
            made.distance = pack::distance(&dense.weights, &original);
        }
        self.ready.insert(name.to_owned(), made);
        Ok(())
    }

    /// Adds to a quantized layer what brings its outputs back to those of the `original` weights: a
    /// matrix of low rank, then a bias (Nagel et al. 2019) for the mean of what is still missing.
    fn correct(
        &mut self,
        name: &str,
        layout_of: &dyn Fn(&str) -> Layout,
        original: &[f32],
        dense: &mut Dense,
        inputs: &Inputs,
    ) -> Result<(), Error> {
        let cols = dense.inputs;
        let missing = |dense: &Dense| -> Vec<f32> {
            let pairs = original.iter().zip(&dense.weights);
            pairs.map(|(original, w)| original - w).collect()
        };
        if let Some(rank) = self.quantize.rank(dense.outputs(), cols) {
            let low_rank::Correction {
                mut narrow,
                mut widen,
            } = low_rank::correct(&missing(dense), &inputs.moments, rank);
            let names = correction(name);
            for (name, floats) in names.into_iter().zip([&mut narrow, &mut widen]) {
                let layout = layout_of(&name);
                let made = if layout.kind().is_quantized() {
                    pack_codes(&name, &search::quantize(layout, floats, None), floats)?
                } else {
                    pack_floats(&name, layout, floats)?
                };
                self.ready.insert(name, made);
            }
            let weights = view_mut(&mut dense.weights, cols);
            multiply(1.0, view(&widen, rank), view(&narrow, cols), 1.0, weights);
        }
        if let Some(mean) = &inputs.mean {
            let missing = missing(dense);
            let outputs = missing.chunks_exact(cols).map(|row| {
                let products = row.iter().zip(mean);
                products.map(|(w, x)| f64::from(w * x)).sum::<f64>() as f32
            });
            let bias = dense
                .bias
                .get_or_insert_with(|| vec![0.0; layout_of(name).rows()]);
            // Inputs that are not finite say nothing.
            let outputs = bias.iter_mut().zip(outputs).filter(|(_, x)| x.is_finite());
            outputs.for_each(|(bias, x)| *bias += x);
            self.vectors.insert(bias_name(name), bias.clone());
        }
        Ok(())
    }

    /// Quantizes the embedding or the head, some rows at a time.
    fn tall(
        &mut self,
        name: &str,
        layout: Layout,
        moments: &Moments,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Made, Error> {
        let weight = self.checkpoint.weight(name)?;
        let factor = layout
            .kind()
            .group()
            .and_then(|group| self.factor(moments, group));
        let mut made = Made {
            bytes: Vec::with_capacity(layout.bytes()),
            distance: Distance::default(),
        };
        for rows in pack::row_blocks(layout, ROWS) {
            let part = Layout::new(layout.kind(), rows.len(), layout.cols());
            let part = part.map_err(|e| pack::error(name, e))?;
            let mut weights = vec![0.0; rows.len() * layout.cols()];
            weight.read_rows(rows.clone(), &mut weights)?;
            pack::check_finite(name, &weights, layout.cols(), rows.start)?;
            let mut bytes = vec![0; part.bytes()];
            if part.kind().is_quantized() {
                let kept = self.kept(name, part, rows.clone())?;
                made.distance.kept_grid |= kept.is_some();
                let codes = kept.unwrap_or_else(|| self.codes(part, &weights, factor.as_ref()));
                made.distance.merge(pack::codes_distance(&codes, &weights));
                codes
                    .pack_into(&mut bytes)
                    .map_err(|e| pack::error(name, e))?;
                if name == "embed" {
                    self.replace_embedded(&codes, rows.start);
                }
            } else {
                let Made {
                    bytes: packed,
                    distance,
                } = pack_floats(name, part, &mut weights)?;
                bytes = packed;
                made.distance.merge(distance);
            }
            made.bytes.extend(bytes);
            progress(weights.len());
        }
        Ok(made)
    }

    /// Puts the rows `first..` of the quantized embedding in place of the original ones.
    fn replace_embedded(&mut self, codes: &Codes, first: usize) {
        let config = &self.checkpoint.config;
        let rows = first..first + codes.layout().rows();
        let tokens = self.calibration.tokens().iter();
        for (x, &token) in self.x.chunks_exact_mut(config.hidden_size).zip(tokens) {
            if rows.contains(&(token as usize)) {
                for (col, x) in x.iter_mut().enumerate() {
                    *x = codes.weight(token as usize - first, col) * config.embedding_scale;
                }
            }
        }
    }

    /// The source's own codes, where they are to be kept.
    fn kept(
        &self,
        name: &str,
        layout: Layout,
        rows: std::ops::Range<usize>,
    ) -> Result<Option<Codes>, Error> {
        let weight = self.checkpoint.weight(name)?;
        if !self.quantize.keep_grid || weight.grid() != Some(layout.kind()) {
            return Ok(None);
        }
        weight.read_codes(rows)
    }

    /// What GPTQ needs, where that is the method.
    fn factor(&self, moments: &Moments, group: Group) -> Option<Factor> {
        let gptq = self.quantize.method() == Method::Gptq;
        gptq.then(|| Factor::new(moments, group.len())).flatten()
    }

    /// By the method that is asked for, but by plain search where the inputs say nothing (all zero, or
    /// not finite).
    fn codes(&self, layout: Layout, weights: &[f32], factor: Option<&Factor>) -> Codes {
        match (self.quantize.method(), factor) {
            (Method::Gptq, Some(factor)) => gptq::quantize(layout, weights, factor).0,
            (Method::Rtn, _) => rtn::quantize(layout, weights),
            _ => search::quantize(layout, weights, None),
        }
    }
}

/// Packs codes, and replaces the weights by what they stand for.
fn pack_codes(name: &str, codes: &Codes, weights: &mut [f32]) -> Result<Made, Error> {
    let distance = pack::codes_distance(codes, weights);
    for (row, weights) in weights.chunks_exact_mut(codes.layout().cols()).enumerate() {
        for (col, w) in weights.iter_mut().enumerate() {
            *w = codes.weight(row, col);
        }
    }
    let mut bytes = vec![0; codes.layout().bytes()];
    codes
        .pack_into(&mut bytes)
        .map_err(|e| pack::error(name, e))?;
    Ok(Made { bytes, distance })
}

fn pack_floats(name: &str, layout: Layout, weights: &mut [f32]) -> Result<Made, Error> {
    let (bytes, distance) = pack::floats(name, layout, weights, 0)?;
    if layout.kind() == kinglet_kernels::packing::Kind::F16 {
        let round = |w: &mut f32| *w = half::f16::from_f32(*w).to_f32();
        weights.iter_mut().for_each(round);
    }
    Ok(Made { bytes, distance })
}
