//! Weights of few levels: what is simulated is what is exported, in a file of the indices' size.

use super::*;
use orchestrate_ml::parameters::Weight;
use orchestrate_ml::parameters::{Initial, Parameters};
use std::collections::BTreeSet;

/// The integers of the weights of an exported model by name, as its layers get them.
fn integers(bench: &Bench, model: &str, weights: &[(&str, &[usize])]) -> Vec<Vec<i8>> {
    let path = &bench.files(model)["model.safetensors"];
    let mut parameters = Parameters::read(path, &Device::Cpu, Use::Infer).unwrap();
    let mut of = |(name, shape): &(&str, &[usize])| match parameters.weight(name, shape, Initial::Zeros).unwrap() {
        Weight::Integer(weight) => weight.values,
        Weight::Float(_) => panic!("{name} is not in integers"),
    };
    weights.iter().map(&mut of).collect()
}

#[test]
fn a_codebook_leaves_few_integers_and_a_file_of_their_indices() {
    let bench = Bench::new(r#"{"source": "builtin:digits", "train_rows": 4000, "test_rows": 500}"#);
    let settings = TrainSettings {
        pretrained: None,
        model: ModelSpec::Lenet5 {
            channels: vec![8, 15],
            hidden: 50,
        },
        training: Training {
            epochs: 4,
            batch_size: 32,
            learning_rate: 3e-3,
            ..TRAINING
        },
    };
    train(
        &bench.files("data"),
        &Files::new(),
        &settings,
        &context(),
        &bench.out("teacher"),
    )
    .unwrap();
    let teacher = bench.evaluate("teacher", None).metrics["accuracy"];
    assert!(teacher > 0.95, "{teacher}");
    let training = Training {
        learning_rate: 2e-4,
        ..TRAINING
    };
    bench.quantize("teacher", training);
    let uniform = bench.evaluate("exported", None).metrics;
    let weights: [(&str, &[usize]); 3] = [
        ("conv1.weight", &[8, 1, 5, 5]),
        ("conv2.weight", &[15, 8, 5, 5]),
        ("fc1.weight", &[50, 240]),
    ];
    let mut last = uniform["file_bytes"];
    for bits in [4, 3, 2] {
        let [simulated, exported] = ["simulated", "indices"].map(|name| format!("{name}-{bits}"));
        let scheme = WeightScheme::Codebook { bits };
        bench.quantize_to("teacher", scheme, training, [&simulated, &exported]);
        bench.evaluate(&simulated, None);
        let found = bench.evaluate(&exported, Some(&simulated)).metrics;
        assert!(found["agreement"] > 0.99, "{bits} bits: {found:?}");
        assert_eq!(found["parameters"], uniform["parameters"]);
        let (most_lost, bytes) = (if bits == 2 { 0.1 } else { 0.02 }, found["file_bytes"]);
        assert!(
            found["accuracy"] > teacher - most_lost,
            "{bits} bits: {found:?}, the teacher {teacher}"
        );
        assert!(bytes < last, "{bits} bits: {bytes} bytes after {last}");
        last = bytes;
        for (values, (name, _)) in integers(&bench, &exported, &weights).iter().zip(weights) {
            let levels: BTreeSet<i8> = values.iter().copied().collect();
            assert!(levels.len() > 2 && levels.len() <= 1 << bits, "{name}: {levels:?}");
        }
    }
    // Biases, scales and the header take the rest.
    assert!(
        last < 0.5 * uniform["file_bytes"],
        "{last} of {}",
        uniform["file_bytes"]
    );
}

/// What is pruned has a level of its own, 0, and masks hold in the exported file.
#[test]
fn pruned_weights_stay_zero_in_a_codebook() {
    let bench = Bench::new(r#"{"source": "builtin:digits", "train_rows": 400, "test_rows": 50}"#);
    let settings = TrainSettings {
        pretrained: None,
        model: ModelSpec::Mlp { hidden: vec![32] },
        training: TRAINING,
    };
    train(
        &bench.files("data"),
        &Files::new(),
        &settings,
        &context(),
        &bench.out("teacher"),
    )
    .unwrap();
    let round = PruneRound {
        granularity: Granularity::Unstructured,
        ..structured(0.0, 0.7)
    };
    prune(&bench.files("teacher"), &round, 0, &bench.out("pruned")).unwrap();
    let before = bench.evaluate("pruned", None).metrics["parameters_nonzero"];
    let scheme = WeightScheme::Codebook { bits: 2 };
    bench.quantize_to("pruned", scheme, TRAINING, ["quantized", "exported"]);
    let after = bench.evaluate("exported", None).metrics["parameters_nonzero"];
    assert!(after <= before, "{after} of {before}");
}
