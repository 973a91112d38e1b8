//! What the models of a comparison have in common.

use super::rows::Measured;
use super::speed::TEXTS;
use super::{Options, eval_options, lines};
use crate::Error;
use crate::sha256::hex;
use kinglet::Model;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Machine, program and texts.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// Architecture of the models.
    pub architecture: String,
    /// Name of the processor.
    pub cpu: String,
    /// Operating system and machine.
    pub system: String,
    /// Instruction set of the kernels.
    pub isa: &'static str,
    /// Threads.
    pub threads: usize,
    /// Version of kinglet.
    pub version: &'static str,
    /// Name of the text.
    pub text: String,
    /// SHA-256 of its bytes.
    pub text_sha256: String,
    /// Tokens of a window (decoders).
    pub window: usize,
    /// Windows, or texts of an encoder, that quality was measured on.
    pub samples: usize,
    /// Predictions that were scored (decoders).
    pub tokens_scored: Option<usize>,
    /// Names of the judged documents and of their judgements.
    pub similarity: Option<(String, String)>,
    /// SHA-256 of their bytes.
    pub similarity_sha256: Option<(String, String)>,
    /// Tokens of the prompt, or of the one text of an encoder.
    pub prompt: usize,
    /// Tokens generated.
    pub generate: usize,
    /// Runs of each measurement of speed.
    pub repeat: usize,
    /// What is to be said of rows that were measured apart.
    pub notes: Vec<String>,
}

impl Conditions {
    /// What will hold for a measurement on `text`, whose tokens are `tokens`.
    pub(super) fn new(
        model: &Model,
        text: &str,
        tokens: &[u32],
        options: &Options,
    ) -> Result<Conditions, Error> {
        let name = |path: &Path| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            name.to_string_lossy().into_owned()
        };
        let both = |(a, b): &(PathBuf, PathBuf)| Ok::<_, Error>((sha256_of(a)?, sha256_of(b)?));
        let is_encoder = model.config().encoder.is_some();
        let (windows, scored) = eval_options(options).scored(tokens.len());
        Ok(Conditions {
            architecture: model.config().architecture.clone(),
            cpu: cpu(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            isa: model.engine().isa().name(),
            threads: model.engine().pool().threads(),
            version: env!("CARGO_PKG_VERSION"),
            text: name(&options.text),
            text_sha256: sha256(text.as_bytes()),
            window: options.window,
            samples: if is_encoder {
                lines(text).len()
            } else {
                windows
            },
            tokens_scored: (!is_encoder).then_some(scored),
            similarity: options
                .similarity
                .as_ref()
                .map(|(documents, judgements)| (name(documents), name(judgements))),
            similarity_sha256: options.similarity.as_ref().map(both).transpose()?,
            prompt: match &model.config().encoder {
                Some(encoder) => options.prompt.min(encoder.max_tokens),
                None => options.prompt,
            },
            generate: options.generate,
            repeat: options.repeat.max(1),
            notes: vec![],
        })
    }

    /// Whether something was measured under the same conditions.
    ///
    /// # Errors
    /// A sentence that names the first that differs.
    pub(super) fn check(&self, other: &Measured) -> Result<(), String> {
        let decodes = self.tokens_scored.is_some();
        let number = |value: Option<usize>| value.map(|value| value.to_string());
        let hashes = |pair: &Option<(String, String)>| {
            let pair = pair.as_ref();
            pair.map(|(a, b)| format!("{a}, {b}"))
        };
        let fields = [
            ("cpu", Some(self.cpu.clone()), Some(other.cpu.clone())),
            (
                "threads",
                number(Some(self.threads)),
                number(Some(other.threads)),
            ),
            (
                "text_sha256",
                Some(self.text_sha256.clone()),
                Some(other.text_sha256.to_lowercase()),
            ),
            (
                "similarity_sha256",
                hashes(&self.similarity_sha256),
                hashes(&other.similarity_sha256).map(|hashes| hashes.to_lowercase()),
            ),
            (
                "samples",
                number(Some(self.samples)),
                number(Some(other.samples)),
            ),
            (
                "prompt",
                number(Some(self.prompt)),
                number(Some(other.prompt)),
            ),
            (
                "window",
                number(Some(self.window).filter(|_| decodes)),
                number(other.window),
            ),
            (
                "generate",
                number(Some(self.generate).filter(|_| decodes)),
                number(other.generate),
            ),
            (
                "tokens_scored",
                number(self.tokens_scored),
                number(other.tokens_scored),
            ),
        ];
        for (name, expected, found) in fields {
            if found != expected {
                let none = || "none".to_owned();
                return Err(format!(
                    "conditions: {name} is {}, but {} for the models here: measure the rows alike",
                    found.unwrap_or_else(none),
                    expected.unwrap_or_else(none)
                ));
            }
        }
        Ok(())
    }

    /// Sentences for people.
    pub(super) fn sentences(&self) -> Vec<String> {
        let mut sentences = vec![format!(
            "{}, {}; ISA {}, {} {}; kinglet {}.",
            self.cpu,
            self.system,
            self.isa,
            self.threads,
            if self.threads == 1 {
                "thread"
            } else {
                "threads"
            },
            self.version
        )];
        let turns = format!("medians of {} runs, models taking turns", self.repeat);
        match self.tokens_scored {
            Some(scored) => {
                sentences.push(format!(
                    "Quality: {}, {} windows of {} tokens, the second half of each scored ({scored} \
                     predictions); KL divergence and top-1 agreement against the reference.",
                    self.text, self.samples, self.window
                ));
                sentences.push(format!(
                    "Speed: a prompt of {} tokens, then {} generated from an empty context; {turns}. \
                     First token and peak memory: a process of its own that opens the file and runs \
                     the prompt, mapped weights included, page cache warm.",
                    self.prompt, self.generate
                ));
            }
            None => {
                sentences.push(format!(
                    "Quality: cosine to the reference's embeddings of the {} lines of {}{}. Texts \
                     that are too long are cut.",
                    self.samples,
                    self.text,
                    match &self.similarity {
                        Some((documents, judgements)) => format!(
                            "; Spearman's rank correlation of the cosines between the documents of \
                             {documents} with human judgements ({judgements})"
                        ),
                        None => String::new(),
                    }
                ));
                sentences.push(format!(
                    "Speed: the first {} lines from text to vector, all at once and one by one; \
                     {turns}. First vector and peak memory: a process of its own that opens the file \
                     and embeds one text of {} tokens, mapped weights included, page cache warm.",
                    self.samples.min(TEXTS),
                    self.prompt
                ));
            }
        }
        sentences.extend(self.notes.iter().cloned());
        sentences
    }
}

fn sha256_of(path: &Path) -> Result<String, Error> {
    Ok(sha256(
        &std::fs::read(path).map_err(|e| Error::io(path, e))?,
    ))
}

fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

/// The processor as Linux names it, elsewhere its architecture.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        ["model name", "Model", "Hardware"]
            .contains(&key.trim())
            .then(|| value.trim().to_owned())
    });
    named.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
