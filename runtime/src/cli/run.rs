//! `kinglet run`

use super::args::RunArgs;
use super::error::CliError;
use super::{load, note, print, print_json, units};
use crate::chat::{ChatTemplate, Message};
use crate::complete::{Completion, complete};
use crate::error::Error;
use crate::model::Model;
use crate::tokenizer::Tokenizer;
use serde_json::json;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Continues the prompt.
pub fn run(args: &RunArgs) -> Result<(), CliError> {
    let prompt = prompt(args)?;
    let model = load::decoder(&args.model)?;
    let tokenizer = Tokenizer::of(model.file())?;
    let tokens = tokens(&model, &tokenizer, &prompt, args.chat)?;
    let mut session = model.session(load::session_options(
        &model,
        &args.context,
        &args.sampling,
    )?)?;

    let limits = load::limits(&model, args.predict, &args.sampling.stop, args.ignore_eos)?;
    let start = Instant::now();
    session.prefill(&tokens)?;
    let prefill = start.elapsed();
    let mut output = Ok(());
    let start = Instant::now();
    let completion = complete(&mut session, &tokenizer, &limits, |piece| {
        if !args.json {
            output = print(piece);
        }
        match output {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    let decode = start.elapsed();
    output?;

    let rates = (rate(tokens.len(), prefill), rate(completion.tokens, decode));
    if args.json {
        return print_json(&summary(&completion, tokens.len(), rates));
    }
    print("\n")?;
    note(format_args!(
        "prompt {} tokens, {} tokens/s; completion {} tokens, {} tokens/s",
        tokens.len(),
        units::rate(rates.0),
        completion.tokens,
        units::rate(rates.1),
    ));
    Ok(())
}

fn summary(completion: &Completion, prompt: usize, rates: (f64, f64)) -> serde_json::Value {
    json!({
        "text": completion.text,
        "finish": completion.finish,
        "prompt_tokens": prompt,
        "completion_tokens": completion.tokens,
        "prompt_tokens_per_second": rates.0,
        "completion_tokens_per_second": rates.1,
    })
}

/// Tokens per second.
fn rate(tokens: usize, time: Duration) -> f64 {
    tokens as f64 / time.as_secs_f64().max(1e-9)
}

fn prompt(args: &RunArgs) -> Result<String, CliError> {
    // A text ends in a newline; the model is to go on after what stands before.
    let trimmed = |text: String| {
        let line = text.strip_suffix("\r\n").or(text.strip_suffix('\n'));
        line.unwrap_or(&text).to_owned()
    };
    let read_input = || {
        let mut text = vec![];
        io::stdin()
            .read_to_end(&mut text)
            .map_err(CliError::Input)?;
        let text = String::from_utf8(text);
        let text = text.map_err(|e| CliError::Usage(format!("standard input: {e}")))?;
        Ok(trimmed(text))
    };
    match (&args.prompt, &args.file) {
        (Some(prompt), _) if prompt == "-" => read_input(),
        (Some(prompt), _) => Ok(prompt.clone()),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file).map_err(|e| Error::io(file, e))?;
            Ok(trimmed(text))
        }
        (None, None) => read_input(),
    }
}

/// The prompt as tokens; an empty one is the token before every text alone.
fn tokens(
    model: &Model,
    tokenizer: &Tokenizer,
    prompt: &str,
    chat: bool,
) -> Result<Vec<u32>, CliError> {
    let mut tokens = if chat {
        let template = ChatTemplate::of(model, tokenizer)?;
        template.tokens(tokenizer, &[Message::new("user", prompt)], true)?
    } else {
        tokenizer.encode(prompt, true)?
    };
    if tokens.is_empty() {
        let config = model.config();
        let first = config.bos_token.or(config.eos_tokens.first().copied());
        tokens.push(first.ok_or(Error::NoTokens)?);
    }
    Ok(tokens)
}
