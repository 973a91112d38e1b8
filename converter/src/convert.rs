//! A conversion from end to end: source → checkpoint → packer → file, with its report.

use crate::calibrate::{self, Calibration};
use crate::checkpoint::Checkpoint;
use crate::pack::{self, Distance};
use crate::quantize::low_rank;
use crate::quantize::sequential::Sequential;
use crate::recipe::{Kinds, Method, Quantize, Recipe};
use crate::report::{Report, TensorReport};
use crate::{Error, passes, plan, source};
use kinglet::format::names::{Projection, bias_name, correction, projections};
use kinglet::format::validate::Stored;
use kinglet::format::{Activations, Header, Planned, Provenance, WeightInfo, Writer};
use kinglet::output::Output;
use kinglet_kernels::packing::{Kind, Layout};
use std::collections::{BTreeMap, BTreeSet};
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
    recipe.kinds()?;
    Output::check(output)?;
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
    let wanted = recipe.kinds()?;
    // As it is carried out, for the file to say so.
    let mut recipe = recipe.clone();
    let parameters = parameters(checkpoint);
    let budget = recipe.quantize.budget(parameters)?;
    let likely = match budget {
        Some((_, bytes)) => wanted.of_size(8.0 * bytes as f64 / parameters as f64),
        None => wanted,
    };
    let is_encoder = checkpoint.config.encoder.is_some();
    let awq = recipe.awq(&likely) && (recipe.passes.awq.is_some() || !is_encoder);
    if awq {
        recipe.passes.awq = Some(true);
    }
    let (recipe, quantize) = (&recipe, &recipe.quantize);
    let mut kinds = kinds_of(checkpoint, &wanted);
    let measured_for = quantize.calibrated_for();
    let calibrated_for = measured_for.or(awq.then_some("awq"));
    let method = method(checkpoint, quantize.method(), calibrated_for)?;
    check_corrections(quantize, budget.is_some())?;
    let sequential = method == Method::Gptq || quantize.corrects() || quantize.norm_correction;
    let calibrates =
        measured_for.is_some() || sequential && kinds.values().any(|k| k.is_quantized());
    let matrices = checkpoint.weights.values().filter(|w| w.shape().len() == 2);
    let total: u64 = matrices
        .map(|w| w.shape().iter().product::<usize>() as u64)
        .sum();
    // Calibration runs the weights forward and backward, then they are quantized.
    let times = if calibrates { 3 } else { 1 };
    let total = total * (times + u64::from(awq));
    let done = AtomicU64::new(0);
    let progress = |weights: usize| {
        let done = done.fetch_add(weights as u64, Ordering::Relaxed) + weights as u64;
        progress(done.min(total), total);
    };
    let passed = passes::apply(checkpoint, recipe, &likely, method, &progress)?;
    let untied = checkpoint.config.tied_head && !passed.config.tied_head;
    let checkpoint = &*passed;
    if untied {
        kinds = kinds_of(checkpoint, &wanted);
    }
    let calibrated = if calibrates {
        let text = quantize.calibration_text()?;
        let calibration = Calibration::new(checkpoint, &text, quantize.windows)?;
        let sensitivity = calibrate::measure(checkpoint, &calibration, &progress)?;
        Some((calibration, sensitivity))
    } else {
        None
    };
    if let (Some((flag, budget)), Some((calibration, sensitivity))) = (budget, &calibrated) {
        let file_bytes = |kinds: &BTreeMap<String, Kind>| file_bytes(checkpoint, recipe, kinds);
        let tokens = calibration.tokens();
        kinds = plan::allocate(checkpoint, sensitivity, tokens, flag, budget, &file_bytes)?;
    }
    let twice = match &calibrated {
        Some((calibration, sensitivity)) if quantize.precise => {
            plan::precise(checkpoint, sensitivity, calibration.tokens(), &kinds)?
        }
        _ => BTreeSet::new(),
    };
    let sequential = match &calibrated {
        Some((calibration, sensitivity)) if sequential => Some(Sequential::new(
            checkpoint,
            calibration,
            sensitivity,
            quantize,
            plan::is_tied(checkpoint, &kinds),
        )?),
        _ => None,
    };
    let mut writer = Writer::create(
        output,
        header(checkpoint, recipe, &kinds, &twice),
        &checkpoint.tokenizer_json,
        checkpoint.chat_template.as_deref(),
    )?;
    let mut packer = Packer {
        checkpoint,
        sequential,
        method,
        keep_grid: quantize.keep_grid,
        progress: &progress,
    };
    let tensors = packer.write(&mut writer)?;
    let output_bytes = writer.finish()?;
    let head = tensors.iter().find(|tensor| tensor.name == "head");
    Ok(Report {
        source: checkpoint.origin.name.clone(),
        source_bytes: checkpoint.origin.bytes,
        output: output.display().to_string(),
        output_bytes,
        parameters,
        bits_per_weight: 8.0 * output_bytes as f64 / parameters as f64,
        precise: twice.len(),
        head_beside: head.filter(|_| untied).map(|head| head.bytes),
        seconds: start.elapsed().as_secs_f64(),
        tensors,
    })
}

/// Bytes of a file of these kinds, at most.
fn file_bytes(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    kinds: &BTreeMap<String, Kind>,
) -> Result<u64, Error> {
    let template = checkpoint.chat_template.as_ref().map_or(0, String::len);
    let twice: BTreeSet<String> = match recipe.quantize.precise {
        true => kinds.keys().cloned().collect(),
        false => BTreeSet::new(),
    };
    let header = header(checkpoint, recipe, kinds, &twice);
    let tokenizer = checkpoint.tokenizer_json.len();
    Ok(Writer::file_bytes(header, tokenizer, template)?)
}

/// The method that applies to this model: encoders are not calibrated.
fn method(
    checkpoint: &Checkpoint,
    method: Method,
    calibrated_for: Option<&'static str>,
) -> Result<Method, Error> {
    match (&checkpoint.config.encoder, calibrated_for, method) {
        (Some(_), Some(flag), _) => Err(Error::Setting {
            flag,
            reason: "an encoder cannot be calibrated: leave it out, and choose kinds by --quant \
                     and --embed"
                .to_owned(),
        }),
        (Some(_), None, Method::Gptq) => Ok(Method::Search),
        (_, _, method) => Ok(method),
    }
}

/// Whether there is anything to correct.
fn check_corrections(quantize: &Quantize, sized: bool) -> Result<(), Error> {
    let flag = if quantize.low_rank > 0 {
        "low-rank"
    } else if quantize.bias_correction {
        "bias-correction"
    } else {
        "norm-correction"
    };
    let layers = quantize.kinds()?.layers;
    let reason = if !quantize.corrects() && !quantize.norm_correction {
        return Ok(());
    } else if quantize.norm_correction && quantize.corrects() {
        "is fitted to inputs that --norm-correction changes: leave out one of them".to_owned()
    } else if quantize.keep_grid {
        "weights that keep their grid lose nothing: leave out one of this and --keep-grid"
            .to_owned()
    } else if !sized && !layers.is_quantized() {
        format!("layers of {layers} have nothing to correct: choose --quant q8, q6, q5, q4 or q3")
    } else {
        return Ok(());
    };
    Err(Error::Setting { flag, reason })
}

/// How the tensors of a file are made.
struct Packer<'a> {
    checkpoint: &'a Checkpoint,
    /// Makes the matrices, where they are calibrated.
    sequential: Option<Sequential<'a>>,
    method: Method,
    keep_grid: bool,
    progress: &'a (dyn Fn(usize) + Sync),
}

impl Packer<'_> {
    /// Writes every tensor that the file plans, in its order.
    fn write(&mut self, writer: &mut Writer) -> Result<Vec<TensorReport>, Error> {
        let plan = writer.plan().to_vec();
        let mut tensors = vec![];
        for planned in &plan {
            let distance = self.tensor(writer, planned, &plan)?;
            let (kind, shape) = match planned.stored {
                Stored::Matrix(layout) => (layout.kind(), vec![layout.rows(), layout.cols()]),
                Stored::Vector(len) => (Kind::F32, vec![len]),
            };
            tensors.push(TensorReport {
                name: planned.name.clone(),
                shape,
                kind: kind.to_string(),
                bytes: planned.stored.bytes() as u64,
                relative_error: distance.relative(),
                kept_grid: distance.kept_grid,
                distance,
            });
        }
        let taken = self.sequential.as_ref().is_none_or(Sequential::is_taken);
        assert!(taken, "a tensor was written before it was made");
        Ok(tensors)
    }

    fn tensor(
        &mut self,
        writer: &mut Writer,
        planned: &Planned,
        plan: &[Planned],
    ) -> Result<Distance, Error> {
        let name = &planned.name;
        match (planned.stored, &mut self.sequential) {
            (Stored::Matrix(_), Some(sequential)) => {
                let made = sequential.matrix(name, &|name| layout_of(plan, name), self.progress)?;
                writer.write(&made.bytes)?;
                Ok(made.distance)
            }
            (Stored::Matrix(layout), None) => pack::matrix(
                writer,
                name,
                layout,
                self.checkpoint.weight(name)?,
                self.method,
                self.keep_grid,
                self.progress,
            ),
            (Stored::Vector(_), sequential) => {
                match sequential.as_mut().and_then(|s| s.vector(name)) {
                    Some(vector) => writer.write_vector(&vector)?,
                    None => pack::vector(writer, name, self.checkpoint.weight(name)?)?,
                }
                Ok(Distance::default())
            }
        }
    }
}

fn layout_of(plan: &[Planned], name: &str) -> Layout {
    let planned = plan.iter().find(|planned| planned.name == name);
    match planned.map(|planned| planned.stored) {
        Some(Stored::Matrix(layout)) => layout,
        _ => panic!("{name} is not among the matrices of the file"),
    }
}

/// Weights of the model, a head beside a tied embedding not counted.
fn parameters(checkpoint: &Checkpoint) -> u64 {
    let weights = checkpoint.weights.values();
    weights
        .map(|w| w.shape().iter().product::<usize>() as u64)
        .sum()
}

/// The kind of every matrix that the file will have.
fn kinds_of(checkpoint: &Checkpoint, kinds: &Kinds) -> BTreeMap<String, Kind> {
    let matrices = checkpoint
        .weights
        .iter()
        .filter(|(_, w)| w.shape().len() == 2);
    let mut all: BTreeMap<String, Kind> = matrices
        .map(|(name, _)| (name.clone(), kinds.of(name)))
        .collect();
    if checkpoint.config.tied_head && kinds.head != kinds.embed {
        all.insert("head".to_owned(), kinds.head);
    }
    all
}

/// The header of a file of these kinds, where the matrices in `twice` take their inputs as two INT8.
fn header(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    kinds: &BTreeMap<String, Kind>,
    twice: &BTreeSet<String>,
) -> Header {
    let info = |name: &String, shape: &[usize]| {
        let kind = kinds.get(name).copied().unwrap_or(Kind::F32);
        let info = WeightInfo {
            shape: shape.to_vec(),
            kind: kind.to_string(),
            activations: match twice.contains(name) {
                true => Activations::Q8x2,
                false => Activations::Q8,
            },
        };
        (name.clone(), info)
    };
    let weights = checkpoint.weights.iter();
    let mut weights: BTreeMap<_, _> = weights.map(|(name, w)| info(name, w.shape())).collect();
    if let (Some(_), Some(embed)) = (kinds.get("head"), checkpoint.weights.get("embed")) {
        weights.extend([info(&"head".to_owned(), embed.shape())]);
    }
    weights.extend(corrections(checkpoint, &recipe.quantize, kinds));
    Header {
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
    }
}

/// What corrects the linear layers of quantized kinds.
fn corrections(
    checkpoint: &Checkpoint,
    quantize: &Quantize,
    kinds: &BTreeMap<String, Kind>,
) -> Vec<(String, WeightInfo)> {
    let mut all = vec![];
    let mut add = |name: String, shape: &[usize], kind: Kind| {
        let info = WeightInfo {
            shape: shape.to_vec(),
            kind: kind.to_string(),
            activations: Activations::Q8,
        };
        all.push((name, info));
    };
    for Projection { name, shape, .. } in projections(&checkpoint.config) {
        if !kinds[&name].is_quantized() {
            continue;
        }
        let [outputs, inputs] = shape;
        if let Some(rank) = quantize.rank(outputs, inputs) {
            let sides = [[rank, inputs], [outputs, rank]];
            for (name, [rows, cols]) in correction(&name).into_iter().zip(sides) {
                add(name, &[rows, cols], low_rank::layout(rows, cols).kind());
            }
        }
        if quantize.bias_correction {
            add(bias_name(&name), &[outputs], Kind::F32);
        }
    }
    all
}
