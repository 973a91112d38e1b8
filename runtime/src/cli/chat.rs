//! `kinglet chat`

use super::args::ChatArgs;
use super::error::CliError;
use super::{load, note, print, units};
use crate::chat::{ChatTemplate, Message};
use crate::complete::{Finish, Limits, complete};
use crate::error::Error;
use crate::output;
use crate::session::Session;
use crate::tokenizer::Tokenizer;
use rustyline::error::ReadlineError;
use std::io::{self, BufRead, IsTerminal};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const HELP: &str = "\
/help        this list
/reset       forget the conversation
/save FILE   write the conversation to a JSON file
/load FILE   go on with the conversation of a file
/exit        end (also Ctrl-D)
Ctrl-C stops an answer; a line that ends in \\ goes on in the next one
";

/// Tokens of a prompt between looks for Ctrl-C.
const PART: usize = 512;

/// Talks until the user ends it.
pub fn run(args: &ChatArgs) -> Result<(), CliError> {
    let model = load::decoder(&args.model)?;
    let tokenizer = Tokenizer::of(model.file())?;
    let template = ChatTemplate::of(&model, &tokenizer)?;
    let options = load::session_options(&model, &args.context, &args.sampling)?;
    let mut chat = Chat {
        session: model.session(options)?,
        tokenizer: &tokenizer,
        template: &template,
        limits: load::limits(&model, args.predict, &args.sampling.stop, false)?,
        system: args.system.as_deref(),
        messages: vec![],
        interrupted: Arc::default(),
    };
    chat.reset();
    let mut input = Input::new()?;
    if input.is_terminal() {
        let interrupted = chat.interrupted.clone();
        // While a line is edited the terminal hands Ctrl-C to the editor; this is for answers.
        ctrlc::set_handler(move || interrupted.store(true, Ordering::Relaxed))
            .map_err(|e| CliError::Usage(format!("Ctrl-C: {e}")))?;
        let name = &model.file().header().provenance.source;
        note(format_args!("{name}; /help lists the commands"));
    }
    while let Some(line) = input.line()? {
        match chat.line(line.trim(), input.is_terminal()) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error @ CliError::Output(_)) => return Err(error),
            // A full context, a file that is not there: the chat goes on.
            Err(error) if input.is_terminal() => note(format_args!("error: {error}")),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A conversation and what it needs.
struct Chat<'a> {
    session: Session<'a>,
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    limits: Limits,
    system: Option<&'a str>,
    messages: Vec<Message>,
    interrupted: Arc<AtomicBool>,
}

impl Chat<'_> {
    fn reset(&mut self) {
        self.messages.clear();
        let system = self.system.map(|text| Message::new("system", text));
        self.messages.extend(system);
    }

    /// A command or a question.
    fn line(&mut self, line: &str, statistics: bool) -> Result<ControlFlow<()>, CliError> {
        let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
        let argument = Path::new(argument.trim());
        match command {
            "" => {}
            "/exit" | "/quit" | "/bye" => return Ok(ControlFlow::Break(())),
            "/help" => print(HELP)?,
            "/reset" => self.reset(),
            "/save" | "/load" if argument.as_os_str().is_empty() => {
                return Err(CliError::Usage(format!(
                    "{command} needs a file: {command} FILE"
                )));
            }
            "/save" => self.save(argument)?,
            "/load" => self.load(argument)?,
            _ if line.starts_with('/') => {
                let reason = format!("unknown command {command}: /help lists them");
                return Err(CliError::Usage(reason));
            }
            _ => self.answer(line, statistics)?,
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Answers a question; on an error the conversation stays as it was.
    fn answer(&mut self, question: &str, statistics: bool) -> Result<(), CliError> {
        self.messages.push(Message::new("user", question));
        let held = self.messages.len();
        let result = self.generate(statistics);
        if self.messages.len() == held {
            self.messages.pop();
        }
        result
    }

    fn generate(&mut self, statistics: bool) -> Result<(), CliError> {
        let tokens = self.template.tokens(self.tokenizer, &self.messages, true)?;
        // What the cache holds of the conversation already need not run again.
        let known = self.session.tokens().iter().zip(&tokens);
        let known = known.take_while(|(a, b)| a == b).count();
        self.session.truncate(known);
        let new = &tokens[known..];
        self.session.check_fits(new.len() + 1)?;
        let interrupted = self.interrupted.clone();
        interrupted.store(false, Ordering::Relaxed);
        let start = Instant::now();
        for part in new.chunks(PART) {
            self.session.prefill(part)?;
            if interrupted.load(Ordering::Relaxed) {
                return print("\n");
            }
        }
        let prefill = start.elapsed().as_secs_f64();

        let mut output = Ok(());
        let start = Instant::now();
        let completion = complete(&mut self.session, self.tokenizer, &self.limits, |piece| {
            output = print(piece);
            if output.is_err() || interrupted.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        output?;
        let decode = start.elapsed().as_secs_f64();
        print("\n")?;
        if completion.finish == Finish::Context {
            note("the context is full: /reset starts anew, -c sets a larger one");
        }
        if statistics {
            note(format_args!(
                "[{} + {} tokens, {} and {} tokens/s]",
                new.len(),
                completion.tokens,
                units::rate(new.len() as f64 / prefill.max(1e-9)),
                units::rate(completion.tokens as f64 / decode.max(1e-9)),
            ));
        }
        self.messages
            .push(Message::new("assistant", completion.text));
        Ok(())
    }

    fn save(&self, path: &Path) -> Result<(), CliError> {
        let json = serde_json::to_string_pretty(&self.messages).expect("plain data");
        output::write(path, (json + "\n").as_bytes())?;
        note(format_args!(
            "saved {} messages to {}",
            self.messages.len(),
            path.display()
        ));
        Ok(())
    }

    fn load(&mut self, path: &Path) -> Result<(), CliError> {
        let json = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        self.messages = serde_json::from_slice(&json).map_err(|e| {
            CliError::Usage(format!("{}: {e}: expected a saved chat", path.display()))
        })?;
        note(format_args!(
            "loaded {} messages from {}",
            self.messages.len(),
            path.display()
        ));
        Ok(())
    }
}

/// Lines from a terminal, with editing and history, or from a pipe.
enum Input {
    Terminal(Box<rustyline::DefaultEditor>),
    Pipe,
}

impl Input {
    fn new() -> Result<Input, CliError> {
        if !io::stdin().is_terminal() {
            return Ok(Input::Pipe);
        }
        let editor = rustyline::DefaultEditor::new().map_err(readline_failed)?;
        Ok(Input::Terminal(Box::new(editor)))
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Input::Terminal(_))
    }

    /// The next line, with those that it goes on in; `None` at the end.
    fn line(&mut self) -> Result<Option<String>, CliError> {
        let mut text = String::new();
        loop {
            let Some(line) = self.single_line(text.is_empty())? else {
                return Ok((!text.is_empty()).then_some(text));
            };
            match line.strip_suffix('\\') {
                Some(start) => text += &format!("{start}\n"),
                None => return Ok(Some(text + &line)),
            }
        }
    }

    fn single_line(&mut self, first: bool) -> Result<Option<String>, CliError> {
        match self {
            Input::Terminal(editor) => loop {
                match editor.readline(if first { "> " } else { "… " }) {
                    Ok(line) => {
                        let _ = editor.add_history_entry(&line);
                        return Ok(Some(line));
                    }
                    Err(ReadlineError::Interrupted) => note("(/exit or Ctrl-D ends the chat)"),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(readline_failed(error)),
                }
            },
            Input::Pipe => {
                let mut line = String::new();
                let read = io::stdin().lock().read_line(&mut line);
                let read = read.map_err(CliError::Input)?;
                Ok((read > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()))
            }
        }
    }
}

fn readline_failed(error: ReadlineError) -> CliError {
    match error {
        ReadlineError::Io(error) => CliError::Input(error),
        other => CliError::Input(io::Error::other(other.to_string())),
    }
}
