//! Tokens by their spelling and by their number, and the merges between them.

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// Tokens and merges, in a few large allocations: a map of strings takes one for each of a hundred
/// thousand, which is most of the time to start a small model.
#[derive(Default)]
pub struct Vocabulary {
    /// All spellings, one after another, in the order of their first mention.
    text: String,
    tokens: Vec<Token>,
    by_spelling: HashTable<u32>,
    /// Places in `tokens`, ordered by number, unless these are.
    by_id: Option<Vec<u32>>,
    hasher: DefaultHashBuilder,
    merges: Merges,
}

/// The merges that make each token.
#[derive(Default)]
struct Merges {
    /// Where those of the token at each place start, and where the last one's end.
    starts: Vec<u32>,
    ranks: Vec<Ranked>,
}

struct Ranked {
    cut: u32,
    rank: u32,
}

struct Token {
    id: u32,
    /// Where its spelling ends; it starts where the one before ends.
    end: u32,
}

/// What two tokens make: their spellings joined, which is a token, and where the second begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Merge {
    place: u32,
    cut: u32,
}

impl Vocabulary {
    /// Tokens with their numbers; of two with the same spelling or number, the last one counts.
    ///
    /// # Errors
    /// Spellings of more than 4 GiB.
    pub fn new<S: AsRef<str>>(
        tokens: impl ExactSizeIterator<Item = (S, u32)>,
    ) -> Result<Vocabulary, String> {
        let mut vocabulary = Vocabulary {
            tokens: Vec::with_capacity(tokens.len()),
            by_spelling: HashTable::with_capacity(tokens.len()),
            ..Vocabulary::default()
        };
        for (spelling, id) in tokens {
            vocabulary.push(spelling.as_ref(), id)?;
        }
        let tokens = &vocabulary.tokens;
        if !tokens.is_sorted_by_key(|token| token.id) {
            let mut by_id: Vec<u32> = (0..tokens.len() as u32).collect();
            // Stable: of equal numbers, the last stays last.
            by_id.sort_by_key(|&place| tokens[place as usize].id);
            vocabulary.by_id = Some(by_id);
        }
        Ok(vocabulary)
    }

    fn push(&mut self, spelling: &str, id: u32) -> Result<(), String> {
        let (text, tokens, hasher) = (&self.text, &self.tokens, &self.hasher);
        let entry = self.by_spelling.entry(
            hasher.hash_one(spelling),
            |&place| spelled(text, tokens, place) == spelling,
            |&place| hasher.hash_one(spelled(text, tokens, place)),
        );
        match entry {
            Entry::Occupied(known) => self.tokens[*known.get() as usize].id = id,
            Entry::Vacant(new) => {
                let end = u32::try_from(self.text.len() + spelling.len());
                let end = end.map_err(|_| "a vocabulary of more than 4 GiB".to_owned())?;
                // No more places than bytes and one empty spelling.
                new.insert(self.tokens.len() as u32);
                self.text.push_str(spelling);
                self.tokens.push(Token { id, end });
            }
        }
        Ok(())
    }

    /// Takes the merges, which were read for this vocabulary.
    pub fn set_merges(&mut self, read: MergesRead) {
        self.merges = Merges::new(self.tokens.len(), read.merges);
    }

    /// The rank of the merge of two tokens, and the place of what it makes; `joined` is room to
    /// spell it.
    pub fn merge(&self, left: u32, right: u32, joined: &mut String) -> Option<(u32, u32)> {
        let merge = self.merge_of(self.spelling(left), self.spelling(right), joined)?;
        Some((self.merges.rank(merge)?, merge.place))
    }

    /// What two spellings make, if that is what the last merge made, or the token after it: files list
    /// merges in the order of the tokens that they make, and a look there is in the cache.
    fn next_merge_of(&self, left: &str, right: &str, last: Option<Merge>) -> Option<Merge> {
        let last = last.map_or(0, |merge| merge.place);
        let end = self.tokens.len().min(last as usize + 2) as u32;
        let makes = |&place: &u32| self.spelling(place).strip_prefix(left) == Some(right);
        let place = (last..end).find(makes)?;
        let cut = left.len() as u32;
        Some(Merge { place, cut })
    }

    /// What two spellings make, if that is a token.
    fn merge_of(&self, left: &str, right: &str, joined: &mut String) -> Option<Merge> {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let place = self.place(joined)?;
        let cut = left.len() as u32;
        Some(Merge { place, cut })
    }

    /// Where the token with this spelling stands.
    pub fn place(&self, spelling: &str) -> Option<u32> {
        let found = self
            .by_spelling
            .find(self.hasher.hash_one(spelling), |&place| {
                self.spelling(place) == spelling
            });
        found.copied()
    }

    /// Where the token with this number stands.
    pub fn place_of(&self, id: u32) -> Option<u32> {
        let place = match &self.by_id {
            Some(places) => {
                let after = places.partition_point(|&place| self.id(place) <= id);
                places[after.checked_sub(1)?]
            }
            None => {
                let after = self.tokens.partition_point(|token| token.id <= id);
                after.checked_sub(1)? as u32
            }
        };
        (self.id(place) == id).then_some(place)
    }

    /// The number of the token at a place.
    pub fn id(&self, place: u32) -> u32 {
        self.tokens[place as usize].id
    }

    /// The spelling of the token at a place.
    pub fn spelling(&self, place: u32) -> &str {
        spelled(&self.text, &self.tokens, place)
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }
}

impl Merges {
    /// Merges and their ranks; of equal merges, the last one counts.
    fn new(tokens: usize, mut merges: Vec<(Merge, u32)>) -> Merges {
        // Stable: of equal merges, the last stays last.
        merges.sort_by_key(|&(merge, _)| merge);
        let mut starts = Vec::with_capacity(tokens + 1);
        let mut ranks: Vec<Ranked> = Vec::with_capacity(merges.len());
        let mut last = None;
        for (merge, rank) in merges {
            if last == Some(merge) {
                ranks.pop();
            }
            last = Some(merge);
            starts.resize(merge.place as usize + 1, ranks.len() as u32);
            ranks.push(Ranked {
                cut: merge.cut,
                rank,
            });
        }
        starts.resize(tokens + 1, ranks.len() as u32);
        Merges { starts, ranks }
    }

    fn rank(&self, merge: Merge) -> Option<u32> {
        let place = merge.place as usize;
        let (start, end) = (*self.starts.get(place)?, *self.starts.get(place + 1)?);
        let own = &self.ranks[start as usize..end as usize];
        let found = own.iter().find(|ranked| ranked.cut == merge.cut)?;
        Some(found.rank)
    }
}

/// Merges while they are read, the lowest rank first.
#[derive(Default)]
pub struct MergesRead {
    merges: Vec<(Merge, u32)>,
    /// Room to spell what a merge makes.
    joined: String,
}

impl MergesRead {
    /// Adds the merge of the two tokens with these spellings. Parts that are no tokens are never merged.
    ///
    /// # Errors
    /// What they make is not in the vocabulary.
    pub fn push(&mut self, vocabulary: &Vocabulary, left: &str, right: &str) -> Result<(), String> {
        let last = self.merges.last().map(|&(merge, _)| merge);
        let merge = vocabulary.next_merge_of(left, right, last);
        let merge = merge.or_else(|| vocabulary.merge_of(left, right, &mut self.joined));
        let merge = merge.ok_or_else(|| {
            let joined = &self.joined;
            format!(
                "the merge of {left:?} and {right:?} makes {joined:?}, which the vocabulary lacks"
            )
        })?;
        self.merges.push((merge, self.merges.len() as u32));
        Ok(())
    }
}

fn spelled<'a>(text: &'a str, tokens: &[Token], place: u32) -> &'a str {
    let place = place as usize;
    let start = place.checked_sub(1).map_or(0, |before| tokens[before].end);
    &text[start as usize..tokens[place].end as usize]
}
