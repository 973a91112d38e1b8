//! The report as one HTML page that needs nothing else.

use super::plot::{Axis, Point, Role, svg};
use super::table::{Better, columns, label, legend, title};
use super::{Comparison, Entry, Quality};

const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #1d2733; --quiet: #5b6875; --paper: #ffffff; --line: #dde2e7; \
--best: #0b7a4b; --point: #1f6feb; --other: #b4530a; }\n\
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --quiet: #9aa7b4; --paper: #14191f; \
--line: #303a45; --best: #5bd19a; --point: #6ea8ff; --other: #f0a35e; } }\n\
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); \
max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }\n\
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }\n\
.scroll { overflow-x: auto; }\n\
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: right; \
white-space: nowrap; }\n\
th, td.kinds { white-space: normal; }\n\
th { vertical-align: bottom; }\n\
th:first-child, td:first-child { text-align: left; }\n\
td.best { color: var(--best); font-weight: 600; }\n\
tr.reference td { font-style: italic; }\n\
tr.other td:first-child { color: var(--other); }\n\
figure { margin: 1rem 0; }\n\
figcaption { font-weight: 600; }\n\
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); \
gap: 0 1.5rem; }\n\
svg { width: 100%; height: auto; }\n\
svg text { font-size: 12px; fill: var(--quiet); }\n\
svg .name { font-weight: 600; fill: var(--ink); }\n\
svg .grid { stroke: var(--line); stroke-width: 1; }\n\
svg .lead { stroke: var(--quiet); stroke-width: 1; }\n\
.mark { stroke: var(--point); fill: var(--point); stroke-width: 2; }\n\
.mark.other { stroke: var(--other); fill: var(--other); }\n\
.mark.reference { stroke: var(--ink); fill: var(--ink); }\n\
.mark.beaten { fill: var(--paper); }\n\
pre { overflow-x: auto; color: var(--quiet); }\n";

/// The whole page.
pub fn page(comparison: &Comparison) -> String {
    let heading = escape(&title(comparison));
    let conditions = comparison.conditions.sentences();
    let conditions = conditions.iter().map(|s| format!("<p>{}</p>\n", escape(s)));
    let others = comparison.models.iter().any(|m| m.engine.is_some());
    let squares = if others {
        "; squares: other engines"
    } else {
        ""
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{heading}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>{heading}</h1>\n<p>{}</p>\n\
         <div class=\"scroll\">\n{}</div>\n<div class=\"plots\">\n{}</div>\n\
         <p>Filled: what no other beats on both axes{squares}. The reference, without colour, does \
         not take part.</p>\n\
         <h2>Conditions</h2>\n{}<h2>How the files were made</h2>\n<ul>\n{}</ul>\n\
         </body>\n</html>\n",
        escape(&legend(comparison, "Green")),
        table(comparison),
        plots(comparison),
        conditions.collect::<String>(),
        comparison.models.iter().map(origin).collect::<String>(),
    )
}

fn table(comparison: &Comparison) -> String {
    let columns = columns(comparison);
    let titles = columns
        .iter()
        .map(|c| format!("<th>{}</th>", escape(&c.title)));
    let mut text = format!(
        "<table>\n<thead><tr><th>model</th>{}</tr></thead>\n<tbody>\n",
        titles.collect::<String>()
    );
    for (index, model) in comparison.models.iter().enumerate() {
        let cells = columns.iter().map(|column| {
            let class = match column.better {
                None => " class=\"kinds\"",
                Some(_) if column.is_best(index) => " class=\"best\"",
                Some(_) => "",
            };
            format!("<td{class}>{}</td>", escape(&column.texts[index]))
        });
        let class = match (index, &model.engine) {
            (0, _) => " class=\"reference\"",
            (_, Some(_)) => " class=\"other\"",
            _ => "",
        };
        text += &format!(
            "<tr{class}><td>{}</td>{}</tr>\n",
            escape(&label(comparison, index)),
            cells.collect::<String>()
        );
    }
    text + "</tbody>\n</table>\n"
}

/// A measure of quality: its axis, and the figure of a model where there is one.
type Measure = (Axis, fn(&Quality) -> Option<f64>);

/// What Spearman's correlation over some thousand pairs is good to.
const SPEARMAN_SPAN: f64 = 0.05;

/// Where a model stands on an axis.
type Place = fn(&Entry) -> f64;

/// Each measure of quality against size, and against speed.
fn plots(comparison: &Comparison) -> String {
    let axis = |title, better, least_span| Axis {
        title,
        better,
        least_span,
        log: false,
    };
    let divergence = Axis {
        log: true,
        ..axis("mean KL divergence", Better::Lower, 0.0)
    };
    let measures: [Measure; 4] = [
        (divergence, |quality| match quality {
            // The reference is at 0, which a logarithmic axis has not.
            Quality::Decoder(evaluation) => evaluation
                .against_reference
                .as_ref()
                .map(|distance| distance.kl_mean)
                .filter(|&kl| kl > 0.0),
            Quality::Encoder(_) => None,
        }),
        (
            axis("perplexity", Better::Lower, 0.0),
            |quality| match quality {
                Quality::Decoder(evaluation) => Some(evaluation.perplexity),
                Quality::Encoder(_) => None,
            },
        ),
        (
            axis("Spearman", Better::Higher, SPEARMAN_SPAN),
            |quality| match quality {
                Quality::Decoder(_) => None,
                Quality::Encoder(quality) => quality.spearman,
            },
        ),
        (
            axis("cosine to the reference", Better::Higher, 0.0),
            |quality| match quality {
                Quality::Decoder(_) => None,
                // The reference agrees with itself.
                Quality::Encoder(quality) => {
                    Some(quality.cosine_to_reference.map_or(1.0, |c| c.mean))
                }
            },
        ),
    ];
    let decodes = comparison.conditions.tokens_scored.is_some();
    let speed = if decodes {
        "decode, tokens/s"
    } else {
        "single texts/s"
    };
    let against: [(&str, Axis, Place); 2] = [
        ("size", axis("file, MB", Better::Lower, 0.0), |m| {
            m.bytes as f64 / 1e6
        }),
        ("speed", axis(speed, Better::Higher, 0.0), |m| {
            m.speed.felt()
        }),
    ];
    let mut text = String::new();
    for (y, quality) in &measures {
        for (name, x, place) in &against {
            let models = comparison.models.iter().enumerate();
            let points = models.filter_map(|(index, model)| {
                Some(Point {
                    name: model.name.clone(),
                    x: place(model),
                    y: quality(&model.quality)?,
                    role: match (index, &model.engine) {
                        (0, _) => Role::Reference,
                        (_, Some(_)) => Role::Other,
                        _ => Role::Variant,
                    },
                })
            });
            let points: Vec<Point> = points.collect();
            if points.is_empty() {
                continue;
            }
            let svg = svg(&points, x, y);
            let caption = format!("Quality ({}) against {name}", y.title);
            text += &format!("<figure>\n<figcaption>{caption}</figcaption>\n{svg}</figure>\n");
        }
    }
    text
}

fn origin(model: &Entry) -> String {
    let (name, file) = (escape(&model.name), escape(&model.file));
    let made = match (&model.provenance, &model.engine) {
        (Some(made), _) => format!(
            "by {} from {} (SHA-256 {})<pre>{}</pre>",
            escape(&made.made_by),
            escape(&made.source),
            escape(&made.source_sha256),
            escape(made.recipe.trim())
        ),
        (None, engine) => format!("run by {}", escape(engine.as_deref().unwrap_or("kinglet"))),
    };
    format!("<li><b>{name}</b>: {file}, {made}</li>\n")
}

/// Text that is safe inside HTML and its attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}
