//! A model: mapped weights, immutable and shared by any number of sessions.

mod decoder;
mod linear;
mod rope;

pub(crate) use decoder::Decoder;
pub use rope::RopeTable;

use crate::config::ModelConfig;
use crate::error::Error;
use crate::format::ModelFile;
use crate::format::names::layer;
use crate::session::{Session, SessionOptions};
use kinglet_kernels::Engine;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::pool::ThreadPool;
use kinglet_kernels::topology::Topology;
use linear::Linear;
use std::path::Path;

/// A model ready to run.
pub struct Model {
    file: ModelFile,
    engine: Engine,
    embed: Linear,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    /// The output head, where it is not the embedding itself.
    head: Option<Linear>,
}

/// The weights of one decoder block.
struct Layer {
    attn_norm: Vec<f32>,
    q: Linear,
    k: Linear,
    v: Linear,
    /// Norms of query and key heads.
    qk_norms: Option<(Vec<f32>, Vec<f32>)>,
    o: Linear,
    attn_post_norm: Option<Vec<f32>>,
    ffn_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
    ffn_post_norm: Option<Vec<f32>>,
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
        let layers = 0..file.config().layers.len();
        Ok(Model {
            embed: Linear::open(&file, "embed", false)?,
            layers: layers
                .map(|i| Layer::open(&file, i))
                .collect::<Result<_, _>>()?,
            norm: file.vector("norm")?.to_vec(),
            head: file
                .has("head")
                .then(|| Linear::open(&file, "head", false))
                .transpose()?,
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

    /// Bytes of weights that decoding one token reads.
    pub fn bytes_per_token(&self) -> usize {
        let layers = self.layers.iter().flat_map(|layer| {
            [
                &layer.q,
                &layer.k,
                &layer.v,
                &layer.o,
                &layer.gate,
                &layer.up,
                &layer.down,
            ]
        });
        layers.chain([self.head()]).map(Linear::bytes).sum()
    }

    fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(&self.embed)
    }
}

impl Layer {
    fn open(file: &ModelFile, index: usize) -> Result<Layer, Error> {
        let config = file.config();
        let name = |part: &str| layer(index, part);
        let vector = |part: &str| file.vector(&name(part)).map(<[f32]>::to_vec);
        let post = |part: &str| config.post_norms.then(|| vector(part)).transpose();
        let linear = |part: &str, bias: bool| Linear::open(file, &name(part), bias);
        let qk_norms = if config.qk_norms {
            Some((vector("q_norm")?, vector("k_norm")?))
        } else {
            None
        };
        Ok(Layer {
            attn_norm: vector("attn_norm")?,
            q: linear("q", config.qkv_biases)?,
            k: linear("k", config.qkv_biases)?,
            v: linear("v", config.qkv_biases)?,
            qk_norms,
            o: linear("o", false)?,
            attn_post_norm: post("attn_post_norm")?,
            ffn_norm: vector("ffn_norm")?,
            gate: linear("gate", false)?,
            up: linear("up", false)?,
            down: linear("down", false)?,
            ffn_post_norm: post("ffn_post_norm")?,
        })
    }
}
