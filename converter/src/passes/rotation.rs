//! An orthogonal matrix that spreads each dimension over all others, and its fast product.

use kinglet::sampler::SplitMix64;

/// `R = D·(H ⊗ S)·D` of any size: a Hadamard matrix `H` of the largest power of two that divides it, a
/// discrete Hartley transform `S` of the odd rest, and random signs `D`, without which what all
/// dimensions have in common would gather in the first. All three are symmetric and their own
/// inverses, so `R·R = 1` too: what turns weights also turns them back.
pub struct Rotation {
    signs: Vec<f32>,
    /// `S / √(size of H)`, `[odd][odd]`.
    small: Vec<f32>,
    odd: usize,
}

impl Rotation {
    /// The rotation of a size, always the same.
    ///
    /// # Panics
    /// If the size is 0.
    pub fn new(size: usize) -> Rotation {
        let power = 1 << size.trailing_zeros();
        let odd = size / power;
        let mut random = SplitMix64(size as u64);
        let signs = (0..size).map(|_| if random.unit() < 0.5 { -1.0 } else { 1.0 });
        let entry = |at: usize| {
            // The angle from the remainder, which is exact.
            let turns = (at / odd * (at % odd) % odd) as f64 / odd as f64;
            let angle = std::f64::consts::TAU * turns;
            ((angle.cos() + angle.sin()) / (size as f64).sqrt()) as f32
        };
        Rotation {
            signs: signs.collect(),
            small: (0..odd * odd).map(entry).collect(),
            odd,
        }
    }

    /// Dimensions.
    pub fn size(&self) -> usize {
        self.signs.len()
    }

    /// `R · x` in place, `x` being `[size][width]`: a vector, or a matrix of `width` columns.
    ///
    /// # Panics
    /// If `x` is not that long.
    pub fn apply(&self, x: &mut [f32], width: usize) {
        assert_eq!(x.len(), self.size() * width, "a rotation of another size");
        self.sign(x, width);
        let mut step = self.odd * width;
        while step < x.len() {
            for pair in x.chunks_exact_mut(2 * step) {
                let (above, below) = pair.split_at_mut(step);
                for (a, b) in above.iter_mut().zip(below) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            step *= 2;
        }
        let mut sums = vec![0.0; self.odd * width];
        for block in x.chunks_exact_mut(self.odd * width) {
            sums.fill(0.0);
            let rows = sums.chunks_exact_mut(width);
            for (sums, factors) in rows.zip(self.small.chunks_exact(self.odd)) {
                for (x, factor) in block.chunks_exact(width).zip(factors) {
                    sums.iter_mut().zip(x).for_each(|(s, x)| *s += factor * x);
                }
            }
            block.copy_from_slice(&sums);
        }
        self.sign(x, width);
    }

    fn sign(&self, x: &mut [f32], width: usize) {
        for (row, sign) in x.chunks_exact_mut(width).zip(&self.signs) {
            row.iter_mut().for_each(|x| *x *= sign);
        }
    }
}
