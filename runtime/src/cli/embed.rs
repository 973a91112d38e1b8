//! `kinglet embed` and `kinglet classify`

use super::args::{ClassifyArgs, EmbedArgs, TextArgs};
use super::error::CliError;
use super::{load, print, print_json};
use crate::bench::{EmbedBench, Spread};
use crate::config::Pooling;
use crate::encoder::{EmbedOptions, Encoder};
use crate::error::Error;
use crate::model::Model;
use serde::{Serialize, Serializer};
use serde_json::json;
use std::io::{self, Read};

/// Texts that are run before their lines are written.
const LINES: usize = 64;

/// Prints one JSON object with the embedding of each text.
pub fn run(args: &EmbedArgs) -> Result<(), CliError> {
    let model = load::model(&args.model)?;
    let mut encoder = model.encoder()?;
    let texts = texts(&args.texts)?;
    let options = EmbedOptions {
        pooling: args.pooling.map(Into::into),
        normalize: args.normalize,
        truncate: args.texts.truncate,
    };
    if args.bench {
        return bench(args, &model, encoder, &texts, options);
    }
    let sequences = encoder.tokenize(&texts, args.texts.truncate)?;
    let hidden = model.config().hidden_size;
    let own = model
        .config()
        .encoder
        .as_ref()
        .map(|encoder| encoder.pooling);
    let each_token = options.pooling.or(own) == Some(Pooling::None);
    for (texts, sequences) in texts.chunks(LINES).zip(sequences.chunks(LINES)) {
        let embeddings = encoder.embed_tokens(sequences, &options)?;
        let lines = texts.iter().zip(&embeddings).map(|(text, embedding)| {
            let values = embedding.values.as_slice();
            line(&EmbedLine {
                text: (!args.texts.no_text).then_some(text),
                embedding: match each_token {
                    true => Vectors::EachToken(values.chunks_exact(hidden).collect()),
                    false => Vectors::Text(values),
                },
            })
        });
        print(&lines.collect::<String>())?;
    }
    Ok(())
}

/// Prints one JSON object with the scores of each text, or of each pair.
pub fn classify(args: &ClassifyArgs) -> Result<(), CliError> {
    let model = load::model(&args.model)?;
    let mut encoder = model.encoder()?;
    let texts = texts(&args.texts)?;
    let truncate = args.texts.truncate;
    let (sequences, shown): (_, Vec<(&str, Option<&str>)>) = match args.pair {
        true => {
            let pairs = pairs(&texts, !args.texts.texts.is_empty())?;
            let shown = pairs.iter().map(|&(first, second)| (first, Some(second)));
            (encoder.tokenize_pairs(&pairs, truncate)?, shown.collect())
        }
        false => {
            let shown = texts.iter().map(|text| (text.as_str(), None));
            (encoder.tokenize(&texts, truncate)?, shown.collect())
        }
    };
    let labels = encoder.labels();
    for (shown, sequences) in shown.chunks(LINES).zip(sequences.chunks(LINES)) {
        let scores = encoder.classify_tokens(sequences)?;
        let lines = shown.iter().zip(&scores).map(|(&(text, pair), scores)| {
            let best = (0..scores.len()).fold(0, |a, b| if scores[b] > scores[a] { b } else { a });
            line(&ClassLine {
                text: (!args.texts.no_text).then_some(text),
                pair: pair.filter(|_| !args.texts.no_text),
                label: &labels[best],
                scores: Scores(labels, scores),
            })
        });
        print(&lines.collect::<String>())?;
    }
    Ok(())
}

/// Pairs of texts: two arguments each, or lines with a tab between the two.
fn pairs(texts: &[String], arguments: bool) -> Result<Vec<(&str, &str)>, CliError> {
    if arguments {
        let (pairs, rest) = texts.as_chunks();
        if !rest.is_empty() {
            let found = texts.len();
            let reason = format!("--pair: {found} texts: expected two for each pair");
            return Err(CliError::Usage(reason));
        }
        return Ok(pairs
            .iter()
            .map(|[a, b]| (a.as_str(), b.as_str()))
            .collect());
    }
    let mut pairs = vec![];
    for (index, line) in texts.iter().enumerate() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [first, second] = columns[..] else {
            return Err(CliError::Usage(format!(
                "--pair: line {} has {} tabs: expected two texts with one tab between",
                index + 1,
                columns.len() - 1
            )));
        };
        pairs.push((first, second));
    }
    Ok(pairs)
}

#[derive(Serialize)]
struct EmbedLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a String>,
    embedding: Vectors<'a>,
}

/// A list of numbers, or of one such list for each token.
#[derive(Serialize)]
#[serde(untagged)]
enum Vectors<'a> {
    Text(&'a [f32]),
    EachToken(Vec<&'a [f32]>),
}

#[derive(Serialize)]
struct ClassLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pair: Option<&'a str>,
    label: &'a str,
    scores: Scores<'a>,
}

/// An object with the score of each label.
struct Scores<'a>(&'a [String], &'a [f32]);

impl Serialize for Scores<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data") + "\n"
}

/// The texts of the command line, of a file, or of standard input.
fn texts(args: &TextArgs) -> Result<Vec<String>, CliError> {
    let lines = |text: String| text.lines().map(str::to_owned).collect();
    let texts: Vec<String> = if !args.texts.is_empty() {
        args.texts.clone()
    } else if let Some(file) = &args.file {
        lines(std::fs::read_to_string(file).map_err(|e| Error::io(file, e))?)
    } else {
        let mut text = vec![];
        let read = io::stdin().read_to_end(&mut text);
        read.map_err(CliError::Input)?;
        let text = String::from_utf8(text);
        lines(text.map_err(|e| CliError::Usage(format!("standard input: {e}")))?)
    };
    if texts.is_empty() {
        return Err(CliError::Usage(
            "there is no text: give some as arguments, with --file, or on standard input, \
             one per line"
                .to_owned(),
        ));
    }
    Ok(texts)
}

/// Measures how long the texts take, from text to vectors, and prints it as JSON.
fn bench(
    args: &EmbedArgs,
    model: &Model,
    encoder: Encoder,
    texts: &[String],
    options: EmbedOptions,
) -> Result<(), CliError> {
    if args.repeat == 0 {
        return Err(CliError::Usage("--repeat 0: expected 1 or more".to_owned()));
    }
    let batch = args.batch.unwrap_or(texts.len());
    if batch == 0 {
        return Err(CliError::Usage("--batch 0: expected 1 or more".to_owned()));
    }
    let mut bench = EmbedBench::new(encoder, texts, batch, options)?;
    let runs = (0..args.repeat).map(|_| bench.run());
    let seconds = Spread::of(&runs.collect::<Result<Vec<f64>, _>>()?);
    print_json(&json!({
        "model": model.file().path().display().to_string(),
        "file_bytes": model.file().file_bytes(),
        "isa": model.engine().isa().name(),
        "threads": model.engine().pool().threads(),
        "texts": texts.len(),
        "tokens": bench.tokens(),
        "batch": batch,
        "seconds": seconds,
        "texts_per_second": texts.len() as f64 / seconds.median,
        "tokens_per_second": bench.tokens() as f64 / seconds.median,
    }))
}
