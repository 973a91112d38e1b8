//! `kinglet info`

use super::args::InfoArgs;
use super::error::CliError;
use super::{load, print, print_json, units};
use crate::config::Pooling;
use crate::error::Error;
use crate::format::{ModelFile, TensorInfo};
use crate::session::cache_bytes;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::topology::Topology;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Tensor<'a> {
    name: &'a str,
    kind: &'a str,
    shape: &'a [usize],
    bytes: usize,
}

#[derive(Default, Serialize)]
struct Kind {
    tensors: usize,
    weights: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Memory {
    context: usize,
    weights: u64,
    kv_cache: u64,
    total: u64,
}

#[derive(Serialize)]
struct Info<'a> {
    file: String,
    file_bytes: u64,
    parameters: u64,
    bits_per_weight: f64,
    config: &'a crate::config::ModelConfig,
    provenance: &'a crate::format::Provenance,
    chat_template: bool,
    kinds: BTreeMap<&'a str, Kind>,
    memory: Memory,
    isa: &'static str,
    available_isas: Vec<&'static str>,
    cores: usize,
    default_threads: usize,
    tensors: Vec<Tensor<'a>>,
}

/// Shows what there is to know.
pub fn run(args: &InfoArgs) -> Result<(), CliError> {
    let file = ModelFile::open(&args.model)?;
    let info = gather(&file, args)?;
    if args.json {
        return print_json(&info);
    }
    print(&text(&info, args.tensors))
}

fn gather<'a>(file: &'a ModelFile, args: &InfoArgs) -> Result<Info<'a>, CliError> {
    let config = file.config();
    let context = load::context_of(config.max_positions, &args.context)?;
    // Encoders keep nothing between texts.
    let kv_cache = match config.encoder {
        Some(_) => Some(0),
        None => cache_bytes(config, args.context.kv, context),
    };
    let kv_cache = kv_cache.ok_or(Error::Context {
        context,
        trained: config.max_positions,
    })?;
    let weights_of = |tensor: &TensorInfo| tensor.shape.iter().product::<usize>() as u64;
    let mut kinds: BTreeMap<&str, Kind> = BTreeMap::new();
    for tensor in file.tensors() {
        let kind = kinds.entry(tensor.kind).or_default();
        kind.tensors += 1;
        kind.weights += weights_of(&tensor);
        kind.bytes += tensor.bytes as u64;
    }
    let parameters = file.parameters();
    let topology = Topology::read();
    let weights: u64 = kinds.values().map(|kind| kind.bytes).sum();
    Ok(Info {
        file: args.model.display().to_string(),
        file_bytes: file.file_bytes(),
        parameters,
        bits_per_weight: 8.0 * file.file_bytes() as f64 / parameters as f64,
        config,
        provenance: &file.header().provenance,
        chat_template: file.chat_template().is_some(),
        kinds,
        memory: Memory {
            context,
            weights,
            kv_cache: kv_cache as u64,
            total: weights.saturating_add(kv_cache as u64),
        },
        isa: Isa::from_env().map_err(Error::from)?.name(),
        available_isas: Isa::available().map(Isa::name).collect(),
        cores: topology.cores().len(),
        default_threads: topology.default_threads(),
        tensors: file
            .tensors()
            .map(|t| Tensor {
                name: t.name,
                kind: t.kind,
                shape: t.shape,
                bytes: t.bytes,
            })
            .collect(),
    })
}

fn text(info: &Info, tensors: bool) -> String {
    let config = info.config;
    let windows = config.layers.iter().filter(|l| l.window.is_some()).count();
    let mut lines = vec![
        (
            "file",
            format!("{}, {}", info.file, units::bytes(info.file_bytes)),
        ),
        (
            "model",
            format!(
                "{}, {} weights, {:.2} bits each, from {}",
                config.architecture,
                units::count(info.parameters),
                info.bits_per_weight,
                info.provenance.source
            ),
        ),
        (
            "layers",
            match windows {
                0 => format!("{}", config.layers.len()),
                n => format!("{}, {n} of them with a sliding window", config.layers.len()),
            },
        ),
        (
            "width",
            format!(
                "{}, feed-forward {}",
                config.hidden_size, config.intermediate_size
            ),
        ),
        (
            "heads",
            format!(
                "{} of {}, keys and values {}",
                config.heads, config.head_dim, config.kv_heads
            ),
        ),
        ("vocabulary", config.vocab_size.to_string()),
        ("trained for", format!("{} positions", config.max_positions)),
        purpose(info),
        ("made by", info.provenance.made_by.clone()),
        (
            "ISA",
            format!("{} (of {})", info.isa, info.available_isas.join(", ")),
        ),
        (
            "threads",
            format!("{} of {} cores", info.default_threads, info.cores),
        ),
        (
            "memory",
            match config.encoder {
                Some(_) => format!("{} for weights", units::bytes(info.memory.weights)),
                None => format!(
                    "{} for weights + {} for a context of {} = {}",
                    units::bytes(info.memory.weights),
                    units::bytes(info.memory.kv_cache),
                    info.memory.context,
                    units::bytes(info.memory.total)
                ),
            },
        ),
    ];
    for (kind, of_kind) in &info.kinds {
        let (count, weights) = (of_kind.tensors, units::count(of_kind.weights));
        let size = units::bytes(of_kind.bytes);
        lines.push((
            "weights",
            format!("{kind}: {count} tensors, {weights} weights, {size}"),
        ));
    }
    let mut text: String = lines
        .iter()
        .map(|(name, value)| format!("{name:<14} {value}\n"))
        .collect();
    if tensors {
        text += "\n";
        for tensor in &info.tensors {
            let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
            text += &format!(
                "{:<28} {:<8} {:>16} {:>10}\n",
                tensor.name,
                tensor.kind,
                shape.join(" × "),
                units::bytes(tensor.bytes as u64)
            );
        }
    }
    text
}

/// What a text becomes: for a decoder, whether it can chat.
fn purpose(info: &Info) -> (&'static str, String) {
    let Some(encoder) = &info.config.encoder else {
        let chats = if info.chat_template { "yes" } else { "no" };
        return ("chat template", chats.to_owned());
    };
    let pooled = match encoder.pooling {
        Pooling::Mean => "mean of the tokens",
        Pooling::Cls => "the first token",
        Pooling::None => "a vector for each token",
    };
    let length = if encoder.normalize {
        ", of length 1"
    } else {
        ""
    };
    let classes = match &encoder.classifier {
        Some(classifier) => format!("; classes {}", classifier.labels.join(", ")),
        None => String::new(),
    };
    let limit = encoder.max_tokens;
    (
        "embedding",
        format!("{pooled}{length}; texts of up to {limit} tokens{classes}"),
    )
}
