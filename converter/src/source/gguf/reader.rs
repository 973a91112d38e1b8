//! The container: metadata and places of tensors, every count and length checked before use.
//!
//! Format: the `gguf.md` of ggml, versions 2 and 3, little-endian.

use super::types::GgmlType;
use std::collections::{BTreeMap, HashMap};

/// The most dimensions of a tensor in ggml.
const MAX_DIMENSIONS: u32 = 4;
/// The longest name of a key or tensor; ggml itself allows 64 bytes for tensors.
const MAX_NAME: u64 = 1 << 16;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned or signed integer.
    Int(i128),
    /// `f32` or `f64`.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
    /// An array of integers.
    Ints(Vec<i64>),
    /// An array of floats.
    Floats(Vec<f32>),
    /// An array of texts.
    Texts(Vec<String>),
    /// An array of truth values.
    Bools(Vec<bool>),
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a bool",
            Value::Text(_) => "a string",
            Value::Ints(_) => "an array of integers",
            Value::Floats(_) => "an array of floats",
            Value::Texts(_) => "an array of strings",
            Value::Bools(_) => "an array of bools",
        }
    }
}

/// A tensor's place.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Type of its blocks.
    pub kind: GgmlType,
    /// Dimensions, the one that lies side by side first.
    pub dimensions: Vec<usize>,
    /// First byte in the file.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// All that stands before the data.
#[derive(Debug, Default)]
pub struct Contents {
    /// Metadata.
    pub metadata: HashMap<String, Value>,
    /// Tensors.
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// Why bytes are not a GGUF file.
#[derive(Debug, PartialEq)]
pub enum ParseError {
    /// More of the file is needed.
    Short,
    /// A sentence that names what is wrong.
    Invalid(String),
}

impl From<String> for ParseError {
    fn from(reason: String) -> ParseError {
        ParseError::Invalid(reason)
    }
}

/// Parses the start of a file of `file_len` bytes.
///
/// # Errors
/// [`ParseError::Short`] if the metadata goes on beyond `bytes`.
pub fn parse(bytes: &[u8], file_len: u64) -> Result<Contents, ParseError> {
    let mut cursor = Cursor {
        bytes,
        at: 0,
        file_len,
    };
    if cursor.take(4)? != b"GGUF" {
        return Err("not a GGUF file: it does not start with GGUF"
            .to_owned()
            .into());
    }
    match cursor.u32()? {
        2 | 3 => {}
        version if matches!(version.swap_bytes(), 1..=3) => {
            return Err("a big-endian GGUF file: convert a little-endian one"
                .to_owned()
                .into());
        }
        version => {
            return Err(format!("GGUF version {version}: expected 2 or 3").into());
        }
    }
    let tensor_count = cursor.u64()?;
    let pair_count = cursor.u64()?;
    // The least that an entry takes: the length of its name, and what follows.
    cursor.check_count("tensors", tensor_count, 8 + 4 + 8 + 4 + 8)?;
    cursor.check_count("metadata entries", pair_count, 8 + 4 + 1)?;
    let mut contents = Contents::default();
    for _ in 0..pair_count {
        let key = cursor.name("metadata key")?;
        let kind = cursor.u32()?;
        let value = cursor.value(&key, kind)?;
        if contents.metadata.insert(key.clone(), value).is_some() {
            return Err(format!("metadata {key} stands there twice").into());
        }
    }
    for _ in 0..tensor_count {
        let name = cursor.name("tensor name")?;
        let info = cursor.tensor(&name)?;
        if contents.tensors.insert(name.clone(), info).is_some() {
            return Err(format!("tensor {name} stands there twice").into());
        }
    }
    place_tensors(&mut contents, cursor.at as u64, file_len)?;
    Ok(contents)
}

/// Turns offsets relative to the data into places in the file, and checks them against it and each
/// other.
fn place_tensors(contents: &mut Contents, end: u64, file_len: u64) -> Result<(), String> {
    let alignment = match contents.metadata.get("general.alignment") {
        None => 32,
        Some(Value::Int(value)) => u64::try_from(*value).unwrap_or(0),
        Some(other) => {
            return Err(format!(
                "general.alignment is {}: expected an integer",
                other.kind()
            ));
        }
    };
    if !alignment.is_power_of_two() || !(8..=1 << 20).contains(&alignment) {
        return Err(format!(
            "general.alignment is {alignment}: expected a power of two from 8 to 1048576"
        ));
    }
    let start = end.next_multiple_of(alignment);
    let mut places = vec![];
    for (name, tensor) in &mut contents.tensors {
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(format!(
                "tensor {name} starts at {} of the data: expected a multiple of {alignment}",
                tensor.offset
            ));
        }
        let offset = start.checked_add(tensor.offset);
        let last = offset.and_then(|offset| offset.checked_add(tensor.bytes));
        let (Some(offset), Some(last)) = (offset, last.filter(|&last| last <= file_len)) else {
            return Err(format!(
                "tensor {name} takes {} bytes from {} of the data on, beyond the end of the file \
                 of {file_len}: is it cut short?",
                tensor.bytes, tensor.offset
            ));
        };
        tensor.offset = offset;
        places.push((offset, last, name));
    }
    places.sort_unstable();
    for pair in places.windows(2) {
        if pair[1].0 < pair[0].1 {
            return Err(format!("tensors {} and {} overlap", pair[0].2, pair[1].2));
        }
    }
    Ok(())
}

/// Reads the start of a file.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file_len: u64,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ParseError> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..len) else {
            self.check_bytes(len as u64)?;
            return Err(ParseError::Short);
        };
        self.at += len;
        Ok(taken)
    }

    /// Whether the file has `len` more bytes.
    fn check_bytes(&self, len: u64) -> Result<(), ParseError> {
        let left = self.file_len.saturating_sub(self.at as u64);
        if len <= left {
            return Ok(());
        }
        Err(format!(
            "at byte {}: {len} bytes are needed, {left} are left",
            self.at
        )
        .into())
    }

    /// Whether `count` things of at least `size` bytes may follow.
    fn check_count(&self, what: &str, count: u64, size: u64) -> Result<(), ParseError> {
        let left = self.file_len.saturating_sub(self.at as u64);
        if count.checked_mul(size).is_some_and(|bytes| bytes <= left) {
            return Ok(());
        }
        Err(format!("{count} {what} do not fit into the {left} bytes that are left").into())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("N bytes"))
    }

    fn u32(&mut self) -> Result<u32, ParseError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, ParseError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self, what: &str, limit: u64) -> Result<String, ParseError> {
        let len = self.u64()?;
        if len > limit {
            return Err(format!("{what} of {len} bytes: expected at most {limit}").into());
        }
        self.check_count(&format!("bytes of {what}"), len, 1)?;
        let bytes = self.take(len as usize)?;
        let text = std::str::from_utf8(bytes);
        Ok(text
            .map_err(|e| format!("{what} is not UTF-8: {e}"))?
            .to_owned())
    }

    fn name(&mut self, what: &str) -> Result<String, ParseError> {
        self.text(what, MAX_NAME)
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, ParseError> {
        Ok(match kind {
            8 => Value::Text(self.text(key, u64::MAX)?),
            9 => return self.array_value(key),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            7 => Value::Bool(self.bool(key)?),
            _ => Value::Int(self.int(key, kind)?),
        })
    }

    fn bool(&mut self, key: &str) -> Result<bool, ParseError> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(format!("{key}: a bool of {other}: expected 0 or 1").into()),
        }
    }

    fn int(&mut self, key: &str, kind: u32) -> Result<i128, ParseError> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => u32::from_le_bytes(self.array()?).into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            10 => u64::from_le_bytes(self.array()?).into(),
            11 => i64::from_le_bytes(self.array()?).into(),
            _ => return Err(format!("{key}: unknown value type {kind}").into()),
        })
    }

    fn array_value(&mut self, key: &str) -> Result<Value, ParseError> {
        let kind = self.u32()?;
        let count = self.u64()?;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(format!("{key}: arrays of arrays are not supported").into()),
            _ => return Err(format!("{key}: unknown array type {kind}").into()),
        };
        self.check_count(&format!("elements of {key}"), count, size)?;
        let each = 0..count;
        Ok(match kind {
            6 => Value::Floats(
                each.map(|_| Ok(f32::from_le_bytes(self.array()?)))
                    .collect::<Result<_, ParseError>>()?,
            ),
            12 => Value::Floats(
                each.map(|_| Ok(f64::from_le_bytes(self.array()?) as f32))
                    .collect::<Result<_, ParseError>>()?,
            ),
            7 => Value::Bools(each.map(|_| self.bool(key)).collect::<Result<_, _>>()?),
            8 => Value::Texts(
                each.map(|_| self.text(key, u64::MAX))
                    .collect::<Result<_, _>>()?,
            ),
            _ => Value::Ints(
                each.map(|_| {
                    let value = self.int(key, kind)?;
                    let value = i64::try_from(value);
                    Ok(value.map_err(|_| format!("{key}: an element beyond 63 bits"))?)
                })
                .collect::<Result<_, ParseError>>()?,
            ),
        })
    }

    fn tensor(&mut self, name: &str) -> Result<TensorInfo, ParseError> {
        let count = self.u32()?;
        if count == 0 || count > MAX_DIMENSIONS {
            return Err(format!(
                "tensor {name} has {count} dimensions: expected 1 to {MAX_DIMENSIONS}"
            )
            .into());
        }
        let mut dimensions = vec![];
        for _ in 0..count {
            let dimension = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
            dimensions.push(dimension);
        }
        let kind = self.u32()?;
        let offset = self.u64()?;
        let kind = GgmlType::from_number(kind).map_err(|e| format!("tensor {name}: {e}"))?;
        let elements = dimensions.iter().try_fold(1u64, |product, &dimension| {
            product.checked_mul(dimension as u64)
        });
        let elements = elements.filter(|&elements| elements > 0 && elements < 1 << 48);
        let elements = elements
            .ok_or_else(|| format!("tensor {name} of {dimensions:?} is empty or too large"))?;
        let (block, bytes) = kind.block();
        if !dimensions[0].is_multiple_of(block) {
            return Err(format!(
                "tensor {name} has rows of {}: {kind:?} needs a multiple of {block}",
                dimensions[0]
            )
            .into());
        }
        Ok(TensorInfo {
            kind,
            dimensions,
            offset,
            bytes: elements / block as u64 * bytes as u64,
        })
    }
}
