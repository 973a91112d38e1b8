//! What the machine can do at most: the denominators of every speed figure.

use crate::isa::Isa;
use crate::pool::ThreadPool;
use std::hint::black_box;
use std::time::Instant;

/// Bytes read per chunk by one thread: a few pages, so that threads share the work evenly.
const CHUNK: usize = 1 << 16;

/// Runs of which the fastest counts.
const RUNS: usize = 7;

/// Read bandwidth in bytes per second: a plain loop over `buffer` on all threads of the pool, the
/// best of several runs. A buffer well beyond the last-level cache measures memory, a small one the
/// cache.
pub fn read_bandwidth(pool: &ThreadPool, buffer: &[u64]) -> f64 {
    let words = CHUNK / size_of::<u64>();
    let chunks = buffer.len().div_ceil(words).max(1);
    let pass = || {
        pool.run(chunks, &|chunk| {
            let end = buffer.len().min((chunk + 1) * words);
            // Whole blocks of independent sums: vector loads, and no sum waits for another.
            let (blocks, _) = buffer[chunk * words..end].as_chunks::<32>();
            let mut sums = [0u64; 32];
            for block in blocks {
                for (sum, word) in sums.iter_mut().zip(block) {
                    *sum = sum.wrapping_add(*word);
                }
            }
            black_box(sums);
        });
    };
    size_of_val(buffer) as f64 / fastest(pass)
}

/// Multiply-accumulates per second that all threads of the pool reach with the INT8 dot product of
/// `isa` on registers alone, the best of several runs; `None` where the ISA has none of its own.
///
/// # Panics
/// If this CPU lacks `isa`.
pub fn integer_peak(isa: Isa, pool: &ThreadPool) -> Option<f64> {
    assert!(isa.is_available(), "{isa} is not available on this CPU");
    let spin = peak_loop(isa)?;
    let seconds = fastest(|| {
        pool.run(pool.threads(), &|_| {
            // SAFETY: the CPU has the ISA, as checked above.
            unsafe { (spin.run)(ROUNDS) }
        });
    });
    Some((ROUNDS * spin.macs_per_round * pool.threads()) as f64 / seconds)
}

/// Rounds of a peak loop: milliseconds.
const ROUNDS: usize = 1_000_000;

/// A loop of independent dot products.
pub(crate) struct PeakLoop {
    /// Multiply-accumulates of one round.
    pub macs_per_round: usize,
    /// Runs a number of rounds; its ISA must be available.
    pub run: unsafe fn(usize),
}

fn peak_loop(isa: Isa) -> Option<PeakLoop> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Some(crate::x86_64::avx2::PEAK),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => Some(crate::x86_64::avxvnni::PEAK),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => Some(crate::x86_64::avx512vnni::PEAK),
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => Some(crate::x86_64::amx::PEAK),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Some(crate::aarch64::neon::PEAK),
        #[cfg(target_arch = "aarch64")]
        Isa::DotProd => Some(crate::aarch64::dotprod::PEAK),
        #[cfg(target_arch = "aarch64")]
        Isa::I8mm => Some(crate::aarch64::i8mm::PEAK),
        _ => None,
    }
}

/// Seconds of the fastest of several runs, after one to warm up.
fn fastest(pass: impl Fn()) -> f64 {
    pass();
    let time = |_| {
        let start = Instant::now();
        pass();
        start.elapsed().as_secs_f64()
    };
    (0..RUNS).map(time).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_positive_and_finite() {
        let pool = ThreadPool::new(2);
        let bandwidth = read_bandwidth(&pool, &vec![1; 1 << 17]);
        assert!(bandwidth.is_finite() && bandwidth > 0.0);
        for isa in Isa::available() {
            if let Some(peak) = integer_peak(isa, &pool) {
                assert!(peak.is_finite() && peak > 0.0, "{isa}");
            }
        }
    }
}
