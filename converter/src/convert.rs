//! A conversion from end to end: source → checkpoint → packer → file, with its report.

use crate::checkpoint::{Checkpoint, Weight};
use crate::pack::{self, Distance};
use crate::recipe::Recipe;
use crate::report::{Report, TensorReport};
use crate::{Error, source};
use kinglet::format::validate::Stored;
use kinglet::format::{Header, Provenance, WeightInfo, Writer};
use kinglet_kernels::packing::Kind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Program and version, as files name them.
pub(crate) const MADE_BY: &str = concat!("kinglet-convert ", env!("CARGO_PKG_VERSION"));

/// Converts the model at `input` into the file `output`; `progress(done, total)` in weights.
///
/// # Errors
/// A source that cannot be used, a recipe that makes no sense, or a file that cannot be written.
pub fn convert(
    input: &Path,
    output: &Path,
    recipe: &Recipe,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Report, Error> {
    recipe.quantize.kinds()?;
    write(&source::open(input)?, output, recipe, progress)
}

/// Writes a checkpoint into the file `output`, see [`convert`].
///
/// # Errors
/// As [`convert`].
pub fn write(
    checkpoint: &Checkpoint,
    output: &Path,
    recipe: &Recipe,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Report, Error> {
    let start = Instant::now();
    let header = header(checkpoint, recipe)?;
    let mut writer = Writer::create(
        output,
        header.clone(),
        &checkpoint.tokenizer_json,
        checkpoint.chat_template.as_deref(),
    )?;
    let size = |info: &WeightInfo| info.shape.iter().product::<usize>() as u64;
    let total: u64 = header.weights.values().map(size).sum();
    let done = AtomicU64::new(0);
    let progress = |weights: usize| {
        let weights = weights as u64;
        progress(done.fetch_add(weights, Ordering::Relaxed) + weights, total);
    };
    let mut tensors = vec![];
    for planned in writer.plan().to_vec() {
        let name = &planned.name;
        let weight = weight(checkpoint, name)?;
        let distance = match planned.stored {
            Stored::Matrix(layout) => {
                let keep_grid = recipe.quantize.keep_grid;
                pack::matrix(&mut writer, name, layout, weight, keep_grid, &progress)?
            }
            Stored::Vector(_) => {
                pack::vector(&mut writer, name, weight)?;
                Distance::default()
            }
        };
        let info = &header.weights[name];
        tensors.push(TensorReport {
            name: name.clone(),
            shape: info.shape.clone(),
            kind: info.kind.clone(),
            bytes: planned.stored.bytes() as u64,
            relative_error: distance.relative(),
            kept_grid: distance.kept_grid,
            distance,
        });
    }
    let output_bytes = writer.finish()?;
    let parameters = checkpoint.weights.values();
    let parameters = parameters.map(|w| w.shape().iter().product::<usize>() as u64);
    let parameters: u64 = parameters.sum();
    Ok(Report {
        source: checkpoint.origin.name.clone(),
        source_bytes: checkpoint.origin.bytes,
        output: output.display().to_string(),
        output_bytes,
        parameters,
        bits_per_weight: 8.0 * output_bytes as f64 / parameters as f64,
        seconds: start.elapsed().as_secs_f64(),
        tensors,
    })
}

/// The weight that is written under `name`: a tied head is the embedding, packed once more.
fn weight<'a>(checkpoint: &'a Checkpoint, name: &str) -> Result<&'a dyn Weight, Error> {
    let found = checkpoint.weights.get(name);
    let tied = || checkpoint.weights.get("embed").filter(|_| name == "head");
    let weight = found.or_else(tied).ok_or_else(|| {
        let reason = format!("the model lacks the weight {name}");
        Error::source(&checkpoint.origin.name, reason)
    })?;
    Ok(weight.as_ref())
}

fn header(checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Header, Error> {
    let kinds = recipe.quantize.kinds()?;
    let info = |name: &str, shape: &[usize]| {
        let kind = match shape.len() {
            1 => Kind::F32,
            _ => kinds.of(name),
        };
        let info = WeightInfo {
            shape: shape.to_vec(),
            kind: kind.to_string(),
        };
        (name.to_owned(), info)
    };
    let weights = checkpoint.weights.iter();
    let mut weights: std::collections::BTreeMap<_, _> =
        weights.map(|(name, w)| info(name, w.shape())).collect();
    if checkpoint.config.tied_head && kinds.head != kinds.embed {
        let embed = checkpoint.weights.get("embed");
        weights.extend(embed.map(|embed| info("head", embed.shape())));
    }
    Ok(Header {
        config: checkpoint.config.clone(),
        weights,
        tokenizer_bytes: 0,
        chat_template_bytes: 0,
        provenance: Provenance {
            made_by: MADE_BY.to_owned(),
            source: checkpoint.origin.name.clone(),
            source_sha256: checkpoint.origin.sha256.clone(),
            recipe: recipe.to_toml(),
        },
    })
}
