//! The program on flags and files that make no sense: a message and an exit code, never a panic.

use kinglet::config::{
    Activation, Classifier, EncoderConfig, FeedForward, HeadActivation, LayerConfig, ModelConfig,
    NormKind, Pooling, Residual, Rope, Scores,
};
use kinglet::format::names::expected_weights;
use kinglet::format::{Activations, Header, Provenance, WeightInfo, Writer};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// A small decoder.
fn decoder() -> ModelConfig {
    ModelConfig {
        architecture: "llama".to_owned(),
        vocab_size: 256,
        hidden_size: 8,
        intermediate_size: 8,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        max_positions: 128,
        layers: vec![LayerConfig {
            window: None,
            rope: 0,
        }],
        norm: NormKind::Rms,
        norm_eps: 1e-5,
        residual: Residual::PreNorm,
        post_norms: false,
        qk_norms: false,
        qkv_biases: false,
        biases: false,
        feed_forward: FeedForward::Gated,
        activation: Activation::Silu,
        attention_scale: 0.5,
        embedding_scale: 1.0,
        ropes: vec![Rope {
            theta: 10_000.0,
            dims: 4,
            scaling: None,
        }],
        tied_head: true,
        logit_softcap: None,
        attention_softcap: None,
        bos_token: None,
        eos_tokens: vec![255],
        encoder: None,
    }
}

/// A small encoder.
fn encoder() -> ModelConfig {
    ModelConfig {
        architecture: "bert".to_owned(),
        norm: NormKind::Layer,
        residual: Residual::PostNorm,
        biases: true,
        feed_forward: FeedForward::Plain,
        ropes: vec![],
        tied_head: false,
        eos_tokens: vec![],
        encoder: Some(EncoderConfig {
            first_position: Some(0),
            token_types: 0,
            embedding_norm: true,
            max_tokens: 16,
            pooling: Pooling::Mean,
            normalize: true,
            classifier: None,
        }),
        ..decoder()
    }
}

/// A small encoder with two classes.
fn classifier() -> ModelConfig {
    let mut config = encoder();
    if let Some(encoder) = &mut config.encoder {
        encoder.classifier = Some(Classifier {
            labels: vec!["no".to_owned(), "yes".to_owned()],
            activation: HeadActivation::Tanh,
            scores: Scores::Softmax,
        });
    }
    config
}

/// A decoder of zeros with that chat template.
fn write_model(path: &Path, template: &str) {
    write_zeros(path, decoder(), Some(template));
}

fn write_zeros(path: &Path, config: ModelConfig, template: Option<&str>) {
    let weights = expected_weights(&config).into_iter().map(|(name, shape)| {
        let kind = "f32".to_owned();
        let activations = Activations::default();
        let info = WeightInfo {
            shape,
            kind,
            activations,
        };
        (name, info)
    });
    let header = Header {
        weights: weights.collect(),
        config,
        tokenizer_bytes: 0,
        chat_template_bytes: 0,
        provenance: Provenance::default(),
    };
    let tokenizer = include_bytes!("../../tests/fixtures/byte_tokenizer.json");
    let mut writer = Writer::create(path, header, tokenizer, template).unwrap();
    for planned in writer.plan().to_vec() {
        writer.write(&vec![0; planned.stored.bytes()]).unwrap();
    }
    writer.finish().unwrap();
}

/// A folder with models and texts.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile_cli");
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
        write_model(&folder.join("m.kgl"), "{{ messages[0].content }}");
        write_model(&folder.join("broken.kgl"), "{% for %}");
        write_model(
            &folder.join("refuses.kgl"),
            "{{ raise_exception('no users here') }}",
        );
        write_model(&folder.join("nothing.kgl"), "{{ '' }}");
        write_zeros(&folder.join("encoder.kgl"), encoder(), None);
        write_zeros(&folder.join("classes.kgl"), classifier(), None);
        write("empty.kgl", b"");
        write("gguf.kgl", b"GGUF\x03\0\0\0");
        write("empty.txt", b"");
        write("short.txt", b"a few words");
        write("latin1.txt", b"caf\xe9");
        folder
    })
}

/// Runs the program in that folder.
fn kinglet(arguments: &[&str], input: &[u8], isa: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet"));
    command.args(arguments).current_dir(folder());
    if let Some(isa) = isa {
        command.env("KINGLET_ISA", isa);
    }
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // The program may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// The exit code is `code`, and the message has all of `names`.
#[track_caller]
fn ends(arguments: &str, input: &[u8], code: i32, names: &[&str]) {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    check(&kinglet(&arguments, input, None), code, names);
}

#[track_caller]
fn check(output: &Output, code: i32, names: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(output.status.code(), Some(code), "{message}");
    for name in names {
        assert!(message.contains(name), "no {name:?} in: {message}");
    }
}

#[track_caller]
fn refused(arguments: &str, names: &[&str]) {
    ends(arguments, b"", 1, names);
}

/// What the flags' parser itself refuses.
#[track_caller]
fn unusable(arguments: &str, names: &[&str]) {
    ends(arguments, b"", 2, names);
}

/// `kinglet run` on the sound model.
#[track_caller]
fn run_refused(flags: &str, names: &[&str]) {
    refused(&format!("run -m m.kgl -p a {flags}"), names);
}

#[test]
fn sound_runs_succeed() {
    ends("run -m m.kgl -p a -n 3 --temp 0", b"", 0, &["completion 3"]);
    ends("run -m m.kgl -p - -n 1", b"abc", 0, &["prompt 3 tokens"]);
    // The newline that ends a text is none of the prompt.
    ends("run -m m.kgl -p - -n 1", b"abc\n", 0, &["prompt 3 tokens"]);
    ends("run -m m.kgl -p -5 --stop -- -n 1", b"", 0, &["prompt 2"]);
    ends("run -m m.kgl -p a -n 0", b"", 0, &["completion 0"]);
    ends("run -m m.kgl -p a -c 2", b"", 0, &["completion 1"]);
    let huge = usize::MAX.to_string();
    let flags = format!("-n 2 --top-k {huge} --repeat-last-n {huge} --repeat-penalty 2 --top-p 0");
    ends(&format!("run -m m.kgl -p a {flags}"), b"", 0, &[]);
    ends("chat -m m.kgl -n 3", b"hello\n/reset\n\n/exit\n", 0, &[]);
    ends("verify -m m.kgl", b"", 0, &[]);
    ends("bench -m m.kgl -p 2 -n 1 -r 1 -t 1", b"", 0, &[]);
    let crowd = "bench -m m.kgl -p 2 -n 1 -r 1 -t 1024";
    ends(crowd, b"", 0, &["note: --threads 1024", "cores to run on"]);
}

/// Whoever read the messages may be gone.
#[test]
fn messages_that_nobody_reads_do_not_stop_a_run() {
    let run = |model: &str| {
        let arguments = ["run", "-m", model, "-p", "a", "-n", "1"];
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet"));
        let command = command.args(arguments).current_dir(folder());
        let command = command.stdout(Stdio::null()).stderr(writer);
        command.status().unwrap().code()
    };
    assert_eq!(run("m.kgl"), Some(0));
    assert_eq!(run("none.kgl"), Some(1));
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_are_no_trouble() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let name = OsStr::from_bytes(b"m\xff.kgl");
    std::fs::copy(folder().join("encoder.kgl"), folder().join(name)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinglet"));
    let command = command.args(["embed", "--bench", "a", "-m"]).arg(name);
    check(&command.current_dir(folder()).output().unwrap(), 0, &[]);
}

#[test]
fn an_empty_prompt_is_the_first_token() {
    let output = kinglet(&["run", "-m", "m.kgl", "-p", "", "-n", "1"], b"", None);
    check(&output, 0, &["prompt 1 tokens"]);
    ends(
        "run -m m.kgl -f empty.txt -n 1",
        b"",
        0,
        &["prompt 1 tokens"],
    );
}

#[test]
fn contexts_that_cannot_be_are_refused() {
    run_refused("-c 0", &["--ctx 0", "expected 1 to 128"]);
    run_refused(
        "-c 18446744073709551615",
        &["context of 18446744073709551615", "128"],
    );
    run_refused(
        "-c 1000000000000000",
        &["context of 1000000000000000", "GB", "-c"],
    );
    unusable("run -m m.kgl -p a -c 18446744073709551616", &["--ctx"]);
    unusable("run -m m.kgl -p a -c=-1", &["--ctx"]);
    unusable("run -m m.kgl -p a -c many", &["--ctx", "many"]);
    unusable("run -m m.kgl -p a --kv q2", &["--kv", "q2"]);
    refused("run -m m.kgl -p abcdefgh -c 4", &["8 more tokens", "-c"]);
    refused("info -m m.kgl -c 0", &["--ctx 0"]);
    refused("info -m m.kgl -c 18446744073709551615", &["context of"]);
    refused(
        "bench -m m.kgl -r 1 -n 18446744073709551615 -p 0",
        &["context of"],
    );
    refused(
        "bench -m m.kgl -r 1 -p 18446744073709551615 -d 7",
        &["context of"],
    );
    refused(
        "bench -m m.kgl -r 1 -p 1 -d 1000000000000000",
        &["context of"],
    );
    refused(
        "eval -m m.kgl --text short.txt -c 3",
        &["--ctx 3", "4 or more"],
    );
    refused(
        "eval -m m.kgl --text short.txt -c 18446744073709551615",
        &["11 tokens", "--ctx"],
    );
}

#[test]
fn numbers_that_make_no_sense_are_refused_by_flag() {
    for temp in ["NaN", "inf", "-inf", "-0.1"] {
        run_refused(&format!("--temp={temp}"), &["--temp", temp, "0 or more"]);
    }
    for part in ["NaN", "1.5", "-0.5", "inf"] {
        run_refused(&format!("--top-p={part}"), &["--top-p", part, "0 to 1"]);
        run_refused(&format!("--min-p={part}"), &["--min-p", part, "0 to 1"]);
    }
    for penalty in ["NaN", "0", "-1", "inf"] {
        let names = ["--repeat-penalty", penalty, "more than 0"];
        run_refused(&format!("--repeat-penalty={penalty}"), &names);
    }
    run_refused("-n -2", &["--predict -2", "-1 or more"]);
    run_refused("-t 0", &["--threads 0", "1 to 1024"]);
    run_refused("-t 18446744073709551615", &["--threads", "1 to 1024"]);
    unusable("run -m m.kgl -p a -t -1", &[]);
    unusable("run -m m.kgl -p a -n 9223372036854775808", &["--predict"]);
    unusable("run -m m.kgl -p a --top-k=-1", &["--top-k"]);
    unusable("run -m m.kgl -p a --seed x", &["--seed"]);
    refused("chat -m m.kgl -n -2", &["--predict -2"]);
    refused("bench -m m.kgl -r 0", &["--repeat 0"]);
    refused("bench -m m.kgl -p 0 -n 0", &["-p or -n"]);
    refused("bench -m m.kgl -t 0", &["--threads 0"]);
    refused("eval -m m.kgl --text short.txt --chunks 0", &["--chunks 0"]);
    let output = kinglet(&["run", "-m", "m.kgl", "-p", "a"], b"", Some("mmx"));
    check(&output, 1, &["mmx", "avx2"]);
}

#[test]
fn flags_that_are_missing_or_exclude_each_other_are_named() {
    unusable("run -p a", &["--model"]);
    unusable("run -m m.kgl", &["--prompt"]);
    unusable("run -m m.kgl -p a -f short.txt", &["--prompt", "--file"]);
    unusable("run -m m.kgl -p a --surprise", &["--surprise"]);
    unusable("sing", &["sing"]);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    for command in [
        "run -p a",
        "chat",
        "info",
        "verify",
        "bench",
        "eval --text short.txt",
    ] {
        refused(
            &format!("{command} -m none.kgl"),
            &["none.kgl", "No such file"],
        );
        refused(
            &format!("{command} -m empty.kgl"),
            &["empty.kgl", "too short"],
        );
        refused(&format!("{command} -m ."), &["it is a folder"]);
        refused(
            &format!("{command} -m short.txt"),
            &["short.txt", "not a .kgl file"],
        );
        refused(
            &format!("{command} -m gguf.kgl"),
            &["gguf.kgl", "kinglet-convert"],
        );
    }
    refused("run -m m.kgl -f none.txt", &["none.txt", "No such file"]);
    refused("run -m m.kgl -f latin1.txt", &["latin1.txt", "UTF-8"]);
    ends(
        "run -m m.kgl -p -",
        b"caf\xe9",
        1,
        &["standard input", "utf-8"],
    );
    ends(
        "chat -m m.kgl",
        b"caf\xe9\n",
        1,
        &["standard input", "UTF-8"],
    );
    refused("eval -m m.kgl --text none.txt", &["none.txt"]);
    refused("eval -m m.kgl --text latin1.txt", &["latin1.txt", "UTF-8"]);
    refused(
        "eval -m m.kgl --text empty.txt",
        &["0 tokens", "longer text"],
    );
    refused(
        "eval -m m.kgl --text short.txt --reference none.kgl",
        &["none.kgl"],
    );
}

#[test]
fn chats_that_cannot_go_on_are_refused() {
    ends("chat -m m.kgl", b"/sing\n", 1, &["/sing", "/help"]);
    ends("chat -m m.kgl", b"/load\n", 1, &["/load FILE"]);
    ends("chat -m m.kgl", b"/load none.json\n", 1, &["none.json"]);
    ends(
        "chat -m m.kgl",
        b"/load short.txt\n",
        1,
        &["short.txt", "saved chat"],
    );
    ends(
        "chat -m m.kgl -c 4",
        b"abcdefgh\n",
        1,
        &["9 more tokens", "-c"],
    );
    for command in ["chat -m", "run --chat -p a -m"] {
        let refuses = |model: &str, names: &[&str]| {
            ends(&format!("{command} {model}"), b"a\n", 1, names);
        };
        refuses("broken.kgl", &["chat template", "syntax error"]);
        refuses("refuses.kgl", &["chat template", "no users here"]);
    }
    ends("chat -m nothing.kgl", b"a\n", 1, &["nothing to continue"]);
}

#[test]
fn texts_become_lines_of_json() {
    let run = |arguments: &str, input: &[u8]| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let output = kinglet(&arguments, input, None);
        check(&output, 0, &[]);
        String::from_utf8(output.stdout).unwrap()
    };
    let zeros = "[0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0]";
    let lines = run("embed -m encoder.kgl", b"a wren\na finch\n");
    let line = |text: &str| format!("{{\"text\":\"{text}\",\"embedding\":{zeros}}}\n");
    assert_eq!(lines, line("a wren") + &line("a finch"));
    assert_eq!(
        run("embed -m encoder.kgl --file short.txt", b""),
        line("a few words")
    );
    let bare = run("embed -m encoder.kgl --no-text --pooling none ab", b"");
    assert_eq!(bare, format!("{{\"embedding\":[{zeros},{zeros}]}}\n"));
    run(
        "embed -m encoder.kgl --truncate --normalize=false abcdefghijklmnopqrstuvwxyz",
        b"",
    );
    let bench = run("embed -m encoder.kgl --bench --batch 1 -r 2 ab cd", b"");
    for part in ["\"texts\": 2", "\"tokens\": 4", "\"texts_per_second\""] {
        assert!(bench.contains(part), "no {part} in {bench}");
    }
    run("info -m encoder.kgl", b"");

    let scores = r#""label":"no","scores":{"no":0.5,"yes":0.5}}"#;
    let pair = |first: &str, second: &str| {
        format!("{{\"text\":\"{first}\",\"pair\":\"{second}\",{scores}\n")
    };
    assert_eq!(
        run("classify -m classes.kgl --pair", b"a b\tc\nd\te f\n"),
        pair("a b", "c") + &pair("d", "e f")
    );
    assert_eq!(
        run("classify -m classes.kgl --pair a b c d", b""),
        pair("a", "b") + &pair("c", "d")
    );
    assert_eq!(
        run("classify -m classes.kgl --pair --no-text a b", b""),
        format!("{{{scores}\n")
    );
    assert_eq!(
        run("classify -m classes.kgl ab", b""),
        format!("{{\"text\":\"ab\",{scores}\n")
    );
    run(
        "classify -m classes.kgl --pair --truncate abcdefghijklmnopqrst uvwxyz",
        b"",
    );
}

#[test]
fn texts_that_cannot_be_embedded_are_refused() {
    refused("embed -m encoder.kgl", &["there is no text", "--file"]);
    refused(
        "embed -m encoder.kgl --file empty.txt",
        &["there is no text"],
    );
    refused("embed -m encoder.kgl --file none.txt", &["none.txt"]);
    refused(
        "embed -m encoder.kgl --file latin1.txt",
        &["latin1.txt", "UTF-8"],
    );
    ends("embed -m encoder.kgl", b"a\n\nb\n", 1, &["text 2 is empty"]);
    ends(
        "embed -m encoder.kgl",
        b"caf\xe9",
        1,
        &["standard input", "utf-8"],
    );
    refused(
        "embed -m encoder.kgl abc abcdefghijklmnopqrstuvwxyz",
        &["text 2 has 26 tokens", "takes 16", "--truncate"],
    );
    refused("embed -m encoder.kgl --bench -r 0 x", &["--repeat 0"]);
    refused("embed -m encoder.kgl --bench --batch 0 x", &["--batch 0"]);
    unusable("embed -m encoder.kgl --batch 2 x", &["--bench"]);
    unusable("embed -m encoder.kgl --pooling max x", &["max", "mean"]);
    unusable("embed -m encoder.kgl --file short.txt x", &["--file"]);
    refused(
        "classify -m encoder.kgl x",
        &["encoder.kgl", "no classification head"],
    );
}

#[test]
fn pairs_that_are_none_are_refused() {
    refused(
        "classify -m classes.kgl --pair a b c",
        &["--pair: 3 texts", "two for each pair"],
    );
    let lines = |input: &[u8], names: &[&str]| {
        ends("classify -m classes.kgl --pair", input, 1, names);
    };
    lines(b"a\tb\nc d\n", &["--pair: line 2 has 0 tabs", "one tab"]);
    lines(b"a\tb\tc\n", &["--pair: line 1 has 2 tabs"]);
    lines(b"a\tb\n \tc\n", &["the first text of pair 2 is empty"]);
    lines(b"a\t\n", &["the second text of pair 1 is empty"]);
    lines(b"", &["there is no text"]);
    lines(
        b"abcdefghij\tklmnopqrst\n",
        &["text 1 has 20 tokens", "takes 16", "--truncate"],
    );
    unusable("embed -m encoder.kgl --pair a b", &["--pair"]);
}

#[test]
fn encoders_and_decoders_are_told_apart() {
    for command in ["embed", "classify"] {
        let names = ["m.kgl", "a decoder (llama)", "kinglet run"];
        refused(&format!("{command} -m m.kgl x"), &names);
    }
    let names = ["encoder.kgl", "an encoder (bert)", "kinglet embed"];
    refused("run -m encoder.kgl -p x", &names);
    refused("chat -m encoder.kgl", &names);
    refused("eval -m encoder.kgl --text short.txt", &names);
    refused("bench -m encoder.kgl", &names);
}
