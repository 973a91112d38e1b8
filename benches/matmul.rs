//! Matmul of one token (a GEMV, bound by memory) and of 512 (a GEMM, bound by arithmetic).
//!
//! `cargo bench -p kinglet-benches --bench matmul` (set `KINGLET_ISA` to choose the kernels).
//! Throughput is in multiply-accumulates ("elements") for many tokens and in weight bytes for one;
//! the `roofline` bench says how much of the machine's limits that is.

use criterion::{Criterion, Throughput, criterion_main};
use kinglet_benches::Product;
use kinglet_kernels::Engine;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::packing::{Group, Kind};
use kinglet_kernels::pool::ThreadPool;

const KINDS: [Kind; 3] = [
    Kind::Q4 {
        group: Group::G32,
        minimum: false,
    },
    Kind::Q4 {
        group: Group::G32,
        minimum: true,
    },
    Kind::Q8 { group: Group::G32 },
];

/// Rows and columns: SmolLM2-135M, Gemma 3 270M, 7B layers and an odd one.
const SHAPES: [(usize, usize); 5] = [
    (1536, 576),
    (2048, 640),
    (4096, 4096),
    (11008, 4096),
    (1003, 1000),
];

fn matmul(criterion: &mut Criterion) {
    let isa = Isa::from_env().expect("KINGLET_ISA");
    let engine = Engine::new(isa, ThreadPool::new(1));
    for tokens in [1, 512] {
        let mut group = criterion.benchmark_group(format!("{isa}/{tokens} tokens"));
        group.sample_size(10);
        for kind in KINDS {
            for shape @ (rows, cols) in SHAPES {
                let mut product = Product::new(&engine, kind, shape, tokens);
                group.throughput(match tokens {
                    1 => Throughput::Bytes(product.weight_bytes() as u64),
                    _ => Throughput::Elements(product.macs() as u64),
                });
                group.bench_function(format!("{kind} {rows}x{cols}"), |bencher| {
                    bencher.iter(|| product.run(&engine));
                });
            }
        }
    }
}

#[allow(missing_docs, reason = "the macro writes a public function")]
mod group {
    criterion::criterion_group!(benches, super::matmul);
}
use group::benches;
criterion_main!(benches);
