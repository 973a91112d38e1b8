//! Every ISA against the scalar reference, bit for bit, and the reference against plain sums.

use super::{MatmulKernels, kernels, matmul};
use crate::activations::{ACTIVATION_GROUP, QuantizedRows};
use crate::engine::{MatmulInput, MatmulJob};
use crate::isa::Isa;
use crate::packing::{Codes, Group, Kind, Layout, PackedMatrix, pack_floats};
use crate::pool::ThreadPool;
use half::f16;
use proptest::prelude::*;
use std::sync::LazyLock;

/// Bytes that start on a 64-byte boundary.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code, reason = "read as bytes")] [u8; 64]);

struct Packed {
    layout: Layout,
    lines: Vec<Line>,
}

impl Packed {
    fn new(layout: Layout, pack: impl FnOnce(&mut [u8])) -> Packed {
        let mut bytes = vec![0; layout.bytes()];
        pack(&mut bytes);
        let lines = bytes
            .chunks_exact(64)
            .map(|line| Line(line.try_into().unwrap()))
            .collect();
        Packed { layout, lines }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: a line is 64 plain bytes without padding.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 64) }
    }

    fn matrix(&self) -> PackedMatrix<'_> {
        PackedMatrix::new(self.layout, self.bytes()).unwrap()
    }
}

/// How codes, scales and activations are filled.
#[derive(Clone, Copy, Debug)]
enum Fill {
    Random,
    Lowest,
    Highest,
    Zero,
    SubnormalScales,
}

const FILLS: [Fill; 5] = [
    Fill::Random,
    Fill::Lowest,
    Fill::Highest,
    Fill::Zero,
    Fill::SubnormalScales,
];

fn kinds() -> Vec<Kind> {
    [Kind::F32, Kind::F16]
        .into_iter()
        .chain(Kind::quantized())
        .collect()
}

/// A small pseudo-random sequence (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In -1..1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

fn codes(layout: Layout, fill: Fill, random: &mut Random) -> Codes {
    let mut codes = Codes::zeros(layout);
    let (low, high) = match layout.kind() {
        Kind::Q8 { .. } => (-128, 127),
        kind => kind.code_range(),
    };
    for code in &mut codes.codes {
        *code = match fill {
            Fill::Lowest => low,
            Fill::Highest => high,
            Fill::Zero => *code,
            _ => {
                (i64::from(low) + (random.next() % (high as i64 - low as i64 + 1) as u64) as i64)
                    as i8
            }
        };
    }
    for scale in codes.scales.iter_mut().chain(&mut codes.minimums) {
        *scale = match fill {
            Fill::Zero => f16::ZERO,
            Fill::SubnormalScales => f16::from_bits((random.next() % 0x400) as u16),
            _ => f16::from_f32(random.float() * 0.1),
        };
    }
    codes
}

fn activations(tokens: usize, cols: usize, fill: Fill, random: &mut Random) -> QuantizedRows {
    let mut rows = QuantizedRows::default();
    rows.reshape(tokens, cols);
    for (i, code) in rows.codes.iter_mut().enumerate() {
        let inside = i % rows.stride < cols;
        *code = match fill {
            _ if !inside => 0,
            Fill::Lowest => -127,
            Fill::Highest => 127,
            Fill::Zero => 0,
            _ => (random.next() % 255) as i8,
        };
        *code = (*code).max(-127);
    }
    for scale in &mut rows.scales {
        *scale = random.float().abs();
    }
    for (sum, codes) in rows
        .sums
        .iter_mut()
        .zip(rows.codes.chunks(ACTIVATION_GROUP))
    {
        *sum = codes.iter().map(|&code| i32::from(code)).sum();
    }
    rows
}

/// A pool of 1, 2 or 3 threads, started once for all cases.
fn pool(threads: usize) -> &'static ThreadPool {
    static POOLS: LazyLock<[ThreadPool; 3]> = LazyLock::new(|| [1, 2, 3].map(ThreadPool::new));
    &POOLS[threads - 1]
}

/// The kernels that can run here, by name.
fn all_kernels() -> Vec<(&'static str, &'static MatmulKernels)> {
    let isas = Isa::available().map(|isa| (isa.name(), kernels(isa)));
    #[allow(unused_mut, reason = "other architectures have nothing more")]
    let mut all: Vec<_> = isas.collect();
    #[cfg(target_arch = "x86_64")]
    if Isa::Avx512Vnni.is_available() {
        all.push(("amx, emulated", &crate::x86_64::amx::EMULATED));
    }
    all
}

/// Runs one product and returns its output.
fn run(
    kernels: &'static MatmulKernels,
    threads: usize,
    weights: PackedMatrix,
    input: MatmulInput,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; input.rows.len() / input.cols * weights.layout().rows()];
    let mut jobs = [MatmulJob {
        weights,
        bias: None,
        out: &mut out,
    }];
    matmul(kernels, pool(threads), input, &mut jobs);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Checks one shape: scalar against sums in f64, every ISA and thread count against scalar.
fn check(kind: Kind, rows: usize, cols: usize, tokens: usize, fill: Fill, seed: u64) {
    let mut random = Random(seed);
    let layout = Layout::new(kind, rows, cols).unwrap();
    let quantized = activations(tokens, cols, fill, &mut random);
    let x: Vec<f32> = (0..tokens * cols).map(|_| random.float()).collect();
    let plain: Vec<f32>;
    let packed;
    let mut minimums: Vec<f16> = vec![];
    if kind.is_quantized() {
        let codes = codes(layout, fill, &mut random);
        plain = (0..rows * cols)
            .map(|i| codes.weight(i / cols, i % cols))
            .collect();
        packed = Packed::new(layout, |out| codes.pack_into(out).unwrap());
        minimums = codes.minimums;
    } else {
        plain = (0..rows * cols)
            .map(|_| f16::from_f32(random.float()).to_f32())
            .collect();
        packed = Packed::new(layout, |out| pack_floats(&layout, &plain, out).unwrap());
    }
    let input = MatmulInput {
        rows: &x,
        cols,
        quantized: Some(&quantized),
    };
    let expected = run(kernels(Isa::Scalar), 1, packed.matrix(), input);
    let minimum = |row: usize, k: usize| {
        let group = kind.group().map_or(1, Group::len);
        minimums
            .get(row * layout.groups() + k / group)
            .map_or(0.0, |m| m.to_f64().abs())
    };
    for (i, &got) in expected.iter().enumerate() {
        let (token, row) = (i / rows, i % rows);
        // Sum of the products, and of the magnitudes of all that is added up on the way to it.
        let (mut sum, mut size) = (0.0, 0.0);
        for k in 0..cols {
            let x = if kind.is_quantized() {
                let at = token * quantized.stride + k;
                f64::from(quantized.codes[at]) * f64::from(quantized.scales[at / ACTIVATION_GROUP])
            } else {
                f64::from(x[token * cols + k])
            };
            let weight = f64::from(plain[row * cols + k]);
            sum += weight * x;
            size += (weight.abs() + 2.0 * minimum(row, k)) * x.abs();
        }
        // Each f32 operation is off by at most half an epsilon of what has been added up.
        let tolerance = size * (cols + 4) as f64 * f64::from(f32::EPSILON) + 1e-30;
        let error = (f64::from(got) - sum).abs();
        assert!(
            error <= tolerance,
            "{kind} {rows}×{cols} {fill:?}: {got} against {sum}"
        );
    }
    for (name, kernels) in all_kernels() {
        for threads in [1, 3] {
            let got = run(kernels, threads, packed.matrix(), input);
            assert_eq!(
                bits(&got),
                bits(&expected),
                "{name}, {kind} {rows}×{cols}, {tokens} tokens, {fill:?}, {threads} threads"
            );
        }
    }
}

#[test]
fn every_isa_equals_scalar_around_the_edges() {
    for kind in kinds() {
        for rows in [1, 7, 8, 9, 15, 16, 17, 31, 33, 48, 65] {
            for cols in [1, 3, 31, 32, 33, 127, 128, 130, 160] {
                for tokens in [1, 2, 5] {
                    check(kind, rows, cols, tokens, Fill::Random, (rows * cols) as u64);
                }
            }
        }
    }
}

/// Kernels that go through long rows in parts, of 512 or 768 columns, leave sums between them.
#[test]
fn every_isa_equals_scalar_where_parts_meet() {
    for kind in kinds() {
        for cols in [513, 769, 800] {
            for tokens in [2, 7, 12, 13] {
                check(kind, 17, cols, tokens, Fill::Random, cols as u64);
            }
        }
    }
}

#[test]
fn every_isa_equals_scalar_at_extremes() {
    for kind in kinds() {
        for fill in FILLS {
            // Few at once, and many: 16 or more, the last tile less than full.
            for tokens in (1..=13).chain([16, 17, 31, 64]) {
                check(kind, 35, 259, tokens, fill, 7);
            }
        }
    }
}

#[test]
fn several_products_share_one_pass() {
    let mut random = Random(3);
    let kinds = [
        Kind::Q4 {
            group: Group::G32,
            minimum: false,
        },
        Kind::Q8 { group: Group::G64 },
        Kind::F16,
    ];
    let (cols, tokens) = (96, 37);
    let quantized = activations(tokens, cols, Fill::Random, &mut random);
    let x: Vec<f32> = (0..tokens * cols).map(|_| random.float()).collect();
    let input = MatmulInput {
        rows: &x,
        cols,
        quantized: Some(&quantized),
    };
    let packed: Vec<Packed> = [70, 16, 5]
        .into_iter()
        .zip(kinds)
        .map(|(rows, kind)| {
            let layout = Layout::new(kind, rows, cols).unwrap();
            if kind.is_quantized() {
                let codes = codes(layout, Fill::Random, &mut random);
                Packed::new(layout, |out| codes.pack_into(out).unwrap())
            } else {
                Packed::new(layout, |out| {
                    pack_floats(&layout, &vec![0.5; rows * cols], out).unwrap()
                })
            }
        })
        .collect();
    for (name, kernels) in all_kernels() {
        let mut outs: Vec<Vec<f32>> = packed
            .iter()
            .map(|p| vec![0.0; tokens * p.layout.rows()])
            .collect();
        let mut jobs: Vec<MatmulJob> = packed
            .iter()
            .zip(&mut outs)
            .map(|(p, out)| MatmulJob {
                weights: p.matrix(),
                bias: None,
                out,
            })
            .collect();
        matmul(kernels, pool(2), input, &mut jobs);
        for (packed, out) in packed.iter().zip(&outs) {
            let alone = run(kernels, 1, packed.matrix(), input);
            assert_eq!(bits(out), bits(&alone), "{name}, {}", packed.layout.kind());
        }
    }
}

#[test]
fn biases_are_added_to_every_row() {
    let mut random = Random(5);
    for (rows, tokens) in [(7, 1), (48, 3), (83, 40)] {
        let layout = Layout::new(Kind::F32, rows, 20).unwrap();
        let mut floats = |len: usize| -> Vec<f32> { (0..len).map(|_| random.float()).collect() };
        let (weights, x, bias) = (floats(rows * 20), floats(tokens * 20), floats(rows));
        let packed = Packed::new(layout, |out| pack_floats(&layout, &weights, out).unwrap());
        let input = MatmulInput {
            rows: &x,
            cols: 20,
            quantized: None,
        };
        for (name, kernels) in all_kernels() {
            let mut expected = run(kernels, 1, packed.matrix(), input);
            let mut out = vec![f32::NAN; tokens * rows];
            let mut jobs = [MatmulJob {
                weights: packed.matrix(),
                bias: Some(&bias),
                out: &mut out,
            }];
            matmul(kernels, &ThreadPool::new(2), input, &mut jobs);
            for row in expected.chunks_exact_mut(rows) {
                row.iter_mut().zip(&bias).for_each(|(x, b)| *x += b);
            }
            assert_eq!(bits(&out), bits(&expected), "{name}, {tokens} x {rows}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_isa_equals_scalar(
        kind in proptest::sample::select(kinds()),
        rows in 1usize..100,
        // Beyond the 768 that ARM's kernels arrange at once.
        cols in 1usize..900,
        tokens in 1usize..40,
        fill in proptest::sample::select(FILLS.to_vec()),
        seed: u64,
    ) {
        check(kind, rows, cols, tokens, fill, seed);
    }

    #[test]
    fn unpacking_inverts_packing(
        kind in proptest::sample::select(kinds()),
        rows in 1usize..70,
        cols in 1usize..300,
        seed: u64,
    ) {
        let layout = Layout::new(kind, rows, cols).unwrap();
        let mut random = Random(seed);
        let (packed, plain) = if kind.is_quantized() {
            let mut codes = codes(layout, Fill::Random, &mut random);
            let packed = Packed::new(layout, |out| codes.pack_into(out).unwrap());
            prop_assert_eq!(&Codes::unpack(layout, packed.bytes()).unwrap(), &codes);
            codes.codes.truncate(rows * layout.padded_cols());
            let plain = (0..rows * cols).map(|i| codes.weight(i / cols, i % cols)).collect();
            (packed, plain)
        } else {
            let plain: Vec<f32> =
                (0..rows * cols).map(|_| f16::from_f32(random.float()).to_f32()).collect();
            (Packed::new(layout, |out| pack_floats(&layout, &plain, out).unwrap()), plain)
        };
        let mut row = vec![0.0; cols];
        for r in 0..rows {
            packed.matrix().row(r, &mut row);
            prop_assert_eq!(&row[..], &plain[r * cols..(r + 1) * cols]);
        }
    }
}

#[test]
fn tiles_cover_all_tokens_and_fit() {
    for widest in 1..17 {
        for tokens in 1usize..300 {
            let tiles = tokens.div_ceil(widest);
            let cuts: Vec<usize> = (0..=tiles)
                .map(|index| super::cut(tokens, tiles, widest, index))
                .collect();
            assert_eq!((cuts[0], cuts[tiles]), (0, tokens));
            let fits = |pair: &[usize]| pair[0] < pair[1] && pair[1] - pair[0] <= widest;
            assert!(cuts.windows(2).all(fits), "{tokens} by {widest}: {cuts:?}");
        }
    }
}
