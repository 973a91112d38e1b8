//! Rotation of values before they become INT4: what one dimension has alone spreads over four, so that
//! the levels are in use (QuaRot, Ashkboos et al. 2024, section 4, rotates whole heads; that gave the same
//! divergence and cost more).

/// Multiplies what lies at the same place of the four quarters by a Hadamard matrix of ones and minus
/// ones, or does nothing to dimensions that stay alone. Twice, it multiplies by `together`.
#[inline(always)]
pub(super) fn rotate(x: &mut [f32], together: usize) {
    if together == 1 {
        return;
    }
    let (front, back) = x.split_at_mut(x.len() / 2);
    let (a, b) = front.split_at_mut(front.len() / 2);
    let (c, d) = back.split_at_mut(back.len() / 2);
    for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
        let [front, front_difference] = [*a + *b, *a - *b];
        let [back, back_difference] = [*c + *d, *c - *d];
        (*a, *b) = (front + back, front_difference + back_difference);
        (*c, *d) = (front - back, front_difference - back_difference);
    }
}
