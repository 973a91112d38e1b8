//! A BPE model out of `tokenizer.json`, spellings borrowed from it while it is read.

use super::Bpe;
use super::vocabulary::{MergesRead, Vocabulary};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

impl<'de> Deserialize<'de> for Bpe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bpe, D::Error> {
        deserializer.deserialize_map(Model)
    }
}

/// A field of the model as `tokenizer.json` has it.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Field {
    Vocab,
    Merges,
    UnkToken,
    FuseUnk,
    ByteFallback,
    IgnoreMerges,
    #[serde(other)]
    Other,
}

/// Reads the model. Merges, the most of it, go into their table one by one where the vocabulary stands before
/// them, as files have it.
struct Model;

impl<'de> Visitor<'de> for Model {
    type Value = Bpe;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a BPE model")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bpe, A::Error> {
        let mut vocabulary: Option<Vocabulary> = None;
        let mut merges: Option<MergesRead> = None;
        let mut early: Option<Vec<Pair>> = None;
        let mut unknown: Option<String> = None;
        let [mut fuse_unknown, mut fallback, mut whole_words] = [None::<bool>; 3];
        while let Some(field) = map.next_key()? {
            match field {
                Field::Vocab if vocabulary.is_some() => {
                    return Err(A::Error::duplicate_field("vocab"));
                }
                Field::Merges if merges.is_some() || early.is_some() => {
                    return Err(A::Error::duplicate_field("merges"));
                }
                Field::Vocab => {
                    let Tokens(tokens) = map.next_value()?;
                    let tokens = tokens.into_iter().map(|(text, id)| (text.0, id));
                    vocabulary = Some(Vocabulary::new(tokens).map_err(A::Error::custom)?);
                }
                Field::Merges => match &vocabulary {
                    Some(vocabulary) => merges = Some(map.next_value_seed(MergesOf(vocabulary))?),
                    None => early = Some(map.next_value()?),
                },
                Field::UnkToken => unknown = map.next_value()?,
                Field::FuseUnk => fuse_unknown = map.next_value()?,
                Field::ByteFallback => fallback = map.next_value()?,
                Field::IgnoreMerges => whole_words = map.next_value()?,
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let mut vocabulary = vocabulary.ok_or_else(|| A::Error::missing_field("vocab"))?;
        if let Some(early) = early {
            let mut read = MergesRead::default();
            for pair in &early {
                pair.put(&vocabulary, &mut read).map_err(A::Error::custom)?;
            }
            merges = Some(read);
        }
        vocabulary.set_merges(merges.ok_or_else(|| A::Error::missing_field("merges"))?);
        let byte = |byte: u8| vocabulary.place(&format!("<{byte:#04X}>"));
        Ok(Bpe {
            bytes: (fallback == Some(true)).then(|| (0..=u8::MAX).map(byte).collect()),
            vocabulary,
            unknown,
            fuse_unknown: fuse_unknown == Some(true),
            whole_words: whole_words == Some(true),
        })
    }
}

/// Reads a list of merges for a vocabulary.
struct MergesOf<'v>(&'v Vocabulary);

impl<'de> DeserializeSeed<'de> for MergesOf<'_> {
    type Value = MergesRead;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<MergesRead, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for MergesOf<'_> {
    type Value = MergesRead;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a list of merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<MergesRead, A::Error> {
        let mut read = MergesRead::default();
        while let Some(pair) = list.next_element::<Pair>()? {
            pair.put(self.0, &mut read).map_err(A::Error::custom)?;
        }
        Ok(read)
    }
}

impl Pair<'_> {
    fn put(&self, vocabulary: &Vocabulary, merges: &mut MergesRead) -> Result<(), String> {
        let Pair(Text(left), Text(right)) = self;
        // The first line of a `merges.txt` may have come along.
        if left.starts_with("#version") {
            return Ok(());
        }
        merges.push(vocabulary, left, right)
    }
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
