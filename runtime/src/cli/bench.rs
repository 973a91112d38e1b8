//! `kinglet bench`

use super::args::BenchArgs;
use super::error::CliError;
use super::{load, print, print_json, units};
use crate::bench::{Bench, Spread, Test};
use crate::model::Model;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// One measurement.
#[derive(Serialize)]
struct Row {
    model: String,
    file_bytes: u64,
    isa: &'static str,
    threads: usize,
    test: Test,
    tokens_per_second: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    macs_per_second: Option<f64>,
    /// In the unit of that of the two which is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    roofline: Option<f64>,
}

/// Measures every model with every test and number of threads; models take turns, so that what
/// disturbs the machine disturbs them alike.
pub fn run(args: &BenchArgs) -> Result<(), CliError> {
    let mut threads = args.threads.clone();
    if threads.is_empty() {
        threads.push(kinglet_kernels::topology::Topology::read().default_threads());
    }
    if args.repeat == 0 {
        return Err(CliError::Usage("--repeat 0: expected 1 or more".to_owned()));
    }
    let tests = tests(args);
    if tests.is_empty() {
        return Err(CliError::Usage(
            "nothing to measure: give -p or -n more than 0".to_owned(),
        ));
    }
    let steps = (threads.len() * tests.len()).saturating_mul(args.repeat);
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} runs, {msg}");
    let bar = ProgressBar::new(steps as u64).with_style(style.expect("a valid template"));
    let mut rows = vec![];
    for &threads in &threads {
        let engine = load::engine_of(threads, args.affinity)?;
        let models = args.model.iter();
        let models = models.map(|path| load::model_on(&engine, path));
        let models: Vec<Model> = models.collect::<Result<_, _>>()?;
        for &test in &tests {
            bar.set_message(format!("{test}, {threads} threads"));
            rows.extend(measure(args, &models, test, &bar)?);
        }
    }
    bar.finish_and_clear();
    if args.json {
        return print_json(&rows);
    }
    print(&table(&rows))
}

/// Prompts first, then generation, at each depth.
fn tests(args: &BenchArgs) -> Vec<Test> {
    let mut tests = vec![];
    for &depth in &args.depth {
        for (decode, lengths) in [(false, &args.prompt), (true, &args.n)] {
            let lengths = lengths.iter().filter(|&&tokens| tokens > 0);
            tests.extend(lengths.map(|&tokens| Test {
                tokens,
                decode,
                depth,
            }));
        }
    }
    tests
}

fn measure(
    args: &BenchArgs,
    models: &[Model],
    test: Test,
    bar: &ProgressBar,
) -> Result<Vec<Row>, CliError> {
    let benches = models.iter().map(|model| Bench::new(model, test, args.kv));
    let mut benches: Vec<Bench> = benches.collect::<Result<_, _>>()?;
    let mut rates = vec![vec![]; models.len()];
    for _ in 0..args.repeat {
        for (bench, rates) in benches.iter_mut().zip(&mut rates) {
            rates.push(bench.run()?);
        }
        bar.inc(1);
    }
    let row = |((model, bench), rates): ((&Model, &Bench), &Vec<f64>)| {
        let rate = Spread::of(rates);
        let work = rate.median * bench.work_per_token() as f64;
        Row {
            model: model.file().path().display().to_string(),
            file_bytes: model.file().file_bytes(),
            isa: model.engine().isa().name(),
            threads: model.engine().pool().threads(),
            test,
            tokens_per_second: rate,
            read_bytes_per_second: test.decode.then_some(work),
            macs_per_second: (!test.decode).then_some(work),
            roofline: args.roofline.then(|| bench.roofline()).flatten(),
        }
    };
    Ok(models.iter().zip(&benches).zip(&rates).map(row).collect())
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| model | size | ISA | threads | test | tokens/s | min – max | work | roofline |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let spread = row.tokens_per_second;
        let (work, unit) = match (row.read_bytes_per_second, row.macs_per_second) {
            (Some(rate), _) => (rate, "GB/s read"),
            (None, rate) => (rate.unwrap_or(0.0), "GMAC/s"),
        };
        let part = |most| format!("{:.0} % of {:.0}", 100.0 * work / most, most / 1e9);
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} – {} | {:.0} {unit} | {} |\n",
            row.model,
            units::bytes(row.file_bytes),
            row.isa,
            row.threads,
            row.test,
            units::rate(spread.median),
            units::rate(spread.min),
            units::rate(spread.max),
            work / 1e9,
            row.roofline.map_or(String::new(), part),
        );
    }
    text
}
