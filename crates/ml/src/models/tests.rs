//! What every architecture must do: every declared group shrinks, and the shrunk model still runs.

use super::*;
use crate::prune::shrink;
use candle_core::{DType, Device};

/// One small model of each architecture, with two rows of input.
fn all() -> Vec<(Architecture, Batch)> {
    let device = Device::Cpu;
    let text = Input::Text {
        max_length: 8,
        vocab_size: 20,
    };
    let image = Input::Image {
        width: 16,
        height: 18,
        channels: 1,
        mean: 0.1,
        std: 0.3,
    };
    let bert = ModelSpec::Bert {
        layers: 2,
        hidden: 12,
        heads: 3,
        intermediate: Some(7),
        max_positions: 8,
    };
    let mlp = ModelSpec::Mlp { hidden: vec![9, 5] };
    let lenet5 = ModelSpec::Lenet5 {
        channels: vec![3, 4],
        hidden: 6,
    };
    let tokens: [&[u32]; 2] = [&[1, 2, 3, 4, 5], &[6, 7]];
    let pixels: Vec<u8> = (0..2 * 16 * 18).map(|i| (i % 251) as u8).collect();
    let images = || Batch::of_pixels(&pixels, &image, &device).unwrap();
    vec![
        (
            bert.resolve(&text).unwrap(),
            Batch::of_tokens(&tokens, 0, &device).unwrap(),
        ),
        (mlp.resolve(&image).unwrap(), images()),
        (lenet5.resolve(&image).unwrap(), images()),
    ]
}

const CLASSES: usize = 3;

fn tensors_of(architecture: &Architecture) -> BTreeMap<String, Tensor> {
    let mut parameters = Parameters::create(7, &Device::Cpu);
    architecture.build(&mut parameters, CLASSES).unwrap();
    parameters.floats()
}

fn logits(architecture: &Architecture, tensors: BTreeMap<String, Tensor>, batch: &Batch) -> Vec<Vec<f32>> {
    let mut parameters = Parameters::from_tensors(tensors, &Device::Cpu, crate::parameters::Use::Infer);
    let model = architecture.build(&mut parameters, CLASSES).unwrap();
    model.forward(batch, &Pass::inference()).unwrap().to_vec2().unwrap()
}

#[test]
fn every_group_shrinks_by_one_and_the_model_runs() {
    for (architecture, batch) in all() {
        for (index, group) in architecture.groups().iter().enumerate() {
            let mut tensors = tensors_of(&architecture);
            let before: usize = tensors.values().map(Tensor::elem_count).sum();
            let kept: Vec<usize> = (0..group.size).filter(|unit| *unit != 1).collect();
            shrink(group, &kept, &mut tensors).unwrap();
            let after: usize = tensors.values().map(Tensor::elem_count).sum();
            let smaller = architecture.with_width(index, group.size - 1);
            smaller.validate().unwrap();
            assert!(after < before, "{}", group.name);
            assert!(
                smaller.macs(5, CLASSES) < architecture.macs(5, CLASSES),
                "{}",
                group.name
            );
            let scores = logits(&smaller, tensors, &batch);
            assert!(scores.iter().flatten().all(|v| v.is_finite()), "{}", group.name);
            assert_eq!(smaller.groups()[index].size, group.size - 1);
        }
    }
}

/// The definition of a group: when all that a unit contributes is zero, removing it changes nothing.
#[test]
fn a_unit_of_zeros_can_go_without_any_change() {
    for (architecture, batch) in all() {
        for (index, group) in architecture.groups().iter().enumerate() {
            let mut tensors = tensors_of(&architecture);
            for member in &group.members {
                let tensor = tensors.get_mut(&member.parameter).unwrap();
                let along = tensor.dim(member.dim).unwrap();
                let keep = |i: usize| f32::from(!(member.block..2 * member.block).contains(&i));
                let mask = Tensor::from_iter((0..along).map(keep), &Device::Cpu).unwrap();
                let mut shape = vec![1; tensor.rank()];
                shape[member.dim] = along;
                *tensor = tensor.broadcast_mul(&mask.reshape(shape).unwrap()).unwrap();
            }
            let before = logits(&architecture, tensors.clone(), &batch);
            let kept: Vec<usize> = (0..group.size).filter(|unit| *unit != 1).collect();
            shrink(group, &kept, &mut tensors).unwrap();
            let after = logits(&architecture.with_width(index, group.size - 1), tensors, &batch);
            for (a, b) in before.iter().flatten().zip(after.iter().flatten()) {
                assert!((a - b).abs() < 1e-5, "{}: {a} {b}", group.name);
            }
        }
    }
}

#[test]
fn padding_does_not_change_a_text() {
    let (architecture, _) = all().remove(0);
    let tensors = tensors_of(&architecture);
    let of = |rows: &[&[u32]]| {
        logits(
            &architecture,
            tensors.clone(),
            &Batch::of_tokens(rows, 0, &Device::Cpu).unwrap(),
        )
        .remove(0)
    };
    let alone = of(&[&[3, 4]]);
    let padded = of(&[&[3, 4], &[1, 2, 3, 4, 5, 6, 7]]);
    for (a, b) in alone.iter().zip(&padded) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn a_tensor_too_few_too_many_or_of_another_shape_is_refused() {
    for (architecture, _) in all() {
        let build = |tensors| {
            let mut parameters = Parameters::from_tensors(tensors, &Device::Cpu, crate::parameters::Use::Infer);
            architecture.build(&mut parameters, CLASSES).err().unwrap()
        };
        let name = tensors_of(&architecture).keys().next().unwrap().clone();
        let mut fewer = tensors_of(&architecture);
        fewer.remove(&name);
        assert!(matches!(build(fewer), Error::MissingTensor { .. }));
        let mut more = tensors_of(&architecture);
        more.insert("stowaway".into(), Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap());
        assert!(matches!(build(more), Error::UnusedTensors(names) if names == ["stowaway"]));
        let mut other = tensors_of(&architecture);
        other.insert(name, Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap());
        assert!(matches!(build(other), Error::WrongTensor { .. }));
    }
}

#[test]
fn usual_widths_have_their_published_parameter_counts() {
    let image = Input::Image {
        width: 28,
        height: 28,
        channels: 1,
        mean: 0.1,
        std: 0.3,
    };
    let count = |spec: ModelSpec, input: &Input, classes| {
        let mut parameters = Parameters::create(0, &Device::Cpu);
        spec.resolve(input).unwrap().build(&mut parameters, classes).unwrap();
        parameters.count()
    };
    // Han et al. 2015, table 1: 431K and 267K (266,610 with biases).
    assert_eq!(
        count(
            ModelSpec::Lenet5 {
                channels: vec![20, 50],
                hidden: 500
            },
            &image,
            10
        ),
        431_080
    );
    assert_eq!(count(ModelSpec::Mlp { hidden: vec![300, 100] }, &image, 10), 266_610);
    // BERT-small of Turc et al. 2019: 28.8 M with its pooler (28,763,648), and a classifier of two.
    let bert = ModelSpec::Bert {
        layers: 4,
        hidden: 512,
        heads: 8,
        intermediate: None,
        max_positions: 512,
    };
    let text = Input::Text {
        max_length: 128,
        vocab_size: 30_522,
    };
    assert_eq!(count(bert, &text, 2), 28_763_648 + 2 * 512 + 2);
}
