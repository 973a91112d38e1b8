//! Corrections of linear layers in a file: they are the matrix, or the bias, that they stand for.

use kinglet::config::ModelConfig;
use kinglet::format::names::{bias_name, correction, expected_weights, projections};
use kinglet::format::validate::Stored;
use kinglet::format::{Activations, Header, ModelFile, Provenance, WeightInfo, Writer};
use kinglet::{Model, SessionOptions};
use kinglet_convert::calibrate::dense::Moments;
use kinglet_convert::quantize::{low_rank, search};
use kinglet_kernels::kv::KvKind;
use kinglet_kernels::packing::{Kind, pack_floats};
use kinglet_tests::{BYTE_TOKENIZER, checkpoint, recipe, tiny_config};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A weight: its shape, kind and values.
type Plain = (Vec<usize>, Kind, Vec<f32>);

const RANK: usize = 3;

fn weights(config: &ModelConfig) -> BTreeMap<String, Plain> {
    let checkpoint = checkpoint(config.clone());
    let weights = expected_weights(config).into_iter().map(|(name, shape)| {
        let values = checkpoint.read(&name).unwrap();
        (name, (shape, Kind::F32, values))
    });
    weights.collect()
}

/// Numbers that half precision holds, of both signs.
fn numbers(seed: usize, count: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 37 + seed * 11) % 64) as f32 / 128.0 - 0.25;
    (0..count).map(number).collect()
}

fn logits(config: &ModelConfig, weights: &BTreeMap<String, Plain>) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.kgl");
    write(&path, config, weights);
    let model = Model::open(&path).unwrap();
    let options = SessionOptions {
        kv: KvKind::F32,
        ..SessionOptions::default()
    };
    let mut session = model.session(options).unwrap();
    let tokens: Vec<u32> = "Bottles of beer".bytes().map(u32::from).collect();
    session.prefill(&tokens).unwrap();
    session.logits().unwrap().to_vec()
}

fn write(path: &Path, config: &ModelConfig, weights: &BTreeMap<String, Plain>) {
    let info = |(name, (shape, kind, _)): (&String, &Plain)| {
        let info = WeightInfo {
            shape: shape.clone(),
            kind: kind.to_string(),
            activations: Activations::default(),
        };
        (name.clone(), info)
    };
    let header = Header {
        config: config.clone(),
        weights: weights.iter().map(info).collect(),
        tokenizer_bytes: 0,
        chat_template_bytes: 0,
        provenance: Provenance::default(),
    };
    let mut writer = Writer::create(path, header, BYTE_TOKENIZER.as_bytes(), None).unwrap();
    for planned in writer.plan().to_vec() {
        let (_, _, values) = &weights[&planned.name];
        match planned.stored {
            Stored::Vector(_) => writer.write_vector(values).unwrap(),
            Stored::Matrix(layout) => {
                let mut bytes = vec![0; layout.bytes()];
                if layout.kind().is_quantized() {
                    let codes = search::quantize(layout, values, None);
                    codes.pack_into(&mut bytes).unwrap();
                } else {
                    pack_floats(&layout, values, &mut bytes).unwrap();
                }
                writer.write(&bytes).unwrap();
            }
        }
    }
    writer.finish().unwrap();
}

/// `widen · narrow`
fn product(narrow: &[f32], widen: &[f32], rank: usize) -> Vec<f32> {
    let inputs = narrow.len() / rank;
    let row = |row: &[f32]| -> Vec<f32> {
        let value = |col: usize| (0..rank).map(|r| row[r] * narrow[r * inputs + col]).sum();
        (0..inputs).map(value).collect()
    };
    widen.chunks_exact(rank).flat_map(row).collect()
}

/// The same logits, but for the order in which a few dozen floats of 24 bits are added, through two
/// layers: some 1e-6 of the largest.
#[track_caller]
fn equal(found: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        let distance = (found - expected).abs() / largest;
        assert!(distance < 1e-5, "{found} instead of {expected}");
    }
}

#[test]
fn a_low_rank_correction_is_added_to_the_matrix() {
    let config = tiny_config();
    for kind in [Kind::F32, Kind::F16] {
        let (mut whole, mut corrected) = (weights(&config), weights(&config));
        let plain = logits(&config, &whole);
        for (index, projection) in projections(&config).into_iter().enumerate() {
            let [outputs, inputs] = projection.shape;
            let narrow = numbers(index, RANK * inputs);
            let widen = numbers(index + 1, RANK * outputs);
            let (_, _, values) = whole.get_mut(&projection.name).unwrap();
            let product = product(&narrow, &widen, RANK);
            values.iter_mut().zip(product).for_each(|(w, x)| *w += x);
            let shapes = [vec![RANK, inputs], vec![outputs, RANK]];
            let parts = shapes.into_iter().zip([narrow, widen]);
            let parts = parts.map(|(shape, values)| (shape, kind, values));
            corrected.extend(correction(&projection.name).into_iter().zip(parts));
        }
        let expected = logits(&config, &whole);
        equal(&logits(&config, &corrected), &expected);
        let moved = plain
            .iter()
            .zip(&expected)
            .any(|(a, b)| (a - b).abs() > 0.1);
        assert!(moved, "the corrections do nothing");
    }
}

/// What quantization took from the weights, given back whole.
#[test]
fn a_correction_of_full_rank_in_floats_gives_the_original_logits() {
    let config = tiny_config();
    let original = weights(&config);
    let mut corrected = original.clone();
    for projection in projections(&config) {
        let [outputs, inputs] = projection.shape;
        let (_, _, values) = corrected.get_mut(&projection.name).unwrap();
        // A grid as coarse as that of INT4.
        let rounded: Vec<f32> = values.iter().map(|w| (w * 8.0).round() / 8.0).collect();
        let error: Vec<f32> = values.iter().zip(&rounded).map(|(w, r)| w - r).collect();
        *values = rounded;
        let mut moments = Moments::new(inputs);
        moments.add(&numbers(7, 64 * inputs), None);
        let rank = outputs.min(inputs);
        let low_rank::Correction { narrow, widen } = low_rank::correct(&error, &moments, rank);
        let parts = [
            (vec![rank, inputs], Kind::F32, narrow),
            (vec![outputs, rank], Kind::F32, widen),
        ];
        corrected.extend(correction(&projection.name).into_iter().zip(parts));
    }
    equal(&logits(&config, &corrected), &logits(&config, &original));
}

/// A bias is one, whether the configuration asks for it or not.
#[test]
fn biases_may_be_there_that_the_architecture_has_not() {
    let plain = tiny_config();
    let asked = ModelConfig {
        biases: true,
        ..tiny_config()
    };
    let mut weights = weights(&plain);
    let before = logits(&plain, &weights);
    for (index, projection) in projections(&plain).into_iter().enumerate() {
        let [outputs, _] = projection.shape;
        let bias = (vec![outputs], Kind::F32, numbers(index, outputs));
        weights.insert(bias_name(&projection.name), bias);
    }
    let found = logits(&plain, &weights);
    assert_eq!(found, logits(&asked, &weights));
    assert_ne!(found, before);
}

/// `info` and reports count what is the model's: not what corrects it.
#[test]
fn corrections_cost_bytes_but_are_no_parameters() {
    let config = tiny_config();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.kgl");
    let mut weights = weights(&config);
    let open = |weights: &BTreeMap<String, Plain>| {
        write(&path, &config, weights);
        Model::open(&path).unwrap()
    };
    let before = open(&weights);
    let parts = [
        (vec![RANK, 32], Kind::F16, numbers(0, RANK * 32)),
        (vec![48, RANK], Kind::F16, numbers(1, RANK * 48)),
    ];
    weights.extend(correction("layers.0.up").into_iter().zip(parts));
    let after = open(&weights);
    let version = |model: &Model| model.file().header().version();
    assert_eq!((version(&before), version(&after)), (1, 3));
    let parameters = |model: &Model| ModelFile::parameters(model.file());
    assert_eq!(parameters(&after), parameters(&before));
    // Rows in panels of 16, columns padded to 4, two bytes each.
    let bytes = 2 * (16 * 32 + 48 * 4);
    let read = |model: &Model| model.bytes_per_token(KvKind::default(), 0);
    assert_eq!(read(&after), read(&before) + bytes);
    let work = RANK * (32 + 48);
    assert_eq!(after.macs_per_token(), before.macs_per_token() + work);
}

/// One matrix is read while the start of the next is asked for; what is made with the matrices of a layer
/// can only be written after them.
#[test]
fn a_layer_lies_in_the_order_in_which_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.kgl");
    let mut recipe = recipe("q4");
    recipe.quantize.low_rank = RANK;
    recipe.quantize.bias_correction = true;
    kinglet_convert::write(&checkpoint(tiny_config()), &path, &recipe, &|_, _| ()).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let entries: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let mut places: Vec<(u64, &str)> = vec![];
    for (name, entry) in entries.as_object().unwrap() {
        if let Some(part) = name.strip_prefix("layers.1.") {
            places.push((entry["data_offsets"][0].as_u64().unwrap(), part));
        }
    }
    places.sort_unstable();
    let parts: Vec<&str> = places.iter().map(|&(_, part)| part).collect();
    let (matrices, rest) = parts.split_at(7);
    assert_eq!(matrices, ["q", "k", "v", "o", "gate", "up", "down"]);
    for part in ["attn_norm", "q_bias", "down_narrow"] {
        assert!(rest.contains(&part), "no {part} in {rest:?}");
    }
}
