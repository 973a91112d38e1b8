//! A model: mapped weights, immutable and shared by any number of sessions.

mod block;
mod decoder;
mod encoder;
mod linear;
mod norm;
mod rope;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::EncoderMemory;

use crate::config::NormKind;
pub use rope::RopeTable;

use crate::config::ModelConfig;
use crate::encoder::Encoder;
use crate::error::Error;
use crate::format::ModelFile;
use crate::session::{Session, SessionOptions};
use block::Block;
use kinglet_kernels::Engine;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::kv::KvKind;
use kinglet_kernels::pool::ThreadPool;
use kinglet_kernels::topology::Topology;
use linear::Linear;
use norm::Norm;
use std::path::Path;

/// A model ready to run.
pub struct Model {
    file: ModelFile,
    engine: Engine,
    embed: Linear,
    /// Tables of learned positions and token types.
    positions: Option<Linear>,
    token_types: Option<Linear>,
    embed_norm: Option<Norm>,
    blocks: Vec<Block>,
    /// After the last block.
    norm: Option<Norm>,
    /// The output head, where it is not the embedding itself.
    head: Option<Linear>,
    /// Both layers of a classification head.
    classifier: Option<(Linear, Linear)>,
}

impl Model {
    /// Opens a file with the instruction set of `KINGLET_ISA` (or the widest) and a thread for each
    /// performance core.
    ///
    /// # Errors
    /// A file that cannot be used, or an instruction set that this CPU lacks.
    pub fn open(path: &Path) -> Result<Model, Error> {
        let threads = Topology::read().default_threads();
        let engine = Engine::new(Isa::from_env()?, ThreadPool::new(threads));
        Self::new(ModelFile::open(path)?, engine)
    }

    /// A model of an open file on a given engine.
    ///
    /// # Errors
    /// A tensor that the file lacks.
    pub fn new(file: ModelFile, engine: Engine) -> Result<Model, Error> {
        let config = file.config();
        let linear = |name: &str| {
            let open = || Linear::open(&file, name);
            file.has(name).then(open).transpose()
        };
        let norm = |name: &str, kind: NormKind| {
            let open = || Norm::open(&file, name, kind);
            file.has(name).then(open).transpose()
        };
        let classifier = if file.has("classifier") {
            let dense = Linear::open(&file, "classifier_dense")?;
            Some((dense, Linear::open(&file, "classifier")?))
        } else {
            None
        };
        let blocks = 0..config.layers.len();
        Ok(Model {
            embed: Linear::open(&file, "embed")?,
            positions: linear("positions")?,
            token_types: linear("token_types")?,
            embed_norm: norm("embed_norm", NormKind::Layer)?,
            blocks: blocks
                .map(|index| Block::open(&file, index))
                .collect::<Result<_, _>>()?,
            norm: norm("norm", config.norm)?,
            head: linear("head")?,
            classifier,
            file,
            engine,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        self.file.config()
    }

    /// The file.
    pub fn file(&self) -> &ModelFile {
        &self.file
    }

    /// What runs it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Starts a session.
    ///
    /// # Errors
    /// Options that do not fit the model.
    pub fn session(&self, options: SessionOptions) -> Result<Session<'_>, Error> {
        Session::new(self, options)
    }

    /// Whether the model continues texts.
    ///
    /// # Errors
    /// It is an encoder.
    pub fn check_decoder(&self) -> Result<(), Error> {
        match self.config().encoder {
            None => Ok(()),
            Some(_) => Err(Error::NotDecoder {
                path: self.file.path().to_owned(),
                architecture: self.config().architecture.clone(),
            }),
        }
    }

    /// An encoder of texts.
    ///
    /// # Errors
    /// A decoder, or a tokenizer that is damaged.
    pub fn encoder(&self) -> Result<Encoder<'_>, Error> {
        Encoder::new(self)
    }

    /// Bytes that decoding one token reads: weights, and keys and values of `positions` before it.
    pub fn bytes_per_token(&self, kv: KvKind, positions: usize) -> usize {
        let weights = self.matrices().chain([self.head()]).map(Linear::bytes);
        let config = self.config();
        let cache = config.layers.iter().filter_map(|layer| {
            let seen = layer
                .window
                .map_or(positions, |window| window.min(positions));
            kv.bytes(config.kv_heads, config.head_dim, seen)
        });
        weights.chain(cache).sum()
    }

    /// Multiply-accumulates with weights that a token of a decoder's long prompt takes: only the last
    /// token needs the head and, of the last block, more than keys and values.
    pub fn macs_per_token(&self) -> usize {
        let Some((last, others)) = self.blocks.split_last() else {
            return 0;
        };
        let others = others.iter().flat_map(Block::linears);
        others
            .chain(last.keys_and_values())
            .map(Linear::weights)
            .sum()
    }

    /// The matrices of all layers.
    fn matrices(&self) -> impl Iterator<Item = &Linear> {
        self.blocks.iter().flat_map(Block::linears)
    }

    fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(&self.embed)
    }
}
