//! Flags, defined once with their help; names as in llama.cpp.

use clap::{Args, Parser, Subcommand, ValueEnum};
use kinglet_kernels::kv::KvKind;
use std::path::PathBuf;

/// Run compressed language models on this computer's CPU.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
    kinglet run -m model.kgl -p \"Once upon a time\" -n 100\n  \
    kinglet chat -m model.kgl\n  \
    kinglet bench -m model.kgl -p 512 -n 128 -t 1,2\n\n\
    KINGLET_ISA chooses the kernels: scalar, avx2, avxvnni, avx512vnni, amx, neon, dotprod or i8mm \
    [default: the widest that the CPU has]"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Continue a prompt; the completion alone goes to standard output
    #[command(after_help = "Examples:\n  \
        kinglet run -m model.kgl -p \"The capital of France is\" -n 20 --temp 0\n  \
        kinglet run -m model.kgl --chat -p \"Why is the sky blue?\"\n  \
        git diff | kinglet run -m model.kgl --chat -p - -c 8192 > summary.txt")]
    Run(RunArgs),
    /// Talk with a model, by its own chat template
    #[command(after_help = "Examples:\n  \
        kinglet chat -m model.kgl\n  \
        kinglet chat -m model.kgl --system \"Answer in one sentence.\" --temp 0.2\n\n\
        /help in the chat lists its commands; Ctrl-C stops an answer, Ctrl-D ends the chat")]
    Chat(ChatArgs),
    /// Turn texts into vectors: one line of JSON for each
    #[command(after_help = "Examples:\n  \
        kinglet embed -m minilm.kgl \"A small bird\" \"A wren\"\n  \
        kinglet embed -m minilm.kgl --file lines.txt --no-text > vectors.jsonl\n  \
        sort -u questions.txt | kinglet embed -m minilm.kgl --truncate\n  \
        kinglet embed -m minilm.kgl --file lines.txt --bench --batch 1")]
    Embed(EmbedArgs),
    /// Classify texts, or pairs of texts: one line of JSON with the scores of each
    #[command(after_help = "Examples:\n  \
        kinglet classify -m sentiment.kgl \"What a lovely day\"\n  \
        kinglet classify -m sentiment.kgl --file reviews.txt\n  \
        kinglet classify -m entails.kgl --pair \"It rains.\" \"The street is wet.\"\n  \
        kinglet classify -m rerank.kgl --pair --file pairs.tsv")]
    Classify(ClassifyArgs),
    /// Show a model's configuration, its weights and the memory that it needs
    #[command(after_help = "Examples:\n  \
        kinglet info -m model.kgl\n  \
        kinglet info -m model.kgl --tensors\n  \
        kinglet info -m model.kgl -c 8192 --json")]
    Info(InfoArgs),
    /// Check every checksum of a file
    #[command(after_help = "Example:\n  kinglet verify -m model.kgl")]
    Verify(VerifyArgs),
    /// Measure the speed of models
    #[command(after_help = "Examples:\n  \
        kinglet bench -m model.kgl\n  \
        kinglet bench -m q4.kgl q8.kgl -p 512 -n 128 -d 0,512 -t 1,2 -r 5\n  \
        kinglet bench -m model.kgl --roofline\n  \
        KINGLET_ISA=avx2 kinglet bench -m model.kgl --json")]
    Bench(BenchArgs),
    /// Measure the quality of a model on a text: perplexity, and distance from a reference
    #[command(after_help = "Examples:\n  \
        kinglet eval -m q4.kgl --text news.txt --chunks 40\n  \
        kinglet eval -m q4.kgl --text news.txt --reference f16.kgl --json")]
    Eval(EvalArgs),
    /// Print a completion script
    #[command(after_help = "Example:\n  \
        kinglet completions bash > ~/.local/share/bash-completion/completions/kinglet")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
pub struct ModelArgs {
    /// The model, a .kgl file
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Check every checksum before running
    #[arg(long)]
    pub verify: bool,
}

#[derive(Args)]
pub struct EngineArgs {
    /// Threads, at most one for each core [default: the performance cores]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
    /// The cores that threads are held to
    #[arg(long, value_enum, default_value_t = Affinity::Auto)]
    pub affinity: Affinity,
}

/// The cores that threads are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Affinity {
    /// Performance cores where cores differ or each has a thread, else none
    Auto,
    /// Performance cores
    Performance,
    /// Wherever the system puts them
    None,
}

#[derive(Args)]
pub struct ContextArgs {
    /// Tokens that fit, prompt and answer together [default: 4096, or what the model was trained for]
    #[arg(short, long, value_name = "TOKENS")]
    pub ctx: Option<usize>,
    /// How keys and values are kept: f32, q16, q8 or k8v4
    #[arg(long, value_name = "KIND", default_value_t)]
    pub kv: KvKind,
}

#[derive(Args)]
pub struct SamplingArgs {
    /// Seed of the choices [default: random]
    #[arg(short, long)]
    pub seed: Option<u64>,
    /// Temperature; 0: always the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    pub temp: f32,
    /// Choose among the K most likely tokens; 0: all
    #[arg(long, value_name = "K", default_value_t = 40)]
    pub top_k: usize,
    /// Choose among the most likely tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    pub top_p: f32,
    /// Leave out tokens with less than this part of the most likely one's probability
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    pub min_p: f32,
    /// Make tokens that were there lately less likely; 1: do not
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub repeat_penalty: f32,
    /// How many tokens are lately
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub repeat_last_n: usize,
    /// End the text at this string; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
}

#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub context: ContextArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// The prompt; - reads it from standard input, but for a newline at its end
    #[arg(
        short,
        long,
        required_unless_present = "file",
        allow_hyphen_values = true
    )]
    pub prompt: Option<String>,
    /// Read the prompt from a file, but for a newline at its end
    #[arg(short, long, conflicts_with = "prompt")]
    pub file: Option<PathBuf>,
    /// The most tokens to generate; -1: until the model ends or the context is full
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = -1, allow_negative_numbers = true)]
    pub predict: i64,
    /// Put the prompt into the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// Go on when the model ends its text
    #[arg(long)]
    pub ignore_eos: bool,
    /// Print one JSON object instead of the text
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct ChatArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub context: ContextArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// The most tokens of an answer; -1: until the model ends it
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = -1, allow_negative_numbers = true)]
    pub predict: i64,
}

#[derive(Args)]
pub struct TextArgs {
    /// The texts [default: the lines of standard input]
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
    /// Read the texts from a file, one per line
    #[arg(short, long, conflicts_with = "texts")]
    pub file: Option<PathBuf>,
    /// Cut texts that are longer than the model takes
    #[arg(long)]
    pub truncate: bool,
    /// Leave the texts out of the output
    #[arg(long)]
    pub no_text: bool,
}

#[derive(Args)]
pub struct EmbedArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub texts: TextArgs,
    /// How the vectors of a text's tokens become one [default: as the model was made]
    #[arg(long, value_enum)]
    pub pooling: Option<Pooling>,
    /// Whether vectors get length 1 [default: as the model was made]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub normalize: Option<bool>,
    /// Measure the time from texts to vectors instead of printing them
    #[arg(long)]
    pub bench: bool,
    /// Texts that --bench embeds at a time [default: all]
    #[arg(long, value_name = "N", requires = "bench")]
    pub batch: Option<usize>,
    /// Runs of --bench over all texts
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    pub repeat: usize,
}

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pooling {
    /// Their mean
    Mean,
    /// That of the first token
    Cls,
    /// They stay: a list of vectors
    None,
}

impl From<Pooling> for crate::config::Pooling {
    fn from(pooling: Pooling) -> crate::config::Pooling {
        match pooling {
            Pooling::Mean => crate::config::Pooling::Mean,
            Pooling::Cls => crate::config::Pooling::Cls,
            Pooling::None => crate::config::Pooling::None,
        }
    }
}

#[derive(Args)]
pub struct ClassifyArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub texts: TextArgs,
    /// Classify pairs of texts: two arguments each, or lines with a tab between the two
    #[arg(long)]
    pub pair: bool,
}

#[derive(Args)]
pub struct InfoArgs {
    /// The model, a .kgl file
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    #[command(flatten)]
    pub context: ContextArgs,
    /// List every tensor
    #[arg(long)]
    pub tensors: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct VerifyArgs {
    /// The model, a .kgl file
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
}

#[derive(Args)]
pub struct BenchArgs {
    /// The models, .kgl files
    #[arg(short, long, value_name = "FILE", required = true, num_args = 1..)]
    pub model: Vec<PathBuf>,
    /// Lengths of prompts to process; 0: none
    #[arg(
        short,
        long,
        value_name = "TOKENS",
        value_delimiter = ',',
        default_value = "512"
    )]
    pub prompt: Vec<usize>,
    /// Numbers of tokens to generate; 0: none
    #[arg(
        short,
        long,
        value_name = "TOKENS",
        value_delimiter = ',',
        default_value = "128"
    )]
    pub n: Vec<usize>,
    /// Tokens that are in the context before
    #[arg(
        short,
        long,
        value_name = "TOKENS",
        value_delimiter = ',',
        default_value = "0"
    )]
    pub depth: Vec<usize>,
    /// Numbers of threads [default: the performance cores]
    #[arg(short, long, value_delimiter = ',')]
    pub threads: Vec<usize>,
    /// Runs of each test
    #[arg(short, long, default_value_t = 5)]
    pub repeat: usize,
    /// The cores that threads are held to
    #[arg(long, value_enum, default_value_t = Affinity::Auto)]
    pub affinity: Affinity,
    /// How keys and values are kept: f32, q16, q8 or k8v4
    #[arg(long, value_name = "KIND", default_value_t)]
    pub kv: KvKind,
    /// Measure what the machine can do, too: how fast a plain loop reads as much memory as decoding a
    /// token does, and the INT8 peak, which bounds prompts
    #[arg(long)]
    pub roofline: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The text to score, a UTF-8 file
    #[arg(long, value_name = "TXT")]
    pub text: PathBuf,
    /// Tokens of a window; its second half is scored
    #[arg(short, long, value_name = "TOKENS", default_value_t = 512)]
    pub ctx: usize,
    /// The most windows [default: the whole text]
    #[arg(long, value_name = "N")]
    pub chunks: Option<usize>,
    /// A model to compare the predictions with, for example the f16 one
    #[arg(long, value_name = "FILE")]
    pub reference: Option<PathBuf>,
    /// How keys and values are kept: f32, q16, q8 or k8v4 (the reference's always f32)
    #[arg(long, value_name = "KIND", default_value_t)]
    pub kv: KvKind,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
