//! A GGUF file that can be changed before its bytes are made.

/// A metadata value, as the file has it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    U32(u32),
    U64(u64),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// A type and bytes of any content.
    Raw(u32, Vec<u8>),
}

/// A text.
pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// An array of texts.
pub fn texts(texts: &[&str]) -> Value {
    Value::Texts(texts.iter().map(|&text| text.to_owned()).collect())
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

fn put_array<const N: usize>(out: &mut Vec<u8>, kind: u32, elements: &[[u8; N]]) {
    out.extend(kind.to_le_bytes());
    out.extend((elements.len() as u64).to_le_bytes());
    out.extend(elements.as_flattened());
}

impl Value {
    /// Type and bytes.
    fn put(&self, out: &mut Vec<u8>) {
        let kind: u32 = match self {
            Value::U8(_) => 0,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::Text(_) => 8,
            Value::Texts(_) | Value::I32s(_) | Value::F32s(_) => 9,
            Value::U64(_) => 10,
            Value::Raw(kind, _) => *kind,
        };
        out.extend(kind.to_le_bytes());
        match self {
            Value::U8(value) => out.push(*value),
            Value::U32(value) => out.extend(value.to_le_bytes()),
            Value::U64(value) => out.extend(value.to_le_bytes()),
            Value::I32(value) => out.extend(value.to_le_bytes()),
            Value::F32(value) => out.extend(value.to_le_bytes()),
            Value::Bool(value) => out.push(u8::from(*value)),
            Value::Text(text) => put_text(out, text.as_bytes()),
            Value::Texts(texts) => {
                put_array::<0>(out, 8, &vec![[]; texts.len()]);
                texts.iter().for_each(|text| put_text(out, text.as_bytes()));
            }
            Value::I32s(values) => {
                let bytes: Vec<_> = values.iter().map(|v| v.to_le_bytes()).collect();
                put_array(out, 5, &bytes);
            }
            Value::F32s(values) => {
                let bytes: Vec<_> = values.iter().map(|v| v.to_le_bytes()).collect();
                put_array(out, 6, &bytes);
            }
            Value::Raw(_, bytes) => out.extend(bytes),
        }
    }
}

/// A tensor: what the file says of it, and the bytes that it puts there.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name.
    pub name: String,
    /// Dimensions, the one that lies side by side first.
    pub dimensions: Vec<u64>,
    /// Number of its type.
    pub kind: u32,
    /// Offset in the data; `None`: where its bytes really are.
    pub offset: Option<u64>,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// Numbers of types, with elements and bytes of a block.
pub const TYPES: [(u32, u64, u64); 13] = [
    (0, 1, 4),
    (1, 1, 2),
    (2, 32, 18),
    (3, 32, 20),
    (6, 32, 22),
    (7, 32, 24),
    (8, 32, 34),
    (10, 256, 84),
    (11, 256, 110),
    (12, 256, 144),
    (13, 256, 176),
    (14, 256, 210),
    (30, 1, 2),
];

impl Tensor {
    /// A tensor with finite values, whatever its type.
    ///
    /// # Panics
    /// If the type is unknown.
    pub fn new(name: &str, kind: u32, dimensions: &[u64]) -> Tensor {
        let known = TYPES.iter().find(|known| known.0 == kind);
        let (_, block, bytes) = known.expect("a known type");
        let len = dimensions.iter().product::<u64>() / block * bytes;
        Tensor {
            name: name.to_owned(),
            dimensions: dimensions.to_vec(),
            kind,
            offset: None,
            // Small positive numbers as f16, bf16 and f32 alike.
            data: (0..len).map(|i| 0x20 + (i * 7 % 23) as u8).collect(),
        }
    }
}

/// A GGUF file.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// The first four bytes.
    pub magic: [u8; 4],
    /// Version.
    pub version: u32,
    /// Metadata, in order; keys may stand there twice.
    pub metadata: Vec<(String, Value)>,
    /// Tensors, in order.
    pub tensors: Vec<Tensor>,
    /// What the file says of the number of tensors and of metadata, where it lies.
    pub counts: (Option<u64>, Option<u64>),
}

/// Tokens of the models here.
pub const TOKENS: [&str; 8] = ["<unk>", "<s>", "</s>", "a", "b", "ab", "Ġ", "Ġa"];

impl Gguf {
    /// A decoder of one layer that converts and runs; every tensor has another type.
    pub fn sound() -> Gguf {
        let metadata = [
            ("general.architecture", text("llama")),
            ("llama.block_count", Value::U32(1)),
            ("llama.embedding_length", Value::U32(32)),
            ("llama.feed_forward_length", Value::U32(32)),
            ("llama.context_length", Value::U32(64)),
            ("llama.attention.head_count", Value::U32(2)),
            ("llama.attention.head_count_kv", Value::U32(1)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.tokens", texts(&TOKENS)),
            (
                "tokenizer.ggml.token_type",
                Value::I32s(vec![2, 3, 3, 1, 1, 1, 1, 1]),
            ),
            ("tokenizer.ggml.merges", texts(&["a b", "Ġ a"])),
            ("tokenizer.ggml.bos_token_id", Value::U32(1)),
            ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ];
        Gguf {
            magic: *b"GGUF",
            version: 3,
            metadata: metadata
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            tensors: vec![
                Tensor::new("token_embd.weight", 8, &[32, 8]),
                Tensor::new("output_norm.weight", 0, &[32]),
                Tensor::new("blk.0.attn_norm.weight", 0, &[32]),
                Tensor::new("blk.0.ffn_norm.weight", 1, &[32]),
                Tensor::new("blk.0.attn_q.weight", 2, &[32, 32]),
                Tensor::new("blk.0.attn_k.weight", 3, &[32, 16]),
                Tensor::new("blk.0.attn_v.weight", 1, &[32, 16]),
                Tensor::new("blk.0.attn_output.weight", 30, &[32, 32]),
                Tensor::new("blk.0.ffn_gate.weight", 0, &[32, 32]),
                Tensor::new("blk.0.ffn_up.weight", 6, &[32, 32]),
                Tensor::new("blk.0.ffn_down.weight", 7, &[32, 32]),
            ],
            counts: (None, None),
        }
    }

    /// The same with the tokenizer of SentencePiece.
    pub fn sentence_piece() -> Gguf {
        let mut file = Gguf::sound();
        file.remove("tokenizer.ggml.merges");
        file.set("tokenizer.ggml.model", text("llama"));
        file.set(
            "tokenizer.ggml.tokens",
            texts(&["<unk>", "<s>", "</s>", "<0x61>", "▁", "a", "b", "ab"]),
        );
        file.set(
            "tokenizer.ggml.token_type",
            Value::I32s(vec![2, 3, 3, 6, 1, 1, 1, 1]),
        );
        file.set(
            "tokenizer.ggml.scores",
            Value::F32s(vec![0.0, 0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0]),
        );
        file
    }

    /// Sets a value, in its place or at the end.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.metadata.iter_mut().find(|pair| pair.0 == key) {
            Some(pair) => pair.1 = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
    }

    /// Removes a value.
    pub fn remove(&mut self, key: &str) {
        self.metadata.retain(|pair| pair.0 != key);
    }

    /// A tensor.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        found.expect("a tensor of the model")
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        self.parts().concat()
    }

    /// Bytes before the data, padding included.
    pub fn metadata_len(&self) -> usize {
        self.parts()[0].len()
    }

    fn parts(&self) -> [Vec<u8>; 2] {
        const ALIGNMENT: usize = 32;
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        let counts = (self.tensors.len() as u64, self.metadata.len() as u64);
        out.extend(self.counts.0.unwrap_or(counts.0).to_le_bytes());
        out.extend(self.counts.1.unwrap_or(counts.1).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut out, key.as_bytes());
            value.put(&mut out);
        }
        let mut data: Vec<u8> = vec![];
        for tensor in &self.tensors {
            put_text(&mut out, tensor.name.as_bytes());
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            for dimension in &tensor.dimensions {
                out.extend(dimension.to_le_bytes());
            }
            out.extend(tensor.kind.to_le_bytes());
            let offset = tensor.offset.unwrap_or(data.len() as u64);
            out.extend(offset.to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        [out, data]
    }
}
