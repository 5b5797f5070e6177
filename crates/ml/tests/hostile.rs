//! Model folders that nobody wrote in good faith are refused as damaged: soon, within little memory, without a panic.

#![expect(clippy::unwrap_used, reason = "a test panics where something is not as it should be")]

use candle_core::Device;
use orchestrate_ml::Error;
use orchestrate_ml::artifact::{ModelArtifact, files_of_folder};
use orchestrate_ml::parameters::{Initial, Parameters, Use};
use std::path::Path;

const CONFIG: &str = r#"{
  "model_type": "mlp", "inputs": 4, "hidden_sizes": [2], "id2label": {"0": "a", "1": "b"},
  "input": {"kind": "image", "width": 2, "height": 2, "channels": 1, "mean": 0.5, "std": 0.5}
}"#;

/// A safetensors file with this header, whose length is said as `length`, and `data` behind it.
fn safetensors(length: u64, header: &[u8], data: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes(), header, data].concat()
}

fn of_header(header: &str, data: &[u8]) -> Vec<u8> {
    safetensors(header.len() as u64, header.as_bytes(), data)
}

fn read(bytes: &[u8]) -> Result<Parameters, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    Parameters::read(&path, &Device::Cpu, Use::Infer)
}

#[test]
fn weights_that_lie_about_themselves_are_damaged() {
    let tensor =
        |shape: &str, from: u64, to: u64| format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#);
    let one = |tensor: &str| format!(r#"{{"a":{tensor}}}"#);
    let two = |a: &str, b: &str| format!(r#"{{"a":{a},"b":{b}}}"#);
    let good = one(&tensor("[2]", 0, 8));
    assert!(read(&of_header(&good, &[0; 8])).is_ok());
    let largest = u64::MAX;
    let cases = [
        ("no header", vec![1, 2, 3]),
        (
            "a header longer than memory",
            safetensors(largest, good.as_bytes(), &[0; 8]),
        ),
        (
            "a header longer than the file",
            safetensors(1 << 20, good.as_bytes(), &[0; 8]),
        ),
        ("a header that ends early", safetensors(10, good.as_bytes(), &[0; 8])),
        ("not UTF-8", safetensors(4, b"{\"\xff\"", &[])),
        ("not JSON", of_header("[[[[", &[])),
        ("deep JSON", of_header(&"[".repeat(200_000), &[])),
        (
            "overlapping",
            of_header(&two(&tensor("[2]", 0, 8), &tensor("[2]", 4, 12)), &[0; 12]),
        ),
        (
            "a hole",
            of_header(&two(&tensor("[1]", 0, 4), &tensor("[1]", 8, 12)), &[0; 12]),
        ),
        ("beyond the end", of_header(&one(&tensor("[4]", 0, 16)), &[0; 8])),
        ("less than the file", of_header(&good, &[0; 64])),
        ("backwards", of_header(&one(&tensor("[2]", 8, 0)), &[0; 8])),
        (
            "far away",
            of_header(&one(&tensor("[2]", largest - 8, largest)), &[0; 8]),
        ),
        (
            "a shape beyond 64 bits",
            of_header(&one(&tensor("[4294967296,4294967296,4]", 0, 8)), &[0; 8]),
        ),
        (
            "a shape of the largest size",
            of_header(&one(&tensor("[18446744073709551615]", 0, 8)), &[0; 8]),
        ),
        ("a negative shape", of_header(&one(&tensor("[-2]", 0, 8)), &[0; 8])),
        (
            "a shape that is not the bytes'",
            of_header(&one(&tensor("[3]", 0, 8)), &[0; 8]),
        ),
        ("a type that is not", of_header(&good.replace("F32", "F31"), &[0; 8])),
        (
            "a type that is not ours",
            of_header(&good.replace("F32", "F64"), &[0; 8]).to_vec(),
        ),
    ];
    for (what, bytes) in cases {
        match read(&bytes) {
            Err(Error::Corrupt { path, .. }) => assert!(path.ends_with("model.safetensors"), "{what}"),
            Err(other) => panic!("{what}: {other}"),
            Ok(_) => panic!("{what} was read"),
        }
    }
}

/// A weight in packed indices with all that belongs to it, and what may be wrong with that.
#[test]
fn codebooks_that_do_not_fit_are_damaged() {
    let file = |levels: &[u8], shape: &str, indices: usize, names: [&str; 3]| {
        let (a, b) = (levels.len(), levels.len() + indices);
        let [codebook, weight, scale] = names;
        let header = format!(
            r#"{{"{codebook}":{{"dtype":"I8","shape":[{a}],"data_offsets":[0,{a}]}},
            "{weight}":{{"dtype":"U8","shape":{shape},"data_offsets":[{a},{b}]}},
            "{scale}":{{"dtype":"F32","shape":[2],"data_offsets":[{b},{}]}}}}"#,
            b + 8
        );
        let data = [levels, &vec![0; indices], &1f32.to_le_bytes(), &1f32.to_le_bytes()].concat();
        of_header(&header, &data)
    };
    let (levels, names) = ([0x81, 0, 1, 2], ["a_codebook", "a", "a_scale"]);
    let good = file(&levels, "[2,1]", 2, names);
    let load = |bytes: &[u8], shape: &[usize]| read(bytes)?.weight("a", shape, Initial::Zeros).map(drop);
    assert!(load(&good, &[2, 3]).is_ok() && load(&good, &[2, 4]).is_ok());
    for shape in [&[2, 5][..], &[2, 0], &[3, 3], &[2, 2, 3], &[]] {
        assert!(
            matches!(load(&good, shape), Err(Error::WrongTensor { .. })),
            "{shape:?}"
        );
    }
    assert!(read(&good).unwrap().finish().is_err(), "nobody asked for the weight");
    let mut idle = read(&good).unwrap();
    idle.weight("a", &[2, 3], Initial::Zeros).unwrap();
    assert!(idle.finish().is_err(), "nothing is quantized");
    for (what, bytes) in [
        ("levels that descend", file(&[0, 1, 2, 0x81], "[2,1]", 2, names)),
        ("levels without 0", file(&[1, 2, 3, 4], "[2,1]", 2, names)),
        ("a level of -128", file(&[0x80, 0, 1, 2], "[2,1]", 2, names)),
        ("three levels", file(&[0, 1, 2], "[2,1]", 2, names)),
        ("no level", file(&[], "[2,1]", 2, names)),
        ("scales of other channels", file(&levels, "[3,1]", 3, names)),
        ("no indices", file(&levels, "[2,0]", 0, names)),
        ("indices in a row", file(&levels, "[2]", 2, names)),
        (
            "the codebook of another",
            file(&levels, "[2,1]", 2, ["b_codebook", "a", "a_scale"]),
        ),
        (
            "the scales of another",
            file(&levels, "[2,1]", 2, ["a_codebook", "a", "b_scale"]),
        ),
    ] {
        match read(&bytes) {
            Err(Error::Corrupt { .. }) => {}
            Err(other) => panic!("{what}: {other}"),
            Ok(_) => panic!("{what} was read"),
        }
    }
}

#[test]
fn of_a_name_that_comes_twice_no_bytes_are_left_over() {
    let tensor = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    let other = r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#;
    assert!(read(&of_header(&format!(r#"{{"a":{tensor},"a":{other}}}"#), &[0; 8])).is_err());
    assert!(read(&of_header(&format!(r#"{{"a":{tensor},"b":{tensor}}}"#), &[0; 4])).is_err());
}

fn open(folder: &Path) -> Result<ModelArtifact, Error> {
    ModelArtifact::open(&files_of_folder(folder)?)
}

#[test]
fn a_configuration_that_asks_for_everything_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), of_header("{}", &[])).unwrap();
    let write = |config: &str| std::fs::write(folder.path().join("config.json"), config).unwrap();
    write(CONFIG);
    let model = open(folder.path()).unwrap();
    assert!(matches!(
        model.load(&Device::Cpu, Use::Infer),
        Err(Error::MissingTensor { .. })
    ));
    let huge = "18446744073709551615";
    for (from, to) in [
        ("[2]", format!("[{huge}]")),
        ("\"inputs\": 4", format!("\"inputs\": {huge}")),
        ("[2]", "[0]".into()),
    ] {
        write(&CONFIG.replace(from, &to));
        assert!(open(folder.path()).is_err(), "{to}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in [
        "",
        "null",
        "[]",
        &CONFIG.replace("[2]", &deep),
        &CONFIG.replace("\"0\"", "\"7\""),
    ] {
        write(text);
        assert!(
            matches!(open(folder.path()), Err(Error::Corrupt { .. })),
            "{}",
            &text[..text.len().min(60)]
        );
    }
}

const IMAGE: &str = r#"{"kind": "image", "width": 16, "height": 18, "channels": 2, "mean": 0.5, "std": 0.5}"#;
const TEXT: &str = r#"{"kind": "text", "max_length": 8, "vocab_size": 20}"#;

/// A configuration of the architecture with these keys and this input.
fn with_input(keys: &str, input: &str) -> String {
    format!(r#"{{{keys}, "id2label": {{"0": "a", "1": "b"}}, "input": {input}}}"#)
}

const MLP: &str = r#""model_type": "mlp", "inputs": 576, "hidden_sizes": [2]"#;
const LENET5: &str = r#""model_type": "lenet5", "image": [2, 18, 16], "conv_channels": [2, 2], "hidden_size": 2"#;
const RESNET8: &str =
    r#""model_type": "resnet8", "image": [2, 18, 16], "stage_channels": [2, 2, 2], "inner_channels": [2, 2, 2]"#;
const BERT: &str = r#""model_type": "bert", "vocab_size": 20, "hidden_size": 4, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 3, "max_position_embeddings": 16, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0, "layer_heads": [2], "layer_intermediate": [3]"#;

#[test]
fn an_input_that_the_model_cannot_read_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), of_header("{}", &[])).unwrap();
    let open = |config: &str| {
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        open(folder.path())
    };
    let huge = "18446744073709551615";
    for keys in [MLP, LENET5, RESNET8] {
        open(&with_input(keys, IMAGE)).unwrap();
        let zero_width = IMAGE.replace("16", "0");
        for input in [
            TEXT,
            &zero_width,
            &IMAGE.replace("18", "0"),
            &IMAGE.replace(": 2", ": 0"),
            &IMAGE.replace("16", huge),
            &IMAGE.replace("18", "4097"),
            &IMAGE.replace("16", "17"),
            &IMAGE.replace(r#""std": 0.5"#, r#""std": 0.0"#),
            &IMAGE.replace(r#""std": 0.5"#, r#""std": -0.5"#),
            &IMAGE.replace(r#""mean": 0.5"#, r#""mean": 1e300"#),
        ] {
            let opened = open(&with_input(keys, input));
            assert!(matches!(opened, Err(Error::Corrupt { .. })), "{keys} {input}");
        }
    }
    let swapped = IMAGE.replace("16", "9").replace("18", "32");
    open(&with_input(MLP, &swapped)).unwrap();
    for keys in [LENET5, RESNET8] {
        assert!(open(&with_input(keys, &swapped)).is_err(), "{keys}");
        let every_side = keys.replace("18", huge).replace("16", huge);
        let input = IMAGE.replace("18", huge).replace("16", huge);
        assert!(open(&with_input(&every_side, &input)).is_err(), "{every_side}");
        let large = keys.replace("18", "4096").replace("16", "4096");
        let input = IMAGE.replace("18", "4096").replace("16", "4096");
        assert!(
            open(&with_input(&large, &input)).is_err(),
            "two channels are more than 2^24 pixels"
        );
    }
    open(&with_input(BERT, TEXT)).unwrap();
    for input in [
        IMAGE,
        &TEXT.replace('8', "0"),
        &TEXT.replace('8', "17"),
        &TEXT.replace('8', huge),
        &TEXT.replace("20", "21"),
        &TEXT.replace("20", "0"),
    ] {
        let opened = open(&with_input(BERT, input));
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{input}");
    }
    let longer = BERT.replace("16", "16777216");
    assert!(open(&with_input(&longer, &TEXT.replace('8', "8193"))).is_err());
}

#[test]
fn an_activation_that_there_is_not_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), of_header("{}", &[])).unwrap();
    for other in ["relu", "gelu_new", ""] {
        let keys = BERT.replace("\"gelu\"", &format!("{other:?}"));
        std::fs::write(folder.path().join("config.json"), with_input(&keys, TEXT)).unwrap();
        match open(folder.path()) {
            Err(Error::Unsuited(message)) => assert!(message.contains(&format!("hidden_act = {other:?}")), "{message}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn links_are_followed_to_files_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("model")).unwrap();
    std::fs::write(path("real.json"), CONFIG).unwrap();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(path(to), path("model").join(name)).unwrap();
    link("real.json", "config.json");
    link("nowhere", "model.safetensors");
    link("model/loop", "loop");
    link("model", "folder");
    let files = files_of_folder(&path("model")).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["config.json"]);
    assert!(matches!(open(&path("model")), Err(Error::MissingFile { .. })));
}
