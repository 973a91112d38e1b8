//! Chat templates: a conversation as the text that the model was trained on.

use crate::error::Error;
use crate::model::Model;
use crate::tokenizer::Tokenizer;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, State, context};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter};
use std::io;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: &str, content: impl Into<String>) -> Message {
        Message {
            role: role.to_owned(),
            content: content.into(),
        }
    }
}

/// A model's chat template, ready to render.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// Instructions of a template, after which it is taken for endless.
const FUEL: u64 = 10_000_000;

/// Bytes of a text that no context holds: some ten million tokens.
const LONGEST_TEXT: usize = 64 << 20;

/// What a template has written, up to [`LONGEST_TEXT`].
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    is_full: bool,
}

impl io::Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > LONGEST_TEXT {
            self.is_full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The name of the one template in the environment.
const NAME: &str = "chat template";

impl ChatTemplate {
    /// The template of a model.
    ///
    /// # Errors
    /// A model without one, or one that is not valid Jinja.
    pub fn of(model: &Model, tokenizer: &Tokenizer) -> Result<ChatTemplate, Error> {
        let source = model
            .file()
            .chat_template()
            .ok_or_else(|| Error::NoChatTemplate {
                path: model.file().path().to_owned(),
            })?;
        let config = model.config();
        let spelling = |token: Option<u32>| token.and_then(|t| tokenizer.spelling(t));
        let bos = spelling(config.bos_token).unwrap_or_default();
        let eos = spelling(config.eos_tokens.first().copied()).unwrap_or_default();
        Self::new(source, bos, eos)
    }

    /// A template from its source, and the spellings of the special tokens that it may use.
    ///
    /// # Errors
    /// A template that is not valid Jinja.
    pub fn new(source: &str, bos: String, eos: String) -> Result<ChatTemplate, Error> {
        let mut environment = Environment::new();
        // As `transformers` sets Jinja up.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(method);
        // These take lengths from the template and would allocate whatever it says.
        for filter in ["batch", "slice", "format", "indent"] {
            environment.remove_filter(filter);
        }
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        environment.set_fuel(Some(FUEL));
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(failed)?;
        Ok(ChatTemplate {
            environment,
            bos,
            eos,
        })
    }

    /// The conversation as text; `answer`: with the start of the assistant's answer.
    ///
    /// # Errors
    /// A conversation that the template refuses, for example for the order of its roles.
    pub fn render(&self, messages: &[Message], answer: bool) -> Result<String, Error> {
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let context = context! {
            messages => messages,
            add_generation_prompt => answer,
            tools => (),
            documents => (),
            bos_token => self.bos,
            eos_token => self.eos,
        };
        let mut text = Text::default();
        match template.render_captured_to(context, &mut text) {
            Ok(_) => Ok(String::from_utf8_lossy(&text.bytes).into_owned()),
            Err(_) if text.is_full => Err(Error::ChatTemplate {
                reason: format!("it writes more than {} MB of text", LONGEST_TEXT >> 20),
            }),
            Err(error) => Err(failed(error)),
        }
    }

    /// The tokens of [`ChatTemplate::render`]: the token before every text stands in the template
    /// already, where the model wants one.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn tokens(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        answer: bool,
    ) -> Result<Vec<u32>, Error> {
        let text = self.render(messages, answer)?;
        let written = !self.bos.is_empty() && text.starts_with(&self.bos);
        tokenizer.encode(&text, !written)
    }
}

/// Methods as Python has them; without `format`, which takes widths from the template.
fn method(
    state: &State,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, minijinja::Error> {
    if name == "format" {
        return Err(ErrorKind::UnknownMethod.into());
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments)
}

fn failed(error: minijinja::Error) -> Error {
    if error.kind() == ErrorKind::OutOfFuel {
        return Error::ChatTemplate {
            reason: format!("it does not end: {FUEL} instructions were not enough"),
        };
    }
    // Its `Display` has the message and the line; the debug form would be a dump of the template.
    Error::ChatTemplate {
        reason: error.to_string(),
    }
}

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// Today's date, in UTC: templates print the day.
fn strftime_now(format: String) -> Result<String, minijinja::Error> {
    let invalid = |e: String| minijinja::Error::new(ErrorKind::InvalidOperation, e);
    let items = time::format_description::parse_strftime_owned(&format)
        .map_err(|e| invalid(e.to_string()))?;
    time::OffsetDateTime::now_utc()
        .format(&items)
        .map_err(|e| invalid(e.to_string()))
}

/// JSON on one line with the spaces of Python's.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.begin_array_value(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

fn json_with(value: &Value, formatter: impl Formatter) -> serde_json::Result<String> {
    let mut out = vec![];
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut out, formatter,
    ))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// JSON without the HTML escapes of Jinja's own filter, as `transformers` has it.
fn to_json(value: Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let json = match indent.filter(|&indent| indent <= 16) {
        None => json_with(&value, Spaced),
        Some(indent) => {
            let spaces = " ".repeat(indent);
            json_with(&value, PrettyFormatter::with_indent(spaces.as_bytes()))
        }
    };
    json.map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, "<s>".to_owned(), "</s>".to_owned()).unwrap()
    }

    #[test]
    fn a_template_of_chatml_renders() {
        let chatml = "{% for message in messages %}{% if loop.first and messages[0]['role'] != \
            'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}\
            {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\
            {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let text = template(chatml).render(&[Message::new("user", "Hi")], true);
        assert_eq!(
            text.unwrap(),
            "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
             <|im_start|>assistant\n"
        );
    }

    #[test]
    fn python_and_hugging_face_extras_work() {
        let source = "{%- if messages[0].content.strip().startswith('Hi') -%}\n  \
            {{ bos_token }}{{ messages | tojson }}{{ strftime_now('%Y') | length }}\n{%- endif -%}";
        let text = template(source).render(&[Message::new("user", " Hi <&> é")], false);
        assert_eq!(
            text.unwrap(),
            "<s>[{\"role\": \"user\", \"content\": \" Hi <&> é\"}]4"
        );
        let tools = "{% if tools is not none %}tools{% else %}{{ [1, {}] | tojson }}{% endif %}";
        assert_eq!(template(tools).render(&[], false).unwrap(), "[1, {}]");
    }

    #[test]
    fn refusals_are_told() {
        let refuses = template("{{ raise_exception('roles must alternate') }}");
        let error = refuses.render(&[], true).unwrap_err().to_string();
        assert!(error.contains("roles must alternate"), "{error}");
        let broken = ChatTemplate::new("{% for %}", String::new(), String::new());
        assert!(broken.is_err());
        // A template of a stranger that never ends.
        let endless = template(
            "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        );
        let error = endless.render(&[], true).unwrap_err().to_string();
        assert!(error.contains("chat template: it does not end"), "{error}");
        // Few instructions, but much text.
        let long = template("{% for a in range(100000) %}{{ 'x' * 10000 }}{% endfor %}");
        let error = long.render(&[], true).unwrap_err().to_string();
        assert!(error.contains("more than 64 MB"), "{error}");
        for huge in [
            "{{ [1] | batch(1000000000000000000) }}",
            "{{ [1] | slice(1000000000000000000) }}",
            "{{ 'a' | indent(1000000000000000000) }}",
            "{{ '%1000000000000000000d' | format(1) }}",
            "{{ '{:1000000000000000000}'.format(1) }}",
            "{{ 'a' * 1000000000000000000 }}",
            "{{ range(1000000000000000000) }}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        ] {
            let template = ChatTemplate::new(huge, String::new(), String::new());
            let rendered = template.and_then(|template| template.render(&[], true));
            assert!(rendered.is_err(), "{huge}");
        }
    }
}
