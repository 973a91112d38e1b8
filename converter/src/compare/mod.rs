//! Variants of a model beside each other: size, speed, memory and quality, by one protocol, so that
//! a person can decide.

mod conditions;
mod html;
mod plot;
mod probe;
mod quality;
mod rows;
mod speed;
mod table;

pub use conditions::Conditions;
pub use probe::{Probe, probe};
pub use quality::{Cosines, EncoderQuality, Quality};
pub use speed::Speed;

use crate::Error;
use kinglet::Model;
use kinglet::eval::EvalOptions;
use kinglet::format::{ModelFile, Provenance};
use kinglet::output;
use kinglet::similarity::Judgements;
use kinglet_kernels::Engine;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::kv::KvKind;
use kinglet_kernels::pool::ThreadPool;
use kinglet_kernels::topology::Topology;
use quality::Samples;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How models are compared.
#[derive(Clone, Debug)]
pub struct Options {
    /// The text that quality is measured on, a UTF-8 file; an encoder embeds its lines.
    pub text: PathBuf,
    /// Documents, one per line, and how alike people find them: for encoders.
    pub similarity: Option<(PathBuf, PathBuf)>,
    /// Tokens of a window, see [`kinglet::eval`].
    pub window: usize,
    /// The most windows; `None`: the whole text.
    pub windows: Option<usize>,
    /// Files with rows of other engines, measured apart by the same protocol: JSON as
    /// `converter/src/compare/rows.rs` describes it.
    pub rows: Vec<PathBuf>,
    /// Tokens of the prompt that speed is measured with.
    pub prompt: usize,
    /// Tokens that are generated for it.
    pub generate: usize,
    /// Runs, of which the median counts; models take turns.
    pub repeat: usize,
    /// Threads; `None`: the performance cores.
    pub threads: Option<usize>,
    /// How a program is started that does [`probe()`] in a process of its own, with the model's path,
    /// the number of threads and the length of the prompt after these arguments; without, peak
    /// memory stays unknown.
    pub prober: Option<Vec<String>>,
}

/// The comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What all models have in common.
    pub conditions: Conditions,
    /// The reference, then the variants in their order, then rows of other engines.
    pub models: Vec<Entry>,
}

/// What was found of one model.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The file's name without its ending.
    pub name: String,
    /// The engine that ran it, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The file.
    pub file: String,
    /// Its bytes.
    pub bytes: u64,
    /// Weights of the model.
    pub parameters: u64,
    /// Bits of the file per weight.
    pub bits_per_weight: f64,
    /// Kinds of its matrices, the one with most weights first.
    pub kinds: Vec<String>,
    /// How fast it is.
    pub speed: Speed,
    /// Most memory that it took, mapped weights included, in a process of its own.
    pub peak_memory: Option<u64>,
    /// Seconds from opening the file to the first token or vector, in that process.
    pub first_result_seconds: f64,
    /// How good it is.
    pub quality: Quality,
    /// How the file was made, where it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// Compares variants with a reference; `notify` hears what happens, a line at a time.
///
/// # Errors
/// Files that cannot be used, or that have not the same tokens; a text that is too short; rows
/// measured under other conditions.
pub fn compare(
    reference: &Path,
    variants: &[PathBuf],
    options: &Options,
    notify: &dyn Fn(&str),
) -> Result<Comparison, Error> {
    let threads = options
        .threads
        .unwrap_or_else(|| Topology::read().default_threads());
    let paths = std::iter::once(reference).chain(variants.iter().map(PathBuf::as_path));
    let paths: Vec<&Path> = paths.collect();
    let open = |path: &&Path| {
        let isa = Isa::from_env().map_err(kinglet::Error::from)?;
        let engine = Engine::new(isa, ThreadPool::new(threads));
        Ok(Model::new(ModelFile::open(path)?, engine)?)
    };
    let models: Vec<Model> = paths.iter().map(open).collect::<Result<_, Error>>()?;
    let text = read(&options.text)?;
    let judged = judged(options)?;
    let tokens = quality::same_tokens(&models, &text)?;
    quality::enough(&models[0], &text, &tokens, options)?;
    let mut conditions = Conditions::new(&models[0], &text, &tokens, options)?;
    let mut others = vec![];
    for path in &options.rows {
        let parameters = models[0].file().parameters();
        let (entries, notes) = rows::read(path, &conditions, parameters)?;
        others.extend(entries);
        conditions.notes.extend(notes);
    }

    let mut probes = vec![];
    for path in &paths {
        notify(&format!("{}: memory and time to start", path.display()));
        probes.push(probe_apart(path, threads, options)?);
    }
    notify("speed, models taking turns");
    let speeds = speed::measure(&models, &text, options)?;
    let samples = Samples {
        text: &text,
        tokens: &tokens,
        judged: judged.as_ref(),
    };
    let qualities = quality::measure(&models, &samples, options, &|model| {
        notify(&format!("{}: quality", model.file().path().display()));
    })?;
    let measured = speeds.into_iter().zip(probes).zip(qualities);
    let entries = models.iter().zip(measured).map(|(model, measured)| {
        let ((speed, probe), quality) = measured;
        Entry::new(model, speed, probe, quality)
    });
    Ok(Comparison {
        conditions,
        models: entries.chain(others).collect(),
    })
}

/// The names of a report's files.
const FILES: [&str; 3] = ["report.md", "report.html", "report.json"];

impl Comparison {
    /// Whether [`Comparison::write`] can write into a folder that is there.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(folder: &Path) -> Result<(), Error> {
        if folder.exists() {
            for name in FILES {
                output::Output::check(&folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Writes `report.md`, `report.html` (one file, with its plots) and `report.json` into a folder.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let json = serde_json::to_string_pretty(self).expect("plain data") + "\n";
        for (name, contents) in FILES.into_iter().zip([self.markdown(), self.html(), json]) {
            let path = folder.join(name);
            output::write(&path, contents.as_bytes())?;
        }
        Ok(())
    }

    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        table::markdown(self)
    }

    /// The report as one HTML page.
    pub fn html(&self) -> String {
        html::page(self)
    }
}

impl Entry {
    fn new(model: &Model, speed: Speed, probe: Probe, quality: Quality) -> Entry {
        let file = model.file();
        let mut kinds: Vec<(String, usize)> = vec![];
        for tensor in file.tensors().filter(|tensor| tensor.shape.len() == 2) {
            let weights = tensor.shape.iter().product::<usize>();
            match kinds.iter_mut().find(|(kind, _)| kind == tensor.kind) {
                Some((_, sum)) => *sum += weights,
                None => kinds.push((tensor.kind.to_owned(), weights)),
            }
        }
        kinds.sort_by_key(|(_, weights)| std::cmp::Reverse(*weights));
        let stem = file.path().file_stem().unwrap_or_default();
        Entry {
            name: stem.to_string_lossy().into_owned(),
            engine: None,
            file: file.path().display().to_string(),
            bytes: file.file_bytes(),
            parameters: file.parameters(),
            bits_per_weight: 8.0 * file.file_bytes() as f64 / file.parameters() as f64,
            kinds: kinds.into_iter().map(|(kind, _)| kind).collect(),
            speed,
            peak_memory: probe.peak_memory,
            first_result_seconds: probe.first_result_seconds,
            quality,
            provenance: Some(file.header().provenance.clone()),
        }
    }
}

/// Runs the prober, or without one [`probe()`] here, where memory is not the model's alone.
fn probe_apart(path: &Path, threads: usize, options: &Options) -> Result<Probe, Error> {
    let Some([program, arguments @ ..]) = options.prober.as_deref() else {
        let probe = probe(path, threads, options.prompt)?;
        return Ok(Probe {
            peak_memory: None,
            ..probe
        });
    };
    let output = Command::new(program)
        .args(arguments)
        .arg(path)
        .args([threads.to_string(), options.prompt.to_string()])
        .output()
        .map_err(|e| Error::io(program, e))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(Error::source(
            path,
            format!("running it alone: {}", said.trim()),
        ));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| Error::source(path, format!("running it alone: {e}")))
}

/// Documents and judgements, if there are any.
fn judged(options: &Options) -> Result<Option<(Vec<String>, Judgements)>, Error> {
    let Some((documents_path, judgements_path)) = &options.similarity else {
        return Ok(None);
    };
    // Some collections, that of Lee et al. among them, have stray bytes in other encodings.
    let documents = std::fs::read(documents_path).map_err(|e| Error::io(documents_path, e))?;
    let documents = lines(&String::from_utf8_lossy(&documents));
    let judgements = Judgements::parse(&read(judgements_path)?)
        .map_err(|reason| Error::source(judgements_path, reason))?;
    if documents.len() != judgements.documents() {
        let reason = format!(
            "{} documents, but {} are judged in {}",
            documents.len(),
            judgements.documents(),
            judgements_path.display()
        );
        return Err(Error::source(documents_path, reason));
    }
    Ok(Some((documents, judgements)))
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| Error::io(path, e))
}

/// Lines that are not empty.
fn lines(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(str::to_owned).collect()
}

/// Windows as the evaluation takes them.
fn eval_options(options: &Options) -> EvalOptions {
    EvalOptions {
        window: options.window,
        windows: options.windows,
        kv: KvKind::default(),
    }
}
