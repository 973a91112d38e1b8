//! How much of the machine's limits the matmul kernels reach, as a Markdown table.
//!
//! `cargo bench -p kinglet-benches --bench roofline` (set `KINGLET_ISA` to choose the kernels, and
//! `KINGLET_THREADS` for more than one thread). 512 tokens against the INT8 peak of the instruction
//! set on registers alone; one token, with weights that no cache holds, against a plain read loop.
//! Limit and kernel alternate; medians.

use kinglet_benches::Product;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::packing::Kind;
use kinglet_kernels::pool::ThreadPool;
use kinglet_kernels::{Engine, roofline};
use std::time::Instant;

const KINDS: [&str; 6] = ["q3g32", "q4g32", "q4mg32", "q5g32", "q6g32", "q8g32"];

/// Rows and columns: SmolLM2-135M, Gemma 3 270M, 1.5B and 7B layers, and an odd one.
const SHAPES: [(usize, usize); 7] = [
    (1536, 576),
    (576, 1536),
    (2048, 640),
    (8960, 1536),
    (4096, 4096),
    (11008, 4096),
    (1003, 1000),
];

/// Beyond the last-level cache of most machines.
const STREAMED_BYTES: usize = 256 << 20;

const ROUNDS: usize = 7;

fn main() {
    let isa = Isa::from_env().expect("KINGLET_ISA");
    let threads =
        std::env::var("KINGLET_THREADS").map_or(1, |n| n.parse().expect("KINGLET_THREADS"));
    let engine = Engine::new(isa, ThreadPool::new(threads));
    let pool = ThreadPool::new(threads);
    println!("{isa}, {threads} thread(s)\n");
    println!("| kind | shape | 512 tokens, GMAC/s | of the peak |");
    println!("|---|---|---|---|");
    if roofline::integer_peak(isa, &pool).is_some() {
        for kind in KINDS.map(kind) {
            for shape in SHAPES {
                let mut product = Product::new(&engine, kind, shape, 512);
                let macs = product.macs() as f64;
                let peak = || roofline::integer_peak(isa, &pool).unwrap_or(f64::NAN);
                let (rate, share) = measure(peak, || macs / seconds(|| product.run(&engine)));
                let (rows, cols) = shape;
                println!(
                    "| {kind} | {rows} x {cols} | {:.0} | {:.1} % |",
                    rate / 1e9,
                    share * 100.0
                );
            }
        }
    }
    println!("\n| kind | one token, weights read at GB/s | of the read bandwidth |");
    println!("|---|---|---|");
    let buffer = vec![1u64; STREAMED_BYTES / size_of::<u64>()];
    for kind in KINDS.map(kind) {
        let mut product = Product::new(&engine, kind, (STREAMED_BYTES * 2 / 4096, 4096), 1);
        let bytes = product.weight_bytes() as f64;
        let limit = || roofline::read_bandwidth(&pool, &buffer);
        let (rate, share) = measure(limit, || bytes / seconds(|| product.run(&engine)));
        println!("| {kind} | {:.1} | {:.1} % |", rate / 1e9, share * 100.0);
    }
}

fn kind(name: &str) -> Kind {
    name.parse().expect("a kind of the list")
}

fn seconds(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

/// The medians of a rate and of its share of the limit that was measured beside it.
fn measure(limit: impl Fn() -> f64, mut rate: impl FnMut() -> f64) -> (f64, f64) {
    rate();
    let (mut rates, mut shares): (Vec<f64>, Vec<f64>) = (0..ROUNDS)
        .map(|_| {
            let (limit, rate) = (limit(), rate());
            (rate, rate / limit)
        })
        .unzip();
    (median(&mut rates), median(&mut shares))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
