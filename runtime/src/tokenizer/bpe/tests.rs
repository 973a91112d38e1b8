use super::*;
use proptest::prelude::*;
use serde_json::json;
use tokenizers::Model;
use tokenizers::models::bpe::BPE;

/// A model in JSON: tokens of one letter or byte, and merges of any tokens before them, before the vocabulary
/// or behind it.
fn model() -> impl Strategy<Value = serde_json::Value> {
    let pairs = prop::collection::vec(
        (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        0..40,
    );
    let options = (
        any::<[bool; 5]>(),
        prop::option::of(prop::sample::select(vec!["?", "absent"])),
    );
    let order = any::<[bool; 3]>();
    (pairs, options, order).prop_map(|(pairs, (flags, unknown), order)| {
        let [legacy, early, descending] = order;
        let [bytes, whole_bytes, fuse, whole, backwards] = flags;
        let mut tokens: Vec<String> = ["a", "b", "c", "é", "?", "", "<0x64>", "<0xF0>"]
            .map(String::from)
            .to_vec();
        if whole_bytes {
            tokens.extend(["<0x78>", "<0x9F>", "<0xA6>", "<0x80>"].map(String::from));
        }
        let mut merges = vec![];
        for (left, right) in pairs {
            let (left, right) = (left.get(&tokens).clone(), right.get(&tokens).clone());
            let token = left.clone() + &right;
            if !tokens.contains(&token) {
                tokens.push(token);
            }
            merges.push(match legacy {
                true => json!(format!("{left} {right}")),
                false => json!([left, right]),
            });
        }
        // Ranks need not follow numbers.
        if backwards {
            merges.reverse();
        }
        let vocab: serde_json::Map<_, _> = tokens
            .into_iter()
            .zip((7..67).map(|id: u32| if descending { 73 - id } else { id }.into()))
            .collect();
        let mut model = json!({
            "type": "BPE", "unk_token": unknown,
            "byte_fallback": bytes, "fuse_unk": fuse, "ignore_merges": whole,
        });
        // In JSON in this order.
        if early {
            model["merges"] = json!(merges);
        }
        model["vocab"] = json!(vocab);
        model["merges"] = json!(merges);
        model
    })
}

proptest! {
    /// The crate's model is the reference: the same tokens, spellings and bytes covered.
    #[test]
    fn words_become_the_tokens_of_the_reference(model in model(), word in "[abcdé?xd🦀]{0,24}") {
        let json = model.to_string();
        let reference: BPE = serde_json::from_str(&json).unwrap();
        let ours: Bpe = serde_json::from_str(&json).unwrap();
        match (ours.tokenize(&word), reference.tokenize(&word)) {
            (Ok(ours), Ok(reference)) => prop_assert_eq!(ours, reference),
            (Err(_), Err(_)) => {}
            (ours, reference) => prop_assert!(false, "{:?} against {:?}", ours, reference),
        }
        prop_assert_eq!(ours.get_vocab(), reference.get_vocab());
        for id in 0..80 {
            prop_assert_eq!(ours.id_to_token(id), reference.id_to_token(id));
        }
    }
}

#[test]
fn merges_that_make_nothing_are_refused() {
    let read = |merges| {
        let json = json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": merges});
        serde_json::from_str::<Bpe>(&json.to_string()).map(|_| ())
    };
    assert!(read(json!(["a b"])).is_ok());
    assert!(read(json!(["#version: 0.2", "a b"])).is_ok());
    assert!(read(json!(["#version: 0.2 - Trained by a crate", "a b"])).is_ok());
    let refused = |merges| read(merges).unwrap_err().to_string();
    assert!(refused(json!(["b a"])).contains(r#"the merge of "b" and "a" makes "ba", which"#));
    assert!(refused(json!(["a b c"])).contains(r#"the merge "a b c": expected two tokens"#));
    assert!(refused(json!(["ab"])).contains(r#"the merge "ab": expected two tokens"#));
    assert!(refused(json!([["a"]])).contains("a merge that is not of two tokens"));
    assert!(refused(json!([7])).contains("expected a merge"));
}

#[test]
fn fields_that_come_twice_are_refused() {
    let merges = r#""vocab": {"a": 0}, "merges": []"#;
    for field in [
        r#""vocab": {}"#,
        r#""merges": []"#,
        r#""unk_token": null"#,
        r#""fuse_unk": true"#,
        r#""byte_fallback": false"#,
        r#""ignore_merges": null"#,
    ] {
        let json = format!("{{{merges}, {field}, {field}}}");
        let Err(error) = serde_json::from_str::<Bpe>(&json) else {
            panic!("{field} twice was read");
        };
        assert!(error.to_string().contains("duplicate field"), "{error}");
    }
    for (field, json) in [
        ("vocab", r#"{"merges": []}"#),
        ("merges", r#"{"vocab": {}}"#),
    ] {
        let Err(error) = serde_json::from_str::<Bpe>(json) else {
            panic!("a model without {field} was read");
        };
        let expected = format!("missing field `{field}`");
        assert!(error.to_string().contains(&expected), "{error}");
    }
}
