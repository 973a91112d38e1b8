//! Float operations: every ISA and thread count against scalar, bit for bit; scalar against f64.

use kinglet_kernels::activations::QuantizedRows;
use kinglet_kernels::isa::Isa;
use kinglet_kernels::pool::ThreadPool;
use kinglet_kernels::{Activation, Engine};
use proptest::prelude::*;

fn engine(isa: Isa, threads: usize) -> Engine {
    Engine::new(isa, ThreadPool::new(threads))
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Runs an operation with scalar code, checks that every ISA and thread count gives the same bits,
/// and returns the result.
fn same_everywhere(x: &[f32], op: impl Fn(&Engine, &mut [f32])) -> Vec<f32> {
    let run = |isa, threads| {
        let mut out = x.to_vec();
        op(&engine(isa, threads), &mut out);
        out
    };
    let expected = run(Isa::Scalar, 1);
    for isa in Isa::available() {
        for threads in [1, 3] {
            assert_eq!(
                bits(&run(isa, threads)),
                bits(&expected),
                "{isa}, {threads} threads"
            );
        }
    }
    expected
}

/// Values as models have them, and now and then extremes.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        20 => -8.0f32..8.0,
        4 => -1e-3f32..1e-3,
        2 => -200.0f32..200.0,
        1 => prop::sample::select(vec![0.0, -0.0, 1e-40, -1e-44, 1e15, -1e15, f32::MIN_POSITIVE]),
    ]
}

fn values(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec(value(), len)
}

/// Largest difference from the f64 reference, relative to the larger of 1 and the reference.
fn error(got: &[f32], expected: impl Iterator<Item = f64>) -> f64 {
    got.iter()
        .zip(expected)
        .map(|(&got, want)| (f64::from(got) - want).abs() / want.abs().max(1.0))
        .fold(0.0, f64::max)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The error function by its series (small x) or 1 (large): good to 2e-8.
fn erf(x: f64) -> f64 {
    if x.abs() > 4.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn activations(x in values(1..600)) {
        let wide = |x: &f32| f64::from(*x);
        let got = same_everywhere(&x, |e, x| e.activate(Activation::Silu, x));
        // The exponential is good to 2e-7, sums and quotients add an ulp each.
        prop_assert!(error(&got, x.iter().map(wide).map(|x| x * sigmoid(x))) < 1e-6);
        let got = same_everywhere(&x, |e, x| e.activate(Activation::GeluTanh, x));
        let gelu = |x: f64| x * sigmoid(2.0 * 0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3)));
        // The argument of the exponential, up to 87, carries a relative error of an ulp or two.
        prop_assert!(error(&got, x.iter().map(wide).map(gelu)) < 2e-6);
        let got = same_everywhere(&x, |e, x| e.activate(Activation::Gelu, x));
        let gelu = |x: f64| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()));
        // The approximation of erf is good to 5e-7, times x / 2.
        prop_assert!(error(&got, x.iter().map(wide).map(gelu)) < 4e-6);
        let got = same_everywhere(&x, |e, x| e.softcap(x, 30.0));
        let capped = |x: f64| 30.0 * (x / 30.0).tanh();
        // tanh is good to 2e-7 of 1, and 30 scales it.
        prop_assert!(error(&got, x.iter().map(wide).map(capped)) < 6e-6);
    }

    #[test]
    fn gates_and_sums(x in values(1..5000)) {
        let y: Vec<f32> = x.iter().rev().map(|x| x * 0.5).collect();
        let got = same_everywhere(&x, |e, x| e.activate_gated(Activation::Silu, x, &y));
        let alone = same_everywhere(&x, |e, x| e.activate(Activation::Silu, x));
        let product: Vec<f32> = alone.iter().zip(&y).map(|(x, y)| x * y).collect();
        prop_assert_eq!(bits(&got), bits(&product));
        let got = same_everywhere(&x, |e, x| e.add(x, &y));
        let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        prop_assert_eq!(bits(&got), bits(&sum));
    }

    #[test]
    fn norms(x in proptest::collection::vec(-8.0f32..8.0, 1..600), rows in 1usize..4) {
        let n = x.len();
        let weight: Vec<f32> = x.iter().map(|x| 1.0 + x * 0.1).collect();
        let bias: Vec<f32> = x.iter().map(|x| x * 0.2).collect();
        let x: Vec<f32> = (0..rows).flat_map(|r| x.iter().map(move |x| x * (r + 1) as f32)).collect();
        let got = same_everywhere(&x, |e, x| e.rms_norm_in_place(x, &weight, 1e-5));
        let wide = |i: usize| f64::from(x[i]);
        let reference = (0..x.len()).map(|i| {
            let row = i / n * n..i / n * n + n;
            let square = row.map(|j| wide(j).powi(2)).sum::<f64>() / n as f64;
            wide(i) / (square + 1e-5).sqrt() * f64::from(weight[i % n])
        });
        // A sum of n squares, each rounded once: n / 16 terms a lane; half of that in the root.
        prop_assert!(error(&got, reference) < 3e-5);
        let norm = |e: &Engine, out: &mut [f32]| e.layer_norm(&x, &weight, &bias, 1e-5, out);
        let got = same_everywhere(&x, norm);
        let reference = (0..x.len()).map(|i| {
            let row = i / n * n..i / n * n + n;
            let mean = row.clone().map(wide).sum::<f64>() / n as f64;
            let square = row.map(|j| (wide(j) - mean).powi(2)).sum::<f64>() / n as f64;
            (wide(i) - mean) / (square + 1e-5).sqrt() * f64::from(weight[i % n]) + f64::from(bias[i % n])
        });
        // The mean's rounding is divided by the deviation, which a short row makes small.
        prop_assert!(n < 8 || error(&got, reference) < 1e-4);
    }

    #[test]
    fn softmax(x in proptest::collection::vec(-30.0f32..30.0, 1..600)) {
        let got = same_everywhere(&x, |e, row| e.softmax(row, x.len()));
        let largest = x.iter().fold(f64::MIN, |a, &x| a.max(f64::from(x)));
        let exps: Vec<f64> = x.iter().map(|&x| (f64::from(x) - largest).exp()).collect();
        let sum: f64 = exps.iter().sum();
        // The exponential is good to 2e-7, the sum to its number of terms per lane.
        prop_assert!(error(&got, exps.iter().map(|x| x / sum)) < 3e-6);
    }

    #[test]
    fn rope(heads in 1usize..4, half in 1usize..70, rest in 0usize..20, seed in values(8)) {
        let head_dim = 2 * half + rest;
        let x: Vec<f32> = (0..3 * heads * head_dim).map(|i| seed[i % 8] + i as f32 * 1e-3).collect();
        let angle = |i: usize| i as f32 * 0.37;
        let cos: Vec<f32> = (0..3 * half).map(|i| angle(i).cos()).collect();
        let sin: Vec<f32> = (0..3 * half).map(|i| angle(i).sin()).collect();
        let got = same_everywhere(&x, |e, x| e.rope(x, heads, head_dim, &cos, &sin));
        for (i, &got) in got.iter().enumerate() {
            let (row, d) = (i / (heads * head_dim), i % head_dim);
            let want = if d < half {
                x[i] * cos[row * half + d] - x[i + half] * sin[row * half + d]
            } else if d < 2 * half {
                x[i] * cos[row * half + d - half] + x[i - half] * sin[row * half + d - half]
            } else {
                x[i]
            };
            prop_assert_eq!(got.to_bits(), want.to_bits());
        }
    }

    #[test]
    fn quantization(cols in 1usize..300, rows in 1usize..4, x in values(64)) {
        let x: Vec<f32> = (0..rows * cols).map(|i| x[i * 7 % 64]).collect();
        let run = |isa| {
            let mut out = QuantizedRows::default();
            engine(isa, 2).quantize(&x, cols, &mut out);
            out
        };
        let expected = run(Isa::Scalar);
        for isa in Isa::available() {
            prop_assert_eq!(&run(isa), &expected, "{}", isa);
        }
        for row in 0..rows {
            for col in 0..cols {
                let (back, step) = expected.get(row, col);
                // Half a step, and a few ulps of the largest code, 127 steps.
                let bound = f64::from(step) * 0.50002 + 1e-30;
                prop_assert!((f64::from(back) - f64::from(x[row * cols + col])).abs() <= bound);
            }
        }
        let (mut lost, mut second) = (vec![0.0; x.len()], QuantizedRows::default());
        expected.residual(&x, cols, &mut lost);
        engine(Isa::Scalar, 1).quantize(&lost, cols, &mut second);
        for row in 0..rows {
            for col in 0..cols {
                let (first, step) = expected.get(row, col);
                let (rest, _) = second.get(row, col);
                let left = f64::from(x[row * cols + col]) - f64::from(first) - f64::from(rest);
                // What is lost is half a step, and half a 127th of that is lost of it in turn; then
                // a few ulps of the largest code.
                let bound = f64::from(step) * (0.5 / 254.0 * 1.0001 + 127.0 * 1.2e-7) + 2e-30;
                prop_assert!(left.abs() <= bound, "{left} {step}");
            }
        }
    }
}

/// What is not finite must come out as such: its group has no scale, and the others are as without it.
#[test]
fn groups_that_are_not_finite_have_no_scale() {
    const COLS: usize = 70;
    let quantize = |isa, x: &[f32]| {
        let mut out = QuantizedRows::default();
        engine(isa, 1).quantize(x, COLS, &mut out);
        out
    };
    let some: Vec<f32> = (0..2 * COLS).map(|i| (i as f32 * 0.7).sin()).collect();
    for others in [some, vec![0.0; 2 * COLS], vec![1e-35; 2 * COLS]] {
        let clean = quantize(Isa::Scalar, &others);
        for isa in Isa::available() {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in 0..2 * COLS {
                    let mut x = others.clone();
                    // A second one, in a lane that it meets early or late, must not hide the first.
                    let second = at ^ [0, 1, 8, 16][at % 4];
                    if second / COLS == at / COLS && second % COLS / 32 == at % COLS / 32 {
                        x[second] = f32::NAN;
                    }
                    x[at] = bad;
                    let found = quantize(isa, &x);
                    for i in 0..2 * COLS {
                        let (row, col) = (i / COLS, i % COLS);
                        let (value, scale) = found.get(row, col);
                        if row == at / COLS && col / 32 == at % COLS / 32 {
                            assert!(value.is_nan() && scale.is_nan(), "{isa}, {bad} at {at}");
                        } else {
                            assert_eq!((value, scale), clean.get(row, col), "{isa}, {bad} at {at}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn large_rows_are_shared_among_threads_with_the_same_bits() {
    let x: Vec<f32> = (0..100 * 777).map(|i| (i as f32 * 0.1).sin()).collect();
    let weight = vec![0.5; 777];
    same_everywhere(&x, |e, x| e.rms_norm_in_place(x, &weight, 1e-5));
    same_everywhere(&x, |e, x| e.activate(Activation::Silu, x));
    same_everywhere(&x, |e, out| e.add(out, &x));
    let sum = same_everywhere(&x, |e, out| {
        e.add_layer_norm(out, &x, &weight, &weight, 1e-5)
    });
    let twice: Vec<f32> = x.iter().map(|x| x + x).collect();
    let apart = same_everywhere(&twice, |e, out| {
        e.layer_norm_in_place(out, &weight, &weight, 1e-5);
    });
    assert_eq!(bits(&sum), bits(&apart));
}
