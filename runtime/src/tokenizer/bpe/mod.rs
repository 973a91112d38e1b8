//! Byte pair encoding (Sennrich et al. 2016, section 3.2), as the `tokenizers` crate does it, from tables
//! that are read several times as fast: on a small model, that crate's are most of the start.

mod read;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use tokenizers::Token;
use vocabulary::Vocabulary;

/// A BPE model without dropout, and without marks inside or at the end of words.
pub struct Bpe {
    vocabulary: Vocabulary,
    /// What stands for characters that the vocabulary lacks, and whether one does for several in a row.
    unknown: Option<String>,
    fuse_unknown: bool,
    /// The places of the tokens of bytes, by which characters that the vocabulary lacks are spelled.
    bytes: Option<Vec<Option<u32>>>,
    /// A word that is a token is that token, whatever merges would make of it.
    whole_words: bool,
}

/// A token within a word.
struct Symbol {
    /// Its place in the vocabulary.
    place: u32,
    /// How many bytes of the word it covers: 0 once it is part of the symbol before.
    len: usize,
    before: usize,
    after: usize,
}

/// In place of a neighbour, where the word ends.
const NONE: usize = usize::MAX;

impl Bpe {
    /// The tokens of a word's characters, before any merge.
    fn characters(&self, word: &str) -> Result<Vec<Symbol>, String> {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(word.len());
        // An unknown token waits for others to fuse with, behind bytes too, as in the crate.
        let mut pending: Option<Symbol> = None;
        for character in word.split_inclusive(|_: char| true) {
            let len = character.len();
            if let Some(place) = self.vocabulary.place(character) {
                symbols.extend(pending.take());
                symbols.push(Symbol::new(place, len));
            } else if let Some(bytes) = self.bytes_of(character) {
                symbols.extend(bytes.into_iter().map(|place| Symbol::new(place, 1)));
            } else if let Some(unknown) = &self.unknown {
                match &mut pending {
                    Some(pending) if self.fuse_unknown => pending.len += len,
                    _ => {
                        let place = self.vocabulary.place(unknown).ok_or_else(|| {
                            format!("the vocabulary lacks its unk_token {unknown:?}")
                        })?;
                        symbols.extend(pending.replace(Symbol::new(place, len)));
                    }
                }
            }
        }
        symbols.extend(pending);
        for at in 1..symbols.len() {
            symbols[at - 1].after = at;
            symbols[at].before = at - 1;
        }
        Ok(symbols)
    }

    /// The tokens of the bytes of a character, if all have one.
    fn bytes_of(&self, character: &str) -> Option<Vec<u32>> {
        let tokens = self.bytes.as_ref()?;
        character
            .bytes()
            .map(|byte| tokens[usize::from(byte)])
            .collect()
    }

    /// Merges neighbours until none can be: always those of the lowest rank, of these the first.
    fn merge(&self, symbols: &mut [Symbol]) {
        let mut joined = String::new();
        let mut merge_at = |symbols: &[Symbol], left: usize| {
            let right = symbols.get(symbols[left].after)?;
            self.vocabulary
                .merge(symbols[left].place, right.place, &mut joined)
        };
        let mut queue: BinaryHeap<_> = (0..symbols.len())
            .filter_map(|left| {
                let (rank, place) = merge_at(symbols, left)?;
                Some(Reverse((rank, left, place)))
            })
            .collect();
        while let Some(Reverse((_, left, place))) = queue.pop() {
            // Either symbol may have become part of another since.
            if symbols[left].len == 0
                || merge_at(symbols, left).is_none_or(|(_, current)| current != place)
            {
                continue;
            }
            let right = symbols[left].after;
            let (len, after) = (symbols[right].len, symbols[right].after);
            symbols[right].len = 0;
            symbols[left].place = place;
            symbols[left].len += len;
            symbols[left].after = after;
            if let Some(after) = symbols.get_mut(after) {
                after.before = left;
            }
            for left in [symbols[left].before, left] {
                if left != NONE
                    && let Some((rank, place)) = merge_at(symbols, left)
                {
                    queue.push(Reverse((rank, left, place)));
                }
            }
        }
    }

    /// The tokens of a word.
    ///
    /// # Errors
    /// A character that the vocabulary lacks, as it does the token for such.
    pub fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        let token = |place, start, len| {
            let spelling = self.vocabulary.spelling(place).to_owned();
            Token::new(self.vocabulary.id(place), spelling, (start, start + len))
        };
        if word.is_empty() {
            return Ok(vec![]);
        }
        if self.whole_words
            && let Some(place) = self.vocabulary.place(word)
        {
            return Ok(vec![token(place, 0, word.len())]);
        }
        let mut symbols = self.characters(word)?;
        self.merge(&mut symbols);
        let mut end = 0;
        let left = symbols.iter().filter(|symbol| symbol.len > 0);
        Ok(left
            .map(|symbol| {
                let start = end;
                end += symbol.len;
                token(symbol.place, start, symbol.len)
            })
            .collect())
    }

    /// The number of the token with this spelling.
    pub fn token_to_id(&self, spelling: &str) -> Option<u32> {
        let place = self.vocabulary.place(spelling)?;
        Some(self.vocabulary.id(place))
    }

    /// The spelling of the token with this number.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        let place = self.vocabulary.place_of(id)?;
        Some(self.vocabulary.spelling(place).to_owned())
    }

    /// Every spelling and its number.
    pub fn get_vocab(&self) -> HashMap<String, u32> {
        let places = 0..self.vocabulary.len() as u32;
        let entry = |place| {
            let spelling = self.vocabulary.spelling(place).to_owned();
            (spelling, self.vocabulary.id(place))
        };
        places.map(entry).collect()
    }

    /// How many spellings there are.
    pub fn get_vocab_size(&self) -> usize {
        self.vocabulary.len()
    }
}

impl Symbol {
    fn new(place: u32, len: usize) -> Symbol {
        Symbol {
            place,
            len,
            before: NONE,
            after: NONE,
        }
    }
}
