//! The table of a comparison, for Markdown and HTML alike.

use super::{Comparison, Entry, Quality, Speed};

/// Which end of a column is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

/// A column: its title, and a number and its text for each model.
pub struct Column {
    pub title: String,
    /// `None` where no end is better.
    pub better: Option<Better>,
    pub values: Vec<Option<f64>>,
    pub texts: Vec<String>,
}

impl Column {
    /// Whether model `index` is the best variant; the reference (0) does not take part.
    pub fn is_best(&self, index: usize) -> bool {
        let number = |value: Option<f64>| value.filter(|value| !value.is_nan());
        let Some((better, value)) = self.better.zip(number(self.values[index])) else {
            return false;
        };
        let worse = |other: &Option<f64>| {
            number(*other).is_none_or(|other| match better {
                Better::Lower => value <= other,
                Better::Higher => value >= other,
            })
        };
        index > 0 && self.values.len() > 2 && self.values[1..].iter().all(worse)
    }
}

/// A measure of quality, where a model has it.
type Measure = fn(&Quality) -> Option<f64>;

/// The kinds of a model's matrices, most frequent first, and not more than a column has room for.
fn kinds(all: &[String]) -> String {
    match all {
        [first, second, rest @ ..] if rest.len() > 1 => {
            format!("{first} + {second} + {} others", rest.len())
        }
        _ => all.join(" + "),
    }
}

/// The columns, from left to right, without the names.
pub fn columns(comparison: &Comparison) -> Vec<Column> {
    let models = &comparison.models;
    let conditions = &comparison.conditions;
    let reference_bytes = models[0].bytes as f64;
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let column = |title: &str, better, value: &dyn Fn(&Entry) -> Option<(f64, String)>| {
        let cells = models.iter().map(value);
        let (values, texts) = cells
            .map(|cell| match cell {
                Some((value, text)) => (Some(value), text),
                None => (None, "–".to_owned()),
            })
            .unzip();
        Column {
            title: title.to_owned(),
            better,
            values,
            texts,
        }
    };
    let (lower, higher) = (Some(Better::Lower), Some(Better::Higher));
    let mut columns = vec![
        column("kinds", None, &|m| Some((0.0, kinds(&m.kinds)))),
        column("size", lower, &|m| {
            let part = 100.0 * m.bytes as f64 / reference_bytes;
            let text = format!("{} ({part:.0} %)", megabytes(m.bytes));
            Some((m.bytes as f64, text))
        }),
        column("bits per weight", lower, &|m| {
            Some((m.bits_per_weight, format!("{:.2}", m.bits_per_weight)))
        }),
    ];
    let first = |title: &str| {
        column(title, lower, &|m| {
            let milliseconds = 1e3 * m.first_result_seconds;
            Some((milliseconds, format!("{milliseconds:.0} ms")))
        })
    };
    let rate = |title: &str, of: &dyn Fn(&Speed) -> f64| {
        column(title, higher, &|m| {
            let rate = of(&m.speed);
            Some((rate, significant(rate)))
        })
    };
    let felt = |speed: &Speed| speed.felt();
    let bulk = |speed: &Speed| match speed {
        Speed::Decoder {
            prefill_tokens_per_second: rate,
            ..
        }
        | Speed::Encoder {
            batch_texts_per_second: rate,
            ..
        } => rate.median,
    };
    match conditions.tokens_scored {
        Some(_) => {
            columns.push(rate(
                &format!("prefill {} tokens/s", conditions.prompt),
                &bulk,
            ));
            columns.push(rate(
                &format!("decode {} tokens/s", conditions.generate),
                &felt,
            ));
            columns.push(first("first token"));
        }
        None => {
            columns.push(rate("batch texts/s", &bulk));
            columns.push(rate("single texts/s", &felt));
            columns.push(first("first vector"));
        }
    }
    columns.push(column("peak memory", lower, &|m| {
        m.peak_memory.map(|bytes| (bytes as f64, megabytes(bytes)))
    }));
    let figure = |title: &str, better, of: &dyn Fn(&Quality) -> Option<f64>, digits: usize| {
        column(title, better, &|m| {
            of(&m.quality).map(|x| (x, format!("{x:.digits$}")))
        })
    };
    let quality: [(&str, Option<Better>, Measure, usize); 7] = [
        (
            "perplexity",
            lower,
            |q| decoder(q, |e| Some(e.perplexity)),
            3,
        ),
        (
            "KL mean",
            lower,
            |q| decoder(q, |e| e.against_reference.as_ref().map(|d| d.kl_mean)),
            5,
        ),
        (
            "KL p99",
            lower,
            |q| decoder(q, |e| e.against_reference.as_ref().map(|d| d.kl_p99)),
            4,
        ),
        (
            "top-1 %",
            higher,
            |q| {
                decoder(q, |e| {
                    e.against_reference
                        .as_ref()
                        .map(|d| 100.0 * d.top1_agreement)
                })
            },
            2,
        ),
        ("Spearman", higher, |q| encoder(q, |e| e.spearman), 4),
        (
            "cosine mean",
            higher,
            |q| encoder(q, |e| e.cosine_to_reference.map(|c| c.mean)),
            5,
        ),
        (
            "cosine least",
            higher,
            |q| encoder(q, |e| e.cosine_to_reference.map(|c| c.min)),
            5,
        ),
    ];
    for (title, better, of, digits) in quality {
        let column = figure(title, better, &of, digits);
        if column.values.iter().any(Option::is_some) {
            columns.push(column);
        }
    }
    columns
}

fn decoder(
    quality: &Quality,
    of: impl Fn(&kinglet::eval::Evaluation) -> Option<f64>,
) -> Option<f64> {
    match quality {
        Quality::Decoder(evaluation) => of(evaluation),
        Quality::Encoder(_) => None,
    }
}

fn encoder(quality: &Quality, of: impl Fn(&super::EncoderQuality) -> Option<f64>) -> Option<f64> {
    match quality {
        Quality::Encoder(quality) => of(quality),
        Quality::Decoder(_) => None,
    }
}

/// Three significant digits, or a whole number.
pub fn significant(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// `3 variants of llama, against f16`
pub fn title(comparison: &Comparison) -> String {
    let variants = comparison.models.len() - 1;
    format!(
        "{} {} of {}, against {}",
        variants,
        if variants == 1 { "variant" } else { "variants" },
        comparison.conditions.architecture,
        comparison.models[0].name
    )
}

/// The name of a model in the table, with what it is.
pub fn label(comparison: &Comparison, index: usize) -> String {
    let model = &comparison.models[index];
    let mark = match (index, &model.engine) {
        (0, _) => " (reference)",
        (_, Some(_)) => " †",
        _ => "",
    };
    model.name.clone() + mark
}

/// What the marks of the table mean: how the best are shown, and other engines, if there are any.
pub fn legend(comparison: &Comparison, best: &str) -> String {
    let weights = comparison.models[0].parameters as f64 / 1e6;
    let mut text = format!("{weights:.1} million weights. {best}: the best, the reference apart.");
    let mut engines: Vec<&str> = comparison
        .models
        .iter()
        .filter_map(|model| model.engine.as_deref())
        .collect();
    engines.dedup();
    if !engines.is_empty() {
        text += &format!(" †: run by {}, measured apart.", engines.join(", "));
    }
    text
}

/// The report as Markdown; the best of the variants are bold.
pub fn markdown(comparison: &Comparison) -> String {
    let columns = columns(comparison);
    let escape = |text: &str| text.replace('|', "\\|");
    let mut text = format!("# {}\n\n", escape(&title(comparison)));
    let titles: Vec<&str> = columns.iter().map(|c| c.title.as_str()).collect();
    text += &format!("| model | {} |\n", titles.join(" | "));
    text += &format!("|---|{}\n", "---:|".repeat(columns.len()));
    for index in 0..comparison.models.len() {
        let cells = columns.iter().map(|column| match column.is_best(index) {
            true => format!("**{}**", column.texts[index]),
            false => column.texts[index].clone(),
        });
        let cells: Vec<String> = cells.collect();
        let name = escape(&label(comparison, index));
        text += &format!("| {name} | {} |\n", cells.join(" | "));
    }
    text += &format!("\n{}\n", legend(comparison, "Bold"));
    for sentence in comparison.conditions.sentences() {
        text += &format!("\n{sentence}\n");
    }
    text
}
