//! A BPE model out of `tokenizer.json`, spellings borrowed from it while it is read.

use super::Bpe;
use super::vocabulary::{MergesRead, Vocabulary};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

impl<'de> Deserialize<'de> for Bpe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bpe, D::Error> {
        deserializer.deserialize_map(Fields)
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

/// Reads the model. Of merges, which are the most of it, only what the table needs is kept, if the vocabulary
/// stands before them, as files have it.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Bpe;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a BPE model")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bpe, A::Error> {
        let mut vocabulary: Option<Vocabulary> = None;
        let mut merges: Option<MergesRead> = None;
        let mut early: Option<Vec<Pair>> = None;
        let mut unknown: Option<Option<String>> = None;
        let [mut fuse_unknown, mut fallback, mut whole_words] = [None::<Option<bool>>; 3];
        while let Some(field) = map.next_key()? {
            match field {
                Field::Vocab if vocabulary.is_some() => {
                    return Err(A::Error::duplicate_field("vocab"));
                }
                Field::Vocab => {
                    let Tokens(tokens) = map.next_value()?;
                    let tokens = tokens.into_iter().map(|(text, id)| (text.0, id));
                    vocabulary = Some(Vocabulary::new(tokens).map_err(A::Error::custom)?);
                }
                Field::Merges if merges.is_some() || early.is_some() => {
                    return Err(A::Error::duplicate_field("merges"));
                }
                Field::Merges => match &vocabulary {
                    Some(vocabulary) => merges = Some(map.next_value_seed(MergesOf(vocabulary))?),
                    None => early = Some(map.next_value()?),
                },
                Field::UnkToken => once(&mut unknown, "unk_token", &mut map)?,
                Field::FuseUnk => once(&mut fuse_unknown, "fuse_unk", &mut map)?,
                Field::ByteFallback => once(&mut fallback, "byte_fallback", &mut map)?,
                Field::IgnoreMerges => once(&mut whole_words, "ignore_merges", &mut map)?,
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
            bytes: (fallback.flatten() == Some(true)).then(|| (0..=u8::MAX).map(byte).collect()),
            vocabulary,
            unknown: unknown.flatten(),
            fuse_unknown: fuse_unknown.flatten() == Some(true),
            whole_words: whole_words.flatten() == Some(true),
        })
    }
}

/// Reads the value of a field that has none yet.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    value: &mut Option<T>,
    field: &'static str,
    map: &mut A,
) -> Result<(), A::Error> {
    if value.is_some() {
        return Err(A::Error::duplicate_field(field));
    }
    *value = Some(map.next_value()?);
    Ok(())
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
        match &self.0 {
            Some([Text(left), Text(right)]) => merges.push(vocabulary, left, right),
            None => Ok(()),
        }
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

/// A merge: two spellings in a list, or in older files one text with a space between them. Or none: the first
/// line of a `merges.txt`, which tells its version, may have come along.
struct Pair<'a>(Option<[Text<'a>; 2]>);

impl<'de: 'a, 'a> Deserialize<'de> for Pair<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pair<'a>, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Pair<'de>;

            fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
                out.write_str("a merge: two tokens with one space between them, or a list of two")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Pair<'de>, E> {
                let pair = split(text)?;
                Ok(Pair(pair.map(|pair| pair.map(|text| Text(text.into())))))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Pair<'de>, E> {
                let pair = split(text)?;
                let owned = |text: &str| Text(text.to_owned().into());
                Ok(Pair(pair.map(|pair| pair.map(owned))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pair<'de>, A::Error> {
                let mut next = || list.next_element::<Text>();
                match (next()?, next()?, next()?) {
                    (Some(left), Some(right), None) => Ok(Pair(Some([left, right]))),
                    _ => Err(A::Error::custom("a merge that is not of two tokens")),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn split<E: Error>(text: &str) -> Result<Option<[&str; 2]>, E> {
    if text.starts_with("#version") {
        return Ok(None);
    }
    let parts = text
        .split_once(' ')
        .filter(|(_, right)| !right.contains(' '));
    let (left, right) = parts.ok_or_else(|| {
        E::custom(format!(
            "the merge {text:?}: expected two tokens and one space"
        ))
    })?;
    Ok(Some([left, right]))
}
