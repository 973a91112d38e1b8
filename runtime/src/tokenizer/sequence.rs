//! A text, or a pair of texts, as an encoder takes it.

use tokenizers::Encoding;

/// Tokens of a text or of a pair of texts, special ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The type of each token: in most models 0 in the first text and 1 in the second. Empty: all 0.
    pub types: Vec<u32>,
}

impl From<Vec<u32>> for Sequence {
    fn from(tokens: Vec<u32>) -> Sequence {
        Sequence {
            tokens,
            types: vec![],
        }
    }
}

/// Takes what the post-processor made of a text or a pair, cut to `limit` tokens: special tokens
/// stay, and of two texts the longer one gives way first, as `transformers` cuts them
/// ("longest_first").
pub(super) fn cut(encoding: &Encoding, limit: usize) -> Sequence {
    let texts = encoding.get_sequence_ids();
    let lengths = [0, 1].map(|text| count(&texts, text));
    let special = texts.len() - lengths[0] - lengths[1];
    let mut room = share(lengths, limit.saturating_sub(special));
    let mut sequence = Sequence::default();
    let tokens = encoding.get_ids().iter().zip(encoding.get_type_ids());
    for ((&token, &kind), text) in tokens.zip(texts) {
        if let Some(room) = text.and_then(|text| room.get_mut(text)) {
            let Some(rest) = room.checked_sub(1) else {
                continue;
            };
            *room = rest;
        }
        sequence.tokens.push(token);
        sequence.types.push(kind);
    }
    sequence
}

/// Tokens of text 0 or 1.
pub(super) fn count(texts: &[Option<usize>], text: usize) -> usize {
    texts.iter().filter(|&&of| of == Some(text)).count()
}

/// How many tokens two texts keep of `room`: the shorter one keeps all unless both are beyond their
/// half; what is odd goes to the longer one.
fn share([a, b]: [usize; 2], room: usize) -> [usize; 2] {
    if a + b <= room {
        return [a, b];
    }
    let short = a.min(b).min(room / 2);
    let long = room - short;
    if a <= b { [short, long] } else { [long, short] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_text_gives_way() {
        assert_eq!(share([3, 4], 7), [3, 4]);
        assert_eq!(share([3, 9], 8), [3, 5]);
        assert_eq!(share([9, 3], 8), [5, 3]);
        assert_eq!(share([9, 8], 7), [4, 3]);
        assert_eq!(share([8, 8], 7), [3, 4]);
        assert_eq!(share([9, 0], 7), [7, 0]);
        assert_eq!(share([2, 2], 0), [0, 0]);
    }
}
