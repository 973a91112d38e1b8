//! Writing a `.kgl` file: the header first, then each tensor as it comes.

use super::names::{layer, projections};
use super::validate::{self, Stored};
use super::{CHAT_TEMPLATE, CHECKSUMS, DATA_ALIGN, Header, TENSOR_ALIGN, TOKENIZER};
use crate::error::Error;
use crate::output::Output;
use serde_json::{Map, Value, json};
use std::path::Path;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Writes one file. Tensors must come in the order of [`Writer::plan`], each in any number of
/// pieces. Nothing appears under the final name before [`Writer::finish`]; dropping the writer
/// removes what there is.
pub struct Writer {
    out: Output,
    plan: Vec<Planned>,
    next: usize,
    written: usize,
    hash: Xxh3,
    checksums: Vec<u8>,
    tokenizer: Vec<u8>,
    chat_template: Vec<u8>,
}

/// A weight that is to be written.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// How it is stored.
    pub stored: Stored,
}

impl Writer {
    /// Starts a file at `target`, through a temporary file beside it. `header`'s lengths of
    /// tokenizer and template are set here.
    ///
    /// # Errors
    /// A header that does not make sense, or a file that cannot be written.
    pub fn create(
        target: &Path,
        mut header: Header,
        tokenizer_json: &[u8],
        chat_template: Option<&str>,
    ) -> Result<Writer, Error> {
        header.tokenizer_bytes = tokenizer_json.len();
        header.chat_template_bytes = chat_template.map_or(0, str::len);
        validate::header(&header).map_err(Error::Config)?;
        let plan = plan(&header)?;
        let bytes = encode(&header, &plan)?;
        let mut writer = Writer {
            out: Output::create(target)?,
            plan,
            next: 0,
            written: 0,
            hash: Xxh3::new(),
            checksums: xxh3_64(&bytes).to_le_bytes().to_vec(),
            tokenizer: padded(tokenizer_json),
            chat_template: padded(chat_template.unwrap_or_default().as_bytes()),
        };
        writer.out.write(&bytes)?;
        Ok(writer)
    }

    /// The length in bytes of the file that a header describes.
    ///
    /// # Errors
    /// A header that does not make sense.
    pub fn file_bytes(
        mut header: Header,
        tokenizer_bytes: usize,
        chat_template_bytes: usize,
    ) -> Result<u64, Error> {
        header.tokenizer_bytes = tokenizer_bytes;
        header.chat_template_bytes = chat_template_bytes;
        validate::header(&header).map_err(Error::Config)?;
        let plan = plan(&header)?;
        let texts = [tokenizer_bytes, chat_template_bytes];
        let tensors = 1 + plan.len() + texts.iter().filter(|&&bytes| bytes > 0).count();
        let parts = plan.iter().map(|planned| planned.stored.bytes());
        let parts = parts.chain(texts).chain([tensors * 8]);
        let bytes: usize = parts
            .map(|bytes| bytes.next_multiple_of(TENSOR_ALIGN))
            .sum();
        Ok((encode(&header, &plan)?.len() + bytes) as u64)
    }

    /// The weights in the order in which they are to be written.
    pub fn plan(&self) -> &[Planned] {
        &self.plan
    }

    /// Writes the next bytes of the current weight; the next weight is current when all its bytes
    /// are there.
    ///
    /// # Errors
    /// A file that cannot be written.
    ///
    /// # Panics
    /// If there are more bytes than the plan has room for.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let planned = &self.plan[self.next];
        self.written += bytes.len();
        assert!(
            self.written <= planned.stored.bytes(),
            "more bytes than {} has",
            planned.name
        );
        let complete = self.written == planned.stored.bytes();
        self.hash.update(bytes);
        self.out.write(bytes)?;
        if complete {
            self.close_tensor();
            self.next += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Writes a whole vector, padded.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write_vector(&mut self, values: &[f32]) -> Result<(), Error> {
        let mut padded = values.to_vec();
        padded.resize(values.len().next_multiple_of(validate::VECTOR_STEP), 0.0);
        let bytes: Vec<u8> = padded.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.write(&bytes)
    }

    /// Writes tokenizer, template and checksums, syncs, and gives the file its name. Returns its
    /// length in bytes.
    ///
    /// # Errors
    /// A file that cannot be written.
    ///
    /// # Panics
    /// If a weight is missing.
    pub fn finish(mut self) -> Result<u64, Error> {
        assert_eq!(self.next, self.plan.len(), "weights are missing");
        for bytes in [
            std::mem::take(&mut self.tokenizer),
            std::mem::take(&mut self.chat_template),
        ] {
            if !bytes.is_empty() {
                self.hash.update(&bytes);
                self.out.write(&bytes)?;
                self.close_tensor();
            }
        }
        let checksums = padded(&std::mem::take(&mut self.checksums));
        self.out.write(&checksums)?;
        self.out.finish()
    }

    fn close_tensor(&mut self) {
        self.checksums.extend(self.hash.digest().to_le_bytes());
        self.hash.reset();
    }
}

/// Zero padded to the alignment of tensors.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(TENSOR_ALIGN), 0);
    padded
}

/// The weights in the order in which a forward pass reads them, since kernels ask memory for what follows;
/// after a layer's matrices comes what belongs to them.
fn plan(header: &Header) -> Result<Vec<Planned>, Error> {
    let layers = header.config.layers.len();
    let linears = projections(&header.config);
    let of_layer = |index| {
        let prefix = layer(index, "");
        let names = header.weights.keys();
        let mut names: Vec<&String> = names.filter(|name| name.starts_with(&prefix)).collect();
        let place = |name: &str| linears.iter().position(|linear| linear.name == name);
        names.sort_by_key(|name| place(name).unwrap_or(linears.len()));
        names
    };
    // What is neither before the layers nor in one comes last: the final norm and the head.
    let first = [
        "embed",
        "positions",
        "token_types",
        "embed_norm",
        "embed_norm_bias",
    ];
    let is_first = |name: &&String| first.contains(&name.as_str());
    let is_last = |name: &&String| !is_first(name) && !name.starts_with("layers.");
    let mut last: Vec<&String> = header.weights.keys().filter(is_last).collect();
    last.sort_by_key(|name| *name == "head");
    let names = first.iter().map(|name| (*name).to_owned());
    let names = names
        .filter(|name| header.weights.contains_key(name))
        .chain((0..layers).flat_map(of_layer).cloned())
        .chain(last.into_iter().cloned());
    names
        .map(|name| {
            let stored = validate::stored(&header.weights[&name])
                .map_err(|reason| Error::Config(format!("tensor {name}: {reason}")))?;
            Ok(Planned { name, stored })
        })
        .collect()
}

/// The header bytes: length, JSON, padding.
fn encode(header: &Header, plan: &[Planned]) -> Result<Vec<u8>, Error> {
    let json_error = |e: serde_json::Error| Error::Config(e.to_string());
    let document = serde_json::to_string(header).map_err(json_error)?;
    let mut entries = Map::new();
    entries.insert(
        "__metadata__".to_owned(),
        json!({"format": "kinglet", "version": header.version().to_string(), "header": document}),
    );
    let mut end = 0usize;
    let mut add = |name: &str, kind: &str, elements: usize, bytes: usize| {
        let start = end;
        end += bytes;
        let entry = json!({"dtype": kind, "shape": [elements], "data_offsets": [start, end]});
        entries.insert(name.to_owned(), entry);
    };
    for planned in plan {
        let bytes = planned.stored.bytes();
        match planned.stored {
            Stored::Matrix(_) => add(&planned.name, "U8", bytes, bytes),
            Stored::Vector(_) => add(&planned.name, "F32", bytes / 4, bytes),
        }
    }
    let mut tensors = plan.len();
    let texts = [
        (TOKENIZER, header.tokenizer_bytes),
        (CHAT_TEMPLATE, header.chat_template_bytes),
    ];
    for (name, bytes) in texts {
        if bytes > 0 {
            let bytes = bytes.next_multiple_of(TENSOR_ALIGN);
            add(name, "U8", bytes, bytes);
            tensors += 1;
        }
    }
    let checksums = ((tensors + 1) * 8).next_multiple_of(TENSOR_ALIGN);
    add(CHECKSUMS, "U8", checksums, checksums);
    let mut json = serde_json::to_vec(&Value::Object(entries)).map_err(json_error)?;
    json.resize((json.len() + 8).next_multiple_of(DATA_ALIGN) - 8, b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    Ok(bytes)
}
