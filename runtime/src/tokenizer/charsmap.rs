//! The character map of SentencePiece's `Precompiled` normalizer, checked: the crate that follows it
//! trusts it.
//!
//! Its bytes: the size of a trie (u32, little endian), the trie as a double array of u32 units, and
//! the replacements, each ended by a NUL. A state of the trie is an index; the unit at `state ^ byte`
//! leads on from it if it bears that byte as its label. A unit: bits 0–7 its label (bit 31: it is a
//! value, no label), bit 8 whether a value stands at the state it leads to, bits 10–30 the offset of
//! that state, times 256 if bit 9 is set. A value is the place of a replacement.

/// Checks a character map in base64.
///
/// # Errors
/// A sentence that says what was expected and what was found.
pub fn check(charsmap: &str) -> Result<(), String> {
    let bytes = base64::decode(charsmap).map_err(|e| format!("not base64: {e}"))?;
    let (size, rest) = bytes
        .split_first_chunk()
        .ok_or_else(|| format!("{} bytes: expected 4 or more", bytes.len()))?;
    let size = u32::from_le_bytes(*size) as usize;
    if size == 0 || !size.is_multiple_of(4) || size > rest.len() {
        let found = rest.len();
        return Err(format!(
            "a trie of {size} bytes: expected a multiple of 4, of the {found} bytes that follow"
        ));
    }
    let (trie, replacements) = rest.split_at(size);
    let replacements = std::str::from_utf8(replacements)
        .map_err(|e| format!("replacements that are not UTF-8: {e}"))?;
    let (units, _) = trie.as_chunks();
    let units: Vec<u32> = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    for (index, &unit) in units.iter().enumerate() {
        // Values lead nowhere; the first unit leads to the first state without being read by label.
        if index > 0 && unit >> 31 == 1 {
            continue;
        }
        let offset = (unit >> 10 << ((unit & 0x200) >> 6)) as usize;
        let state = index ^ offset;
        // From a state any byte may be tried.
        if state | 0xFF >= units.len() {
            let len = units.len();
            return Err(format!(
                "unit {index} leads to {state}, beyond the {len} units"
            ));
        }
        let value = (units[state] & 0x7FFF_FFFF) as usize;
        if unit & 0x100 != 0 && !replacements.is_char_boundary(value) {
            return Err(format!(
                "unit {index} has the replacement at {value}: expected the start of a character in \
                 {} bytes",
                replacements.len()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trie that replaces `a`, in blocks of 256 units as tries are.
    fn units() -> Vec<u32> {
        let mut units = vec![0u32; 512];
        units[0] = 256 << 10;
        // State 256, byte 97: label, value at state 256 ^ 97 ^ 1, of which unit the value is 0.
        units[256 ^ 97] = 97 | 0x100 | 1 << 10;
        units[256 ^ 97 ^ 1] = 1 << 31;
        units
    }

    fn charsmap(units: &[u32], replacements: &[u8]) -> String {
        let trie = units.iter().flat_map(|unit| unit.to_le_bytes());
        let size = (4 * units.len() as u32).to_le_bytes();
        let bytes: Vec<u8> = size.into_iter().chain(trie).collect();
        base64::encode([&bytes, replacements].concat())
    }

    fn tokenizer(charsmap: &str) -> Result<tokenizers::Tokenizer, tokenizers::Error> {
        let json = serde_json::json!({
            "version": "1.0",
            "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
            "model": {"type": "WordLevel", "vocab": {"bc": 0, "?": 1}, "unk_token": "?"},
            "added_tokens": [],
        });
        tokenizers::Tokenizer::from_bytes(json.to_string())
    }

    #[test]
    fn a_sound_map_replaces() {
        let charsmap = charsmap(&units(), b"bc\0");
        check(&charsmap).unwrap();
        let found = tokenizer(&charsmap).unwrap().encode("a", false).unwrap();
        assert_eq!(found.get_ids(), [0]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |charsmap: &str, part: &str| {
            let reason = check(charsmap).unwrap_err();
            assert!(reason.contains(part), "no {part:?} in {reason}");
        };
        refused("?", "base64");
        refused("AAA=", "2 bytes");
        refused(&charsmap(&[], b""), "0 bytes");
        let huge = base64::encode([0xFC, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
        refused(&huge, "4294967292 bytes");
        refused(&charsmap(&units(), b"\xFF"), "UTF-8");
        refused(&charsmap(&[0], b""), "beyond the 1 units");
        let with = |index: usize, unit: u32| {
            let mut units = units();
            units[index] = unit;
            charsmap(&units, "é".as_bytes())
        };
        refused(&with(0, 512 << 10), "unit 0 leads to 512");
        refused(&with(5, 2 << 10 | 1 << 9), "unit 5 leads to 517");
        refused(&with(256 ^ 97 ^ 1, 1 << 31 | 1), "replacement at 1");
        refused(&with(256 ^ 97 ^ 1, 1 << 31 | 3), "replacement at 3");
    }

    proptest::proptest! {
        /// Whatever passes the check cannot make the normalizer panic.
        #[test]
        fn damaged_maps_are_refused_or_run(
            damage in proptest::collection::vec((0usize..512, proptest::num::u32::ANY, 0u32..32), 1..6),
            text in "[a-c\u{e9}\u{300}]{0,8}",
        ) {
            let mut units = units();
            for (index, bits, shift) in damage {
                units[index] = bits >> shift;
            }
            let charsmap = charsmap(&units, "bc\0é".as_bytes());
            if check(&charsmap).is_ok() {
                let _ = tokenizer(&charsmap).unwrap().encode(text, false);
            }
        }
    }
}
