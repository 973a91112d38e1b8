//! Reading a `.kgl` file: mapped, validated in full, never copied.

use super::mmap::Mapped;
use super::names::expected_weights;
use super::validate::{self, Stored};
use super::{
    Activations, CHAT_TEMPLATE, CHECKSUMS, DATA_ALIGN, Header, MAX_HEADER, TENSOR_ALIGN, TOKENIZER,
    VERSION,
};
use crate::config::ModelConfig;
use crate::error::Error;
use kinglet_kernels::packing::{Layout, PackedMatrix};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// A validated `.kgl` file in memory.
pub struct ModelFile {
    path: PathBuf,
    map: Mapped,
    length: usize,
    data_start: usize,
    header: Header,
    tensors: BTreeMap<String, Tensor>,
    /// Byte ranges of all tensors but the checksums, in file order, with their names.
    order: Vec<(String, Range<usize>)>,
    checksums: Range<usize>,
}

/// A weight's place in the file.
#[derive(Clone, Debug)]
struct Tensor {
    stored: Stored,
    range: Range<usize>,
}

/// A weight's place in a file that has been validated: a view of it costs next to nothing.
#[derive(Clone, Debug)]
pub struct MatrixHandle {
    layout: Layout,
    activations: Activations,
    range: Range<usize>,
}

impl MatrixHandle {
    /// Kind and shape.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How it takes its inputs.
    pub fn activations(&self) -> Activations {
        self.activations
    }
}

/// What [`ModelFile::tensors`] lists.
#[derive(Clone, Debug)]
pub struct TensorInfo<'a> {
    /// Name.
    pub name: &'a str,
    /// Name of the kind.
    pub kind: &'a str,
    /// Logical shape.
    pub shape: &'a [usize],
    /// Bytes in the file.
    pub bytes: usize,
}

impl ModelFile {
    /// Maps and validates a file; the checksums are left to [`ModelFile::verify`].
    ///
    /// # Errors
    /// A file that cannot be read, is no `.kgl` file, has an unknown version or is damaged.
    pub fn open(path: &Path) -> Result<ModelFile, Error> {
        let map = Mapped::open(path)?;
        let length = map.bytes().len();
        Self::parse(path.to_owned(), map, length)
    }

    /// Validates a file's bytes, copied to memory; `path` is for messages.
    ///
    /// # Errors
    /// As [`ModelFile::open`].
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<ModelFile, Error> {
        Self::parse(path.to_owned(), Mapped::copy(bytes), bytes.len())
    }

    fn parse(path: PathBuf, map: Mapped, length: usize) -> Result<ModelFile, Error> {
        let bytes = &map.bytes()[..length];
        let damaged = |reason: String| Error::Damaged {
            path: path.clone(),
            reason,
        };
        let header_len = header_length(&path, bytes)?;
        let (_, metadata) =
            SafeTensors::read_metadata(bytes).map_err(|e| damaged(format!("header: {e}")))?;
        let (known, header) = parse_header(&path, &metadata)?;
        let data_start = 8 + header_len;
        if !data_start.is_multiple_of(DATA_ALIGN) {
            return Err(damaged(format!(
                "data starts at byte {data_start}: expected a multiple of {DATA_ALIGN}"
            )));
        }
        validate::header(&header).map_err(&damaged)?;
        if header.version() > known {
            return Err(damaged(format!(
                "the file says format version {known}, but uses what came with version {}",
                header.version()
            )));
        }
        let mut file = ModelFile {
            path: path.clone(),
            length,
            data_start,
            header,
            tensors: BTreeMap::new(),
            order: vec![],
            checksums: 0..0,
            map,
        };
        file.place_tensors(&metadata).map_err(damaged)?;
        Ok(file)
    }

    /// Checks every tensor of the container against the header, and notes where it lies.
    fn place_tensors(&mut self, metadata: &Metadata) -> Result<(), String> {
        let mut expected: BTreeMap<&str, (Dtype, usize)> = BTreeMap::new();
        for (name, info) in &self.header.weights {
            let stored = validate::stored(info)?;
            let dtype = match stored {
                Stored::Matrix(_) => Dtype::U8,
                Stored::Vector(_) => Dtype::F32,
            };
            expected.insert(name, (dtype, stored.bytes()));
        }
        let texts = [
            (TOKENIZER, self.header.tokenizer_bytes),
            (CHAT_TEMPLATE, self.header.chat_template_bytes),
        ];
        for (name, bytes) in texts {
            let padded = bytes.checked_next_multiple_of(TENSOR_ALIGN);
            let padded = padded.ok_or_else(|| format!("{name} of {bytes} bytes"))?;
            if bytes > 0 {
                expected.insert(name, (Dtype::U8, padded));
            }
        }
        let checksums = ((expected.len() + 1) * 8).next_multiple_of(TENSOR_ALIGN);
        expected.insert(CHECKSUMS, (Dtype::U8, checksums));

        let found = metadata.offset_keys();
        for name in &found {
            if !expected.contains_key(name.as_str()) {
                return Err(format!("tensor {name} is not in the header's list"));
            }
        }
        if let Some(name) = expected.keys().find(|name| metadata.info(name).is_none()) {
            return Err(format!("tensor {name} is missing"));
        }
        if found.last().map(String::as_str) != Some(CHECKSUMS) {
            return Err("the checksums are not the last tensor".to_owned());
        }
        for name in found {
            let info = metadata.info(&name).ok_or("a tensor without entry")?;
            let (dtype, bytes) = expected[name.as_str()];
            let (start, end) = info.data_offsets;
            if info.dtype != dtype {
                return Err(format!(
                    "tensor {name} is {:?}: expected {dtype:?}",
                    info.dtype
                ));
            }
            if end - start != bytes {
                return Err(format!(
                    "tensor {name} has {} bytes: its kind and shape need {bytes}",
                    end - start
                ));
            }
            let range = self.data_start + start..self.data_start + end;
            if name == CHECKSUMS {
                self.checksums = range;
                continue;
            }
            self.order.push((name.clone(), range.clone()));
            if let Some(info) = self.header.weights.get(&name) {
                let stored = validate::stored(info)?;
                self.tensors.insert(name, Tensor { stored, range });
            }
        }
        if self.header.tokenizer_bytes == 0 {
            return Err("there is no tokenizer".to_owned());
        }
        std::str::from_utf8(self.text(CHAT_TEMPLATE, self.header.chat_template_bytes))
            .map_err(|e| format!("the chat template is not UTF-8: {e}"))?;
        Ok(())
    }

    /// The first `len` bytes of a text tensor, empty if there is none.
    fn text(&self, name: &str, len: usize) -> &[u8] {
        let place = self.place(name);
        place.map_or(&[], |range| &self.bytes()[range][..len])
    }

    /// Where a tensor lies.
    fn place(&self, name: &str) -> Option<Range<usize>> {
        let found = self.order.iter().find(|(found, _)| found == name);
        found.map(|(_, range)| range.clone())
    }

    fn bytes(&self) -> &[u8] {
        &self.map.bytes()[..self.length]
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything that the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.header.config
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.length as u64
    }

    /// `tokenizer.json`
    pub fn tokenizer_json(&self) -> &[u8] {
        self.text(TOKENIZER, self.header.tokenizer_bytes)
    }

    /// Says that [`ModelFile::tokenizer_json`] has been read: it may be as long as a tenth of the model, and
    /// need not stay in memory.
    pub(crate) fn release_tokenizer_json(&self) {
        if let Some(range) = self.place(TOKENIZER) {
            self.map.release(range);
        }
    }

    /// The chat template (Jinja), if there is one.
    pub fn chat_template(&self) -> Option<&str> {
        let text = self.text(CHAT_TEMPLATE, self.header.chat_template_bytes);
        std::str::from_utf8(text)
            .ok()
            .filter(|text| !text.is_empty())
    }

    /// Whether there is a weight of that name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Every weight, in file order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorInfo<'_>> {
        self.order.iter().filter_map(|(name, range)| {
            let info = self.header.weights.get(name)?;
            Some(TensorInfo {
                name,
                kind: &info.kind,
                shape: &info.shape,
                bytes: range.len(),
            })
        })
    }

    /// Weights of the model; a head beside a tied embedding, the same weights once more, and what
    /// corrects quantized weights are not counted.
    pub fn parameters(&self) -> u64 {
        let weights = expected_weights(self.config());
        weights
            .values()
            .map(|shape| shape.iter().product::<usize>() as u64)
            .sum()
    }

    fn tensor(&self, name: &str) -> Result<&Tensor, Error> {
        self.tensors.get(name).ok_or_else(|| Error::Damaged {
            path: self.path.clone(),
            reason: format!("tensor {name} is missing"),
        })
    }

    /// Where a matrix lies, for [`ModelFile::view`].
    ///
    /// # Errors
    /// No matrix of that name.
    pub fn matrix_handle(&self, name: &str) -> Result<MatrixHandle, Error> {
        let tensor = self.tensor(name)?;
        match tensor.stored {
            Stored::Matrix(layout) => Ok(MatrixHandle {
                layout,
                activations: self.header.weights[name].activations,
                range: tensor.range.clone(),
            }),
            Stored::Vector(_) => Err(Error::Damaged {
                path: self.path.clone(),
                reason: format!("tensor {name} is a vector"),
            }),
        }
    }

    /// The matrix of a handle from this file.
    ///
    /// # Panics
    /// If the handle is from another file.
    pub fn view(&self, handle: &MatrixHandle) -> PackedMatrix<'_> {
        let bytes = &self.bytes()[handle.range.clone()];
        PackedMatrix::new(handle.layout, bytes).expect("a handle from this file")
    }

    /// A packed matrix.
    ///
    /// # Errors
    /// No matrix of that name.
    pub fn matrix(&self, name: &str) -> Result<PackedMatrix<'_>, Error> {
        Ok(self.view(&self.matrix_handle(name)?))
    }

    /// A vector, without its padding.
    ///
    /// # Errors
    /// No vector of that name.
    pub fn vector(&self, name: &str) -> Result<&[f32], Error> {
        let tensor = self.tensor(name)?;
        match tensor.stored {
            Stored::Vector(len) => {
                Ok(&bytemuck::cast_slice(&self.bytes()[tensor.range.clone()])[..len])
            }
            Stored::Matrix(_) => Err(Error::Damaged {
                path: self.path.clone(),
                reason: format!("tensor {name} is a matrix"),
            }),
        }
    }

    /// Checks the checksums of the header and of every tensor; `progress(done, total)` in bytes.
    ///
    /// # Errors
    /// What is damaged.
    pub fn verify(&self, mut progress: impl FnMut(u64, u64)) -> Result<(), Error> {
        /// Bytes between two reports.
        const STEP: usize = 1 << 24;
        let bytes = self.bytes();
        let checksums = &bytes[self.checksums.clone()];
        let header = ("the header".to_owned(), 0..self.data_start);
        let mut done = 0;
        let parts = [&header].into_iter().chain(&self.order);
        for ((name, range), sum) in parts.zip(checksums.chunks_exact(8)) {
            let mut hash = Xxh3::new();
            for chunk in bytes[range.clone()].chunks(STEP) {
                hash.update(chunk);
                done += chunk.len();
                progress(done as u64, self.length as u64);
            }
            if hash.digest().to_le_bytes() != sum {
                return Err(Error::Damaged {
                    path: self.path.clone(),
                    reason: format!("the checksum of {name} does not match"),
                });
            }
        }
        if checksums[8 * (self.order.len() + 1)..]
            .iter()
            .any(|&byte| byte != 0)
        {
            return Err(Error::Damaged {
                path: self.path.clone(),
                reason: "the checksums are followed by other bytes".to_owned(),
            });
        }
        progress(self.length as u64, self.length as u64);
        Ok(())
    }
}

/// The length of the JSON header, checked against the file and the limit.
fn header_length(path: &Path, bytes: &[u8]) -> Result<usize, Error> {
    let not_kinglet = |reason: &str| Error::NotKinglet {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    if bytes.starts_with(b"GGUF") {
        return Err(not_kinglet(
            "this is a GGUF file: convert it with `kinglet-convert INPUT -o model.kgl`",
        ));
    }
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(not_kinglet("the file is too short for a .kgl file"));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER as u64 || rest.first() != Some(&b'{') {
        return Err(not_kinglet("this is not a .kgl file"));
    }
    if length > rest.len() as u64 {
        return Err(Error::Damaged {
            path: path.to_owned(),
            reason: format!(
                "the header says {length} bytes, but the file has {}",
                rest.len()
            ),
        });
    }
    Ok(length as usize)
}

/// The version of the format, and the header document in the metadata.
fn parse_header(path: &Path, metadata: &Metadata) -> Result<(u32, Header), Error> {
    let entries = metadata.metadata().as_ref();
    let entry = |name: &str| {
        entries
            .and_then(|entries| entries.get(name))
            .map(String::as_str)
    };
    if entry("format") != Some("kinglet") {
        return Err(Error::NotKinglet {
            path: path.to_owned(),
            reason: "this is a safetensors file, but not a .kgl file: convert the model's folder \
                     with `kinglet-convert FOLDER -o model.kgl`"
                .to_owned(),
        });
    }
    let version = entry("version").unwrap_or("none");
    let known = (1..=VERSION).find(|known| known.to_string() == version);
    let known = known.ok_or_else(|| Error::Version {
        path: path.to_owned(),
        found: version.to_owned(),
        newest: VERSION,
    })?;
    let document = entry("header").unwrap_or_default();
    let header = serde_json::from_str(document).map_err(|e| Error::Damaged {
        path: path.to_owned(),
        reason: format!("header: {e}"),
    })?;
    Ok((known, header))
}
