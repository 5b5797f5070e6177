//! What does not fit is refused with what to do.

use crate::bench::*;
use orchestrate_ml::models::ModelSpec;
use orchestrate_ml::pretrained::{Pretrained, files_of};
use orchestrate_ml::steps::*;
use orchestrate_ml::training::Training;
use safetensors::Dtype;

#[test]
fn a_configuration_that_changes_under_a_build_is_refused() {
    let bench = Bench::new();
    let files = files_of(&bench.model()).unwrap();
    let pretrained = Pretrained::open(&files).unwrap();
    let settings = TrainSettings {
        model: pretrained.spec(),
        pretrained: Some(pretrained.resolve(kept()).unwrap()),
        training: Training::NONE,
    };
    let data = bench.data(("vocab", &saved().join("vocab.txt")));
    bench.config(|c| drop(c.insert("num_attention_heads".into(), 4.into())));
    let refusal = train(&data, &files, &settings, &context(), &bench.out()).unwrap_err();
    assert!(refusal.to_string().contains("was changed"), "{refusal}");
}

#[test]
fn texts_are_cut_as_the_model_was_trained_to() {
    let cased = |bench: &Bench| {
        let out = bench.start_on(("vocab", &saved().join("vocab.txt")), kept(), Training::NONE);
        out.map(|_| ()).unwrap_err()
    };
    let bench = Bench::new();
    let path = bench.model().join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"lowercase\": true"));
    std::fs::write(&path, text.replace("\"lowercase\": true", "\"lowercase\": false")).unwrap();
    assert!(cased(&bench).contains("the normalizer is"), "{}", cased(&bench));
    std::fs::remove_file(&path).unwrap();
    bench.start(kept(), Training::NONE).unwrap();
    let settings = bench.model().join("tokenizer_config.json");
    std::fs::write(&settings, "{\"do_lower_case\": false}").unwrap();
    assert!(cased(&bench).contains("`lowercase`"), "{}", cased(&bench));
    for (odd, what) in [
        ("\"strip_accents\": false", "the normalizer is"),
        ("\"tokenize_chinese_chars\": false", "the normalizer is"),
        ("\"word_tokenizer_type\": \"mecab\"", "\"mecab\""),
    ] {
        std::fs::write(&settings, format!("{{\"do_lower_case\": true, {odd}}}")).unwrap();
        assert!(cased(&bench).contains(what), "{odd}: {}", cased(&bench));
    }
    // To say that accents go with capitals is to say nothing.
    std::fs::write(&settings, "{\"do_lower_case\": true, \"strip_accents\": true}").unwrap();
    bench.start(kept(), Training::NONE).unwrap();
    bench
        .start_on(("tokenizer", &saved().join("tokenizer.json")), kept(), Training::NONE)
        .unwrap();
}

#[test]
fn a_classifier_without_a_pooler_is_told_apart() {
    let bench = Bench::new();
    bench.weights(|tensors| tensors.retain(|name, _| !name.contains("pooler")));
    let pretrained = Pretrained::open(&files_of(&bench.model()).unwrap()).unwrap();
    assert_eq!(pretrained.lacks(&kept()), Some("pooler"));
    let whole = Pretrained::open(&files_of(&saved()).unwrap()).unwrap();
    assert_eq!(whole.lacks(&kept()), None);
    let ModelSpec::Bert { layers, heads, .. } = whole.spec() else {
        panic!("it is a bert");
    };
    assert_eq!((layers, heads), (2, 2));
}

#[test]
fn another_vocabulary_is_refused() {
    let bench = Bench::new();
    let text = std::fs::read_to_string(saved().join("vocab.txt")).unwrap();
    let other = bench.folder.path().join("vocab.txt");
    std::fs::write(&other, text.replace("film\nplot", "plot\nfilm")).unwrap();
    let refusal = |bench: &Bench| {
        let started = bench.start_on(("vocab", &other), kept(), Training::NONE);
        started.map(|_| ()).unwrap_err()
    };
    assert!(
        refusal(&bench).contains("token 7 is `film` in the model and `plot` in the data"),
        "{}",
        refusal(&bench)
    );
    std::fs::remove_file(bench.model().join("tokenizer.json")).unwrap();
    assert!(refusal(&bench).contains("token 7 is `film`"), "{}", refusal(&bench));
    // Where the folder does not say it, only the number of tokens can be compared.
    std::fs::remove_file(bench.model().join("vocab.txt")).unwrap();
    bench.start_on(("vocab", &other), kept(), Training::NONE).unwrap();
    std::fs::write(&other, format!("{text}one\ntwo\nthree\nfour\n")).unwrap();
    assert!(
        refusal(&bench).contains("32 tokens and the pretrained model 31"),
        "{}",
        refusal(&bench)
    );
}

#[test]
fn what_is_no_whole_bert_is_refused_by_what_is_wrong() {
    type Change = fn(&Bench);
    let cases: [(&str, Change); 22] = [
        ("\"roberta\"", |b| {
            b.config(|c| drop(c.insert("model_type".into(), "roberta".into())))
        }),
        ("hidden_act", |b| {
            b.config(|c| drop(c.insert("hidden_act".into(), "gelu_new".into())))
        }),
        ("position_embedding_type", |b| {
            b.config(|c| drop(c.insert("position_embedding_type".into(), "relative_key".into())));
        }),
        ("decoder", |b| {
            b.config(|c| drop(c.insert("is_decoder".into(), true.into())))
        }),
        ("pruned", |b| {
            b.config(|c| drop(c.insert("pruned_heads".into(), serde_json::json!({"0": [1]}))))
        }),
        ("4000000000000 layers", |b| {
            b.config(|c| drop(c.insert("num_hidden_layers".into(), 4_000_000_000_000_u64.into())));
        }),
        ("3 heads do not divide", |b| {
            b.config(|c| drop(c.insert("num_attention_heads".into(), 3.into())))
        }),
        ("layer_norm_eps", |b| {
            b.config(|c| drop(c.insert("layer_norm_eps".into(), 0.into())))
        }),
        ("intermediate_size", |b| {
            b.config(|c| drop(c.remove("intermediate_size")))
        }),
        ("must name as many", |b| {
            b.config(|c| drop(c.insert("id2label".into(), serde_json::json!({"0": "a", "1": "b"}))));
        }),
        ("word_embeddings", |b| {
            b.config(|c| drop(c.insert("vocab_size".into(), (1 << 24).into())))
        }),
        ("[16777216]", |b| {
            b.config(|c| {
                for key in ["vocab_size", "hidden_size", "intermediate_size"] {
                    c.insert(key.into(), (1 << 24).into());
                }
            });
        }),
        ("type_vocab_size", |b| {
            b.config(|c| drop(c.insert("type_vocab_size".into(), (1_u64 << 60).into())))
        }),
        ("\"classifier.bias\" is [3]", |b| {
            b.weights(|t| {
                let tensor = t.get_mut("classifier.weight").unwrap();
                (tensor.shape, tensor.bytes) = (vec![1 << 40, 0], vec![]);
            });
        }),
        ("bert.pooler.dense.weight", |b| {
            b.weights(|t| drop(t.remove("bert.pooler.dense.weight")))
        }),
        ("[31, 16]", |b| {
            b.config(|c| drop(c.insert("vocab_size".into(), 30.into())))
        }),
        ("bert.encoder.layer.2.", |b| {
            b.config(|c| drop(c.insert("num_hidden_layers".into(), 3.into())))
        }),
        ("no layer reads", |b| {
            b.config(|c| drop(c.insert("num_hidden_layers".into(), 1.into())))
        }),
        ("bert.encoder.layer.1.output.dense.bias", |b| {
            b.weights(|t| drop(t.remove("bert.encoder.layer.1.output.dense.bias")));
        }),
        ("only floats", |b| {
            b.weights(|t| {
                let tensor = t.get_mut("bert.pooler.dense.bias").unwrap();
                tensor.dtype = Dtype::I32;
            });
        }),
        ("no finite f32", |b| {
            b.weights(|t| {
                let tensor = t.get_mut("bert.pooler.dense.bias").unwrap();
                tensor.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
            });
        }),
        ("there twice", |b| {
            b.weights(|t| {
                let tensor = t["bert.pooler.dense.bias"].clone();
                t.insert("pooler.dense.bias".into(), tensor);
            });
        }),
    ];
    for (what, change) in cases {
        let bench = Bench::new();
        change(&bench);
        let refusal = bench.refusal();
        assert!(refusal.contains(what), "{what}: {refusal}");
    }
}

#[test]
fn files_that_are_missing_cut_or_of_another_sort_are_told() {
    let bench = Bench::new();
    let weights = bench.model().join("model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    for length in [0, 7, 8, 100, whole.len() - 1] {
        std::fs::write(&weights, &whole[..length]).unwrap();
        assert!(bench.refusal().contains("safetensors"), "{length}: {}", bench.refusal());
    }
    std::fs::write(&weights, u64::MAX.to_le_bytes()).unwrap();
    assert!(bench.refusal().contains("its header claims"), "{}", bench.refusal());
    std::fs::remove_file(&weights).unwrap();
    assert!(
        bench.refusal().contains("has no model.safetensors"),
        "{}",
        bench.refusal()
    );
    std::fs::write(bench.model().join("model.safetensors.index.json"), "{}").unwrap();
    assert!(
        bench.refusal().contains("weights in several files"),
        "{}",
        bench.refusal()
    );
    std::fs::write(bench.model().join("pytorch_model.bin"), "").unwrap();
    assert!(
        bench.refusal().contains("safe_serialization=True"),
        "{}",
        bench.refusal()
    );
    std::fs::write(&weights, whole).unwrap();
    let masks = bench.model().join("masks.safetensors");
    std::fs::write(&masks, "").unwrap();
    assert!(bench.refusal().contains("pruned"), "{}", bench.refusal());
    std::fs::remove_file(masks).unwrap();
    std::fs::remove_file(bench.model().join("config.json")).unwrap();
    assert!(bench.refusal().contains("no config.json"), "{}", bench.refusal());
}
