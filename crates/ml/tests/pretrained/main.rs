//! A BERT that Hugging Face's transformers trained and saved (`make.py` beside this file) is the same function here, in
//! whichever of the usual ways its files are written, and what does not fit is refused with what to do.
#![expect(clippy::unwrap_used, reason = "a test panics where something is not as it should be")]

mod bench;
mod refusals;

use bench::*;
use orchestrate_ml::data::Prepared;
use orchestrate_ml::pretrained::{Classifier, Pretrained, PretrainedSettings, files_of};
use orchestrate_ml::steps::*;
use orchestrate_ml::training::Training;
use safetensors::Dtype;

#[test]
fn taken_as_it_is_it_gives_the_logits_of_transformers_whatever_the_order_of_the_classes() {
    let bench = Bench::new();
    for (role, file) in [("vocab", "vocab.txt"), ("tokenizer", "tokenizer.json")] {
        let started = bench
            .start_on((role, &saved().join(file)), kept(), Training::NONE)
            .unwrap();
        // The data's classes are in the order of the alphabet, the model's are not.
        assert!(started.distance(&CLASSES) < 2e-6, "{}", started.distance(&CLASSES));
        assert!(started.distance(&["negative", "positive", "neither"]) > 0.1);
    }
    let data = Prepared::read(&bench.data(("tokenizer", &saved().join("tokenizer.json")))).unwrap();
    for (row, expected) in expected_of("bert").iter().enumerate() {
        assert_eq!(
            data.test.tokens(row),
            Some(expected.ids.as_slice()),
            "{}",
            expected.text
        );
    }
}

#[test]
fn a_distilbert_is_a_bert_without_segments_whose_pooler_ends_in_a_rectifier() {
    let bench = Bench::of("distilbert");
    let started = bench.start(kept(), Training::NONE).unwrap();
    assert!(started.distance(&CLASSES) < 2e-6, "{}", started.distance(&CLASSES));
    assert_eq!(
        started.tensors["bert.embeddings.token_type_embeddings.weight"],
        [0.0; 16]
    );

    // What was written says all that, and so is the same model when it is started from again.
    let again = Bench::of("distilbert");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(started.folder.join(name), again.model().join(name)).unwrap();
    }
    let again = again.start(kept(), Training::NONE).unwrap();
    assert_eq!((&again.logits, &again.tensors), (&started.logits, &started.tensors));

    // A student that is made of all of its layers is the same model, too, where nothing is learnt.
    let student = bench.unmoved_student(&started, Initialization::Teacher);
    assert_eq!(student.logits, started.logits);

    // As saved from pretraining: with its heads, and no name in front of the encoder.
    bench.weights(|tensors| {
        let bare = std::mem::take(tensors).into_iter();
        let bare = bare.map(|(name, tensor)| (name.trim_start_matches("distilbert.").to_owned(), tensor));
        *tensors = bare.filter(|(name, _)| !name.contains("classifier")).collect();
        let head = tensors["embeddings.LayerNorm.bias"].clone();
        tensors.insert("vocab_layer_norm.bias".into(), head);
    });
    let files = files_of(&bench.model()).unwrap();
    assert_eq!(Pretrained::open(&files).unwrap().lacks(&kept()), Some("classifier"));
    bench.start(kept(), TRAINING).unwrap();
}

#[test]
fn words_beyond_the_vocabulary_are_left_out() {
    let bench = Bench::new();
    let started = bench.start(kept(), Training::NONE).unwrap();
    let words = &started.tensors["bert.embeddings.word_embeddings.weight"];
    let vocabulary = std::fs::read_to_string(saved().join("vocab.txt"))
        .unwrap()
        .lines()
        .count();
    assert_eq!(words.len(), vocabulary * 16);
    bench.weights(|tensors| assert!(tensors["bert.embeddings.word_embeddings.weight"].shape[0] > vocabulary));
}

#[test]
fn names_of_other_programs_and_narrower_floats_are_read() {
    let exact = Bench::new().start(kept(), Training::NONE).unwrap();
    let bench = Bench::new();
    bench.weights(|tensors| {
        let renamed = std::mem::take(tensors).into_iter().map(|(name, tensor)| {
            let name = name
                .replace("LayerNorm.weight", "LayerNorm.gamma")
                .replace("LayerNorm.bias", "LayerNorm.beta")
                .trim_start_matches("bert.")
                .to_owned();
            (name, tensor)
        });
        *tensors = renamed.collect();
        let positions = Stored {
            dtype: Dtype::I64,
            shape: vec![1, 20],
            bytes: vec![0; 160],
        };
        tensors.insert("bert.embeddings.position_ids".into(), positions);
        let head = tensors["classifier.bias"].clone();
        tensors.insert("cls.predictions.bias".into(), head);
    });
    let renamed = bench.start(kept(), Training::NONE).unwrap();
    assert_eq!(renamed.tensors, exact.tensors);

    // 0.5 and -2 in the other floats.
    bench.weights(|tensors| {
        for (name, dtype, bytes) in [
            (
                "classifier.bias",
                Dtype::F16,
                [0x3800_u16, 0xC000, 0x3800]
                    .map(u16::to_le_bytes)
                    .as_flattened()
                    .to_vec(),
            ),
            (
                "pooler.dense.bias",
                Dtype::F64,
                [0.5_f64, -2.0]
                    .repeat(8)
                    .into_iter()
                    .flat_map(f64::to_le_bytes)
                    .collect(),
            ),
        ] {
            let tensor = tensors.get_mut(name).unwrap();
            (tensor.dtype, tensor.bytes) = (dtype, bytes);
        }
    });
    let other = bench.start(kept(), Training::NONE).unwrap();
    let mut bias = other.tensors["classifier.bias"].clone();
    bias.sort_by(f32::total_cmp);
    assert_eq!(bias, [-2.0, 0.5, 0.5]);
    assert_eq!(other.tensors["bert.pooler.dense.bias"], [0.5, -2.0].repeat(8));

    // Of f32's bits bf16 has the upper half; what is cut off is at most the 128th part.
    bench.weights(|tensors| {
        for tensor in tensors.values_mut().filter(|tensor| tensor.dtype == Dtype::F32) {
            tensor.dtype = Dtype::BF16;
            tensor.bytes = tensor.bytes.chunks(4).flat_map(|b| [b[2], b[3]]).collect();
        }
    });
    let halved = bench.start(kept(), Training::NONE).unwrap();
    let untouched = |name: &String| name != "classifier.bias" && name != "bert.pooler.dense.bias";
    for (name, values) in exact.tensors.iter().filter(|(name, _)| untouched(name)) {
        for (half, whole) in halved.tensors[name].iter().zip(values) {
            assert_eq!(half.to_bits(), whole.to_bits() >> 16 << 16, "{name}");
        }
    }
}

#[test]
fn outputs_without_names_are_the_numbers_of_the_datas_classes_or_what_the_recipe_calls_them() {
    let bench = Bench::new();
    bench.config(|config| drop(config.remove("id2label")));
    assert!(bench.refusal().contains("classifier = \"new\""), "{}", bench.refusal());
    let settings = PretrainedSettings {
        classes: Some(CLASSES.map(str::to_owned).to_vec()),
        ..kept()
    };
    let started = bench.start(settings.clone(), Training::NONE).unwrap();
    assert!(started.distance(&CLASSES) < 2e-6);
    bench.label(&["2", "0", "1"]);
    let started = bench.start(kept(), Training::NONE).unwrap();
    assert!(started.distance(&["0", "1", "2"]) < 2e-6);
    let refusal = bench.start(settings, Training::NONE).map(|_| ()).unwrap_err();
    assert!(
        refusal.contains("\"positive\"") && refusal.contains("\"2\""),
        "{refusal}"
    );
    // Two classes of three, and a number that no output has.
    bench.label(&["0", "1"]);
    assert!(bench.refusal().contains("must have rows"), "{}", bench.refusal());
    bench.label(&["0", "1", "3"]);
    assert!(bench.refusal().contains("`classes = [...]`"), "{}", bench.refusal());
}

#[test]
fn what_the_outputs_stand_for_is_resolved_when_the_folder_is_opened() {
    let open = |bench: &Bench| Pretrained::open(&files_of(&bench.model()).unwrap()).unwrap();
    let named = |classes: &[&str]| PretrainedSettings {
        classes: Some(classes.iter().map(|class| (*class).to_owned()).collect()),
        ..kept()
    };
    let bench = Bench::new();
    // To say what the file says is to say nothing.
    assert_eq!(open(&bench).resolve(kept()).unwrap(), named(&CLASSES));
    assert_eq!(open(&bench).resolve(named(&CLASSES)).unwrap(), named(&CLASSES));
    for classes in [&["a", "b"][..], &["a", "b", "c", "d"], &["a", "b", "b"]] {
        let refusal = open(&bench).resolve(named(classes)).unwrap_err().to_string();
        assert!(refusal.contains("has 3 outputs"), "{refusal}");
    }
    bench.config(|c| drop(c.insert("id2label".into(), serde_json::json!({"0": "a", "1": "b"}))));
    assert!(
        open(&bench)
            .resolve(kept())
            .unwrap_err()
            .to_string()
            .contains("id2label")
    );
    assert_eq!(open(&bench).resolve(named(&CLASSES)).unwrap(), named(&CLASSES));
    bench.config(|c| drop(c.insert("id2label".into(), serde_json::json!({"0": 2, "1": 0, "2": 1}))));
    assert_eq!(open(&bench).resolve(kept()).unwrap(), named(&["2", "0", "1"]));
    bench.config(|c| drop(c.insert("id2label".into(), serde_json::json!({"1": "a", "2": "b", "3": "c"}))));
    assert!(
        open(&bench)
            .resolve(kept())
            .unwrap_err()
            .to_string()
            .contains("from 0 on")
    );
    assert_eq!(open(&bench).resolve(named(&CLASSES)).unwrap(), named(&CLASSES));
    bench.config(|c| drop(c.insert("problem_type".into(), "multi_label_classification".into())));
    assert!(
        open(&bench)
            .resolve(kept())
            .unwrap_err()
            .to_string()
            .contains("several classes at once")
    );
    let new = PretrainedSettings {
        classifier: Classifier::New,
        classes: None,
    };
    assert_eq!(open(&bench).resolve(new.clone()).unwrap(), new);
    bench.weights(|tensors| tensors.retain(|name, _| !name.starts_with("classifier")));
    assert_eq!(open(&bench).resolve(kept()).unwrap(), new);
    assert!(
        open(&bench)
            .resolve(named(&CLASSES))
            .unwrap_err()
            .to_string()
            .contains("no classifier")
    );
}

#[test]
fn a_student_may_start_from_weights_of_its_own() {
    let bench = Bench::of("distilbert");
    let other = Bench::new();
    let teacher = other.start(kept(), Training::NONE).unwrap();
    let student = bench.unmoved_student(&teacher, Initialization::Random);
    assert!(student.distance(&CLASSES) < 2e-6, "{}", student.distance(&CLASSES));
}

#[test]
fn an_encoder_by_itself_gets_a_classifier_from_the_seed_and_is_trained() {
    let bench = Bench::new();
    let whole = bench.start(kept(), Training::NONE).unwrap();
    let new = PretrainedSettings {
        classifier: Classifier::New,
        classes: None,
    };
    let replaced = bench.start(new.clone(), Training::NONE).unwrap();
    assert_ne!(
        replaced.tensors["classifier.weight"],
        whole.tensors["classifier.weight"]
    );
    assert_eq!(
        replaced.tensors["bert.pooler.dense.weight"],
        whole.tensors["bert.pooler.dense.weight"]
    );
    bench.weights(|tensors| tensors.retain(|name, _| !name.starts_with("classifier")));
    let bare = bench.start(kept(), Training::NONE).unwrap();
    assert_eq!(bare.tensors, replaced.tensors);
    let files = files_of(&bench.model()).unwrap();
    assert_eq!(Pretrained::open(&files).unwrap().lacks(&kept()), Some("classifier"));

    bench.weights(|tensors| tensors.retain(|name, _| !name.contains("pooler")));
    bench.label(&["good", "bad"]);
    let trained = bench.start(kept(), TRAINING).unwrap();
    let first = "bert.encoder.layer.0.attention.self.query.weight";
    let moved = trained.tensors[first].iter().zip(&whole.tensors[first]);
    let moved = moved.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Four steps of AdamW at 1e-2 move a weight by about as much each: it starts from what was read.
    assert!(moved > 1e-3 && moved < 0.1, "{moved}");
    assert_eq!(trained.logits[0].keys().collect::<Vec<_>>(), ["bad", "good"]);
}
