//! `kinglet eval`

use super::args::EvalArgs;
use super::error::CliError;
use super::{load, print, print_json};
use crate::error::Error;
use crate::eval::{EvalOptions, Evaluation, evaluate};
use crate::tokenizer::Tokenizer;
use indicatif::{ProgressBar, ProgressStyle};

/// Scores a text and prints the figures.
pub fn run(args: &EvalArgs) -> Result<(), CliError> {
    if args.ctx < 4 {
        return Err(CliError::Usage(format!(
            "--ctx {}: expected 4 or more",
            args.ctx
        )));
    }
    if args.chunks == Some(0) {
        return Err(CliError::Usage("--chunks 0: expected 1 or more".to_owned()));
    }
    let text = std::fs::read_to_string(&args.text).map_err(|e| Error::io(&args.text, e))?;
    let model = load::decoder(&args.model)?;
    let reference = args.reference.as_deref();
    let reference = reference
        .map(|path| load::model_on(model.engine(), path))
        .transpose()?;
    // With the token before every text: the protocol cuts windows from there, and then replaces the
    // first token of each by it.
    let tokens = Tokenizer::of(model.file())?.encode(&text, true)?;
    let style = "{bar:30} {pos} of {len} windows, {eta} left";
    let style = ProgressStyle::with_template(style).expect("a valid template");
    let bar = ProgressBar::new(0).with_style(style);
    let options = EvalOptions {
        window: args.ctx,
        windows: args.chunks,
        kv: args.kv,
    };
    let evaluation = evaluate(
        &model,
        reference.as_ref(),
        &tokens,
        options,
        |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        },
    );
    bar.finish_and_clear();
    let evaluation = evaluation?;
    if args.json {
        return print_json(&evaluation);
    }
    print(&table(&evaluation))
}

fn table(evaluation: &Evaluation) -> String {
    let mut text = format!(
        "perplexity        {:.3}\ntokens scored     {} in {} windows\n",
        evaluation.perplexity, evaluation.tokens_scored, evaluation.windows
    );
    if let Some(distance) = &evaluation.against_reference {
        text += &format!(
            "mean KL           {:.5} nats\n99th percentile   {:.5} nats\ntop-1 agreement   {:.2} %\n",
            distance.kl_mean,
            distance.kl_p99,
            100.0 * distance.top1_agreement
        );
    }
    text
}
