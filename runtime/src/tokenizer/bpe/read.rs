//! A BPE model out of `tokenizer.json`, spellings borrowed from it while it is read.

use super::{Bpe, Vocabulary};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// The model as `tokenizer.json` has it.
#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    vocab: Tokens<'a>,
    #[serde(borrow)]
    merges: Vec<Pair<'a>>,
    unk_token: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

impl<'de> Deserialize<'de> for Bpe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bpe, D::Error> {
        let source = Source::deserialize(deserializer)?;
        let vocabulary = vocabulary(source.vocab.0, &source.merges).map_err(D::Error::custom)?;
        let byte = |byte: u8| vocabulary.place(&format!("<{byte:#04X}>"));
        let fallback = source.byte_fallback == Some(true);
        Ok(Bpe {
            bytes: fallback.then(|| (0..=u8::MAX).map(byte).collect()),
            vocabulary,
            unknown: source.unk_token,
            fuse_unknown: source.fuse_unk == Some(true),
            whole_words: source.ignore_merges == Some(true),
        })
    }
}

fn vocabulary(tokens: Vec<(Text, u32)>, merges: &[Pair]) -> Result<Vocabulary, String> {
    let mut vocabulary = Vocabulary::new(tokens.into_iter().map(|(text, id)| (text.0, id)))?;
    vocabulary.reserve_merges(merges.len());
    let mut joined = String::new();
    // The first line of a `merges.txt` may have come along.
    let merges = merges
        .iter()
        .filter(|Pair(left, _)| !left.0.starts_with("#version"));
    for (rank, Pair(left, right)) in (0..).zip(merges) {
        vocabulary.push_merge(&left.0, &right.0, rank, &mut joined)?;
    }
    Ok(vocabulary)
}

/// Text that is borrowed where the file spells it without escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The vocabulary: an object of spellings and numbers.
struct Tokens<'a>(Vec<(Text<'a>, u32)>);

impl<'de: 'a, 'a> Deserialize<'de> for Tokens<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tokens<'a>, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vec<(Text<'de>, u32)>;

            fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
                out.write_str("an object of tokens and their numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = vec![];
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        Ok(Tokens(deserializer.deserialize_map(Entries)?))
    }
}

/// A merge: two spellings in a list, or in older files one text with a space between them.
struct Pair<'a>(Text<'a>, Text<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Pair<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pair<'a>, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Pair<'de>;

            fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
                out.write_str("a merge: two tokens with one space between them, or a list of two")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Pair<'de>, E> {
                let [left, right] = split(text)?;
                Ok(Pair(Text(left.into()), Text(right.into())))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Pair<'de>, E> {
                let [left, right] = split(text)?;
                Ok(Pair(
                    Text(left.to_owned().into()),
                    Text(right.to_owned().into()),
                ))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pair<'de>, A::Error> {
                let mut next = || list.next_element::<Text>();
                match (next()?, next()?, next()?) {
                    (Some(left), Some(right), None) => Ok(Pair(left, right)),
                    _ => Err(A::Error::custom("a merge that is not of two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn split<E: Error>(text: &str) -> Result<[&str; 2], E> {
    let parts = text
        .split_once(' ')
        .filter(|(_, right)| !right.contains(' '));
    let (left, right) = parts.ok_or_else(|| {
        E::custom(format!(
            "the merge {text:?}: expected two tokens and one space"
        ))
    })?;
    Ok([left, right])
}
