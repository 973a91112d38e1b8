//! Quantizes a model front to back: each layer for the inputs that the layers before it, as they
//! were quantized, give it.

use super::gptq::{self, Factor};
use crate::Error;
use crate::calibrate::dense::{Dense, Moments};
use crate::calibrate::{Block, Calibration, STAGES, Sensitivity};
use crate::checkpoint::Checkpoint;
use crate::pack::{self, Distance};
use kinglet::format::names::layer;
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
    keep_grid: bool,
    /// Residual stream of the model as quantized so far, `[token][hidden_size]`.
    x: Vec<f32>,
    ready: BTreeMap<String, Made>,
}

/// Floats of a large matrix that are held at a time, but at least a panel: 64 MB.
const ROWS: usize = 16 << 20;

impl<'a> Sequential<'a> {
    /// Before the first matrix.
    ///
    /// # Errors
    /// An embedding that cannot be read.
    pub fn new(
        checkpoint: &'a Checkpoint,
        calibration: &'a Calibration,
        sensitivity: &'a Sensitivity,
        keep_grid: bool,
    ) -> Result<Sequential<'a>, Error> {
        Ok(Sequential {
            checkpoint,
            calibration,
            sensitivity,
            keep_grid,
            x: calibration.embed(checkpoint)?,
            ready: BTreeMap::new(),
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
        let tied = self.checkpoint.config.tied_head;
        let moments = self.sensitivity.vocabulary(name, tied);
        self.tall(name, layout_of(name), &moments, progress)
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
            let mut moments = Moments::new(block.dense_mut(parts[0]).inputs);
            let weights = &self.sensitivity.token_weights[index][stage];
            moments.add(&input, Some(weights));
            let mut factors = BTreeMap::new();
            for part in *parts {
                let name = layer(index, part);
                let layout = layout_of(&name);
                let dense = block.dense_mut(part);
                let made = self.small(&name, layout, dense, &moments, &mut factors)?;
                progress(dense.weights.len());
                self.ready.insert(name, made);
            }
            block.add_output(&context, stage, &input, &mut self.x);
        }
        Ok(())
    }

    /// Quantizes a matrix in memory and replaces it by what its codes stand for.
    fn small(
        &self,
        name: &str,
        layout: Layout,
        dense: &mut Dense,
        moments: &Moments,
        factors: &mut BTreeMap<Group, Option<Factor>>,
    ) -> Result<Made, Error> {
        pack::check_finite(name, &dense.weights, layout.cols(), 0)?;
        let Some(group) = layout.kind().group() else {
            return pack_floats(name, layout, &mut dense.weights);
        };
        let factor = factors
            .entry(group)
            .or_insert_with(|| Factor::new(moments, group.len()));
        let kept = self.kept(name, layout, 0..layout.rows())?;
        let kept_grid = kept.is_some();
        let codes = kept.unwrap_or_else(|| quantize(layout, &dense.weights, factor.as_ref()));
        let mut distance = pack::codes_distance(&codes, &dense.weights);
        distance.kept_grid = kept_grid;
        for (row, weights) in dense.weights.chunks_exact_mut(layout.cols()).enumerate() {
            for (col, w) in weights.iter_mut().enumerate() {
                *w = codes.weight(row, col);
            }
        }
        let mut bytes = vec![0; layout.bytes()];
        codes
            .pack_into(&mut bytes)
            .map_err(|e| pack::error(name, e))?;
        Ok(Made { bytes, distance })
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
            .and_then(|group| Factor::new(moments, group.len()));
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
                let codes = kept.unwrap_or_else(|| quantize(part, &weights, factor.as_ref()));
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
        if !self.keep_grid || weight.grid() != Some(layout.kind()) {
            return Ok(None);
        }
        weight.read_codes(rows)
    }
}

/// By GPTQ, or by plain search where the inputs say nothing (all zero, or not finite).
fn quantize(layout: Layout, weights: &[f32], factor: Option<&Factor>) -> Codes {
    match factor {
        Some(factor) => gptq::quantize(layout, weights, factor).0,
        None => super::search::quantize(layout, weights, None),
    }
}

fn pack_floats(name: &str, layout: Layout, weights: &mut [f32]) -> Result<Made, Error> {
    let (bytes, distance) = pack::floats(name, layout, weights, 0)?;
    if layout.kind() == kinglet_kernels::packing::Kind::F16 {
        let round = |w: &mut f32| *w = half::f16::from_f32(*w).to_f32();
        weights.iter_mut().for_each(round);
    }
    Ok(Made { bytes, distance })
}
