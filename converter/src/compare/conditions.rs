//! What the models of a comparison have in common.

use super::speed::TEXTS;
use super::{Entry, Options, Quality};
use kinglet::Model;
use serde::Serialize;
use std::path::Path;

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
    /// Tokens of a window (decoders).
    pub window: usize,
    /// Windows, or texts of an encoder, that quality was measured on.
    pub samples: usize,
    /// Predictions that were scored (decoders).
    pub tokens_scored: Option<usize>,
    /// Names of the judged documents and of their judgements.
    pub similarity: Option<(String, String)>,
    /// Tokens of the prompt, or of the one text of an encoder.
    pub prompt: usize,
    /// Tokens generated.
    pub generate: usize,
    /// Runs of each measurement of speed.
    pub repeat: usize,
}

impl Conditions {
    pub(super) fn new(model: &Model, reference: &Entry, options: &Options) -> Conditions {
        let name = |path: &Path| {
            let name = path.file_name().unwrap_or(path.as_os_str());
            name.to_string_lossy().into_owned()
        };
        let (samples, tokens_scored) = match &reference.quality {
            Quality::Decoder(evaluation) => (evaluation.windows, Some(evaluation.tokens_scored)),
            Quality::Encoder(quality) => (quality.texts, None),
        };
        Conditions {
            architecture: model.config().architecture.clone(),
            cpu: cpu(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            isa: model.engine().isa().name(),
            threads: model.engine().pool().threads(),
            version: env!("CARGO_PKG_VERSION"),
            text: name(&options.text),
            window: options.window,
            samples,
            tokens_scored,
            similarity: options
                .similarity
                .as_ref()
                .map(|(documents, judgements)| (name(documents), name(judgements))),
            prompt: match &model.config().encoder {
                Some(encoder) => options.prompt.min(encoder.max_tokens),
                None => options.prompt,
            },
            generate: options.generate,
            repeat: options.repeat.max(1),
        }
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
        sentences
    }
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
