//! Choosing the next token from logits.

/// How tokens are chosen. Steps in the order of llama.cpp: penalty, top-k, top-p, min-p, temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// Divides the logits before the choice; 0: always the most likely token.
    pub temperature: f32,
    /// Keep the K most likely tokens; 0: all.
    pub top_k: usize,
    /// Keep the most likely tokens that together have this probability (Holtzman et al. 2020);
    /// 1: all.
    pub top_p: f32,
    /// Keep tokens with at least this part of the most likely one's probability (Nguyen et al.
    /// 2024); 0: all.
    pub min_p: f32,
    /// Divides positive logits, and multiplies negative ones, of recent tokens (Keskar et al. 2019);
    /// 1: no penalty.
    pub repeat_penalty: f32,
    /// How many recent tokens the penalty looks at.
    pub repeat_last_n: usize,
    /// Seed of the choices.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> SamplerOptions {
        SamplerOptions {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: 0,
        }
    }
}

impl SamplerOptions {
    /// Always the most likely token.
    pub fn greedy() -> SamplerOptions {
        SamplerOptions {
            temperature: 0.0,
            ..SamplerOptions::default()
        }
    }
}

/// Chooses tokens, reproducibly for a seed.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
    random: SplitMix64,
    /// Tokens still in the choice with their logits, later their probabilities.
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// A sampler with these options.
    pub fn new(options: SamplerOptions) -> Sampler {
        Sampler {
            random: SplitMix64(options.seed),
            options,
            candidates: vec![],
        }
    }

    /// Chooses a token. `recent` are the tokens so far. Logits that are not numbers are never
    /// chosen, unless there are no others: then it is token 0.
    pub fn sample(&mut self, logits: &[f32], recent: &[u32]) -> u32 {
        let options = &self.options;
        let penalized;
        let logits = if options.repeat_penalty == 1.0 {
            logits
        } else {
            let recent = &recent[recent.len().saturating_sub(options.repeat_last_n)..];
            penalized = penalize(logits, recent, options.repeat_penalty);
            &penalized
        };
        let all = (0u32..).zip(logits.iter().copied());
        let all = all.filter(|(_, logit)| !logit.is_nan());
        if options.temperature <= 0.0 {
            // The first of equals, as a stable sort would have it.
            let best = all.reduce(|best, next| if next.1 > best.1 { next } else { best });
            return best.map_or(0, |(token, _)| token);
        }
        self.candidates.clear();
        self.candidates.extend(all);
        self.keep_likely();
        self.draw()
    }

    /// Top-k, top-p, min-p and temperature; leaves probabilities, up to a factor, in falling order.
    fn keep_likely(&mut self) {
        let options = &self.options;
        let candidates = &mut self.candidates;
        let falling = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let k = options.top_k;
        if k > 0 && k < candidates.len() {
            candidates.select_nth_unstable_by(k - 1, falling);
            candidates.truncate(k);
        }
        candidates.sort_unstable_by(falling);
        let Some(&(_, largest)) = candidates.first() else {
            return;
        };
        let weight = |logit: f32| f64::from(logit - largest).exp();
        if options.top_p < 1.0 {
            let total: f64 = candidates.iter().map(|c| weight(c.1)).sum();
            let mut sum = 0.0;
            let enough = candidates.iter().position(|c| {
                sum += weight(c.1);
                sum >= f64::from(options.top_p) * total
            });
            candidates.truncate(enough.map_or(candidates.len(), |last| last + 1));
        }
        if options.min_p > 0.0 {
            let least = f64::from(options.min_p);
            let kept = candidates
                .iter()
                .take_while(|c| weight(c.1) >= least)
                .count();
            candidates.truncate(kept.max(1));
        }
        for candidate in candidates {
            candidate.1 = ((candidate.1 - largest) / options.temperature).exp();
        }
    }

    fn draw(&mut self) -> u32 {
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.1)).sum();
        let mut rest = self.random.unit() * total;
        for &(token, weight) in &self.candidates {
            rest -= f64::from(weight);
            if rest < 0.0 {
                return token;
            }
        }
        // Rounding, a single infinite logit, or no candidate at all.
        self.candidates.first().map_or(0, |&(token, _)| token)
    }
}

/// Logits of which those of `recent` tokens are less likely, each once (Keskar et al. 2019).
fn penalize(logits: &[f32], recent: &[u32], penalty: f32) -> Vec<f32> {
    let mut logits = logits.to_vec();
    let mut recent = recent.to_vec();
    recent.sort_unstable();
    recent.dedup();
    for token in recent {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = if *logit > 0.0 {
                *logit / penalty
            } else {
                *logit * penalty
            };
        }
    }
    logits
}

/// SplitMix64 (Steele et al. 2014): tiny, and good enough for one draw per token.
#[derive(Clone, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 2.9];

    /// The set of tokens that many draws choose.
    fn chosen(options: SamplerOptions, logits: &[f32], recent: &[u32]) -> Vec<u32> {
        let mut sampler = Sampler::new(options);
        let mut seen: Vec<u32> = (0..4000).map(|_| sampler.sample(logits, recent)).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    fn open() -> SamplerOptions {
        SamplerOptions {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            ..SamplerOptions::default()
        }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut sampler = Sampler::new(SamplerOptions::greedy());
        assert_eq!(sampler.sample(&LOGITS, &[]), 1);
        assert_eq!(sampler.sample(&[1.0, 5.0, 5.0], &[]), 1);
    }

    #[test]
    fn filters_keep_what_they_say() {
        assert_eq!(chosen(open(), &LOGITS, &[]), [0, 1, 2, 3, 4]);
        assert_eq!(
            chosen(SamplerOptions { top_k: 2, ..open() }, &LOGITS, &[]),
            [1, 4]
        );
        // Probabilities: 1: 0.40, 4: 0.37, 2: 0.15, 0: 0.055, 3: 0.007.
        assert_eq!(
            chosen(
                SamplerOptions {
                    top_p: 0.7,
                    ..open()
                },
                &LOGITS,
                &[]
            ),
            [1, 4]
        );
        assert_eq!(
            chosen(
                SamplerOptions {
                    min_p: 0.3,
                    ..open()
                },
                &LOGITS,
                &[]
            ),
            [1, 2, 4]
        );
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut sampler = Sampler::new(open());
        let logits = [0.0, 2f32.ln()];
        let ones = (0..30_000)
            .filter(|_| sampler.sample(&logits, &[]) == 1)
            .count();
        // Two thirds of 30 000, standard deviation 82.
        assert!((19_600..20_400).contains(&ones), "{ones}");
    }

    #[test]
    fn the_penalty_lowers_recent_tokens_only() {
        let options = SamplerOptions {
            repeat_penalty: 2.0,
            repeat_last_n: 1,
            ..SamplerOptions::greedy()
        };
        let mut sampler = Sampler::new(options);
        assert_eq!(sampler.sample(&LOGITS, &[1]), 4);
        assert_eq!(sampler.sample(&LOGITS, &[1, 4]), 1);
        assert_eq!(sampler.sample(&[-1.0, -1.5], &[0]), 1);
    }

    #[test]
    fn seeds_repeat_and_differ() {
        let draw = |seed| {
            let mut sampler = Sampler::new(SamplerOptions { seed, ..open() });
            (0..50)
                .map(|_| sampler.sample(&LOGITS, &[]))
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn numbers_that_are_none_are_never_chosen() {
        let logits = [f32::NAN, 1.0, f32::NEG_INFINITY];
        assert_eq!(chosen(SamplerOptions::greedy(), &logits, &[]), [1]);
        assert_eq!(chosen(open(), &logits, &[]), [1]);
        assert_eq!(chosen(open(), &[f32::NAN; 3], &[]), [0]);
        assert_eq!(chosen(open(), &[0.0, f32::INFINITY], &[]), [1]);
    }
}
