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
    let resnet8 = ModelSpec::Resnet8 {
        channels: vec![4, 6, 5],
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
        (resnet8.resolve(&image).unwrap(), images()),
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

/// Which channels of a residual network are coupled, by their names.
#[test]
fn the_channels_of_a_residual_stream_go_together() {
    let (architecture, _) = all().remove(3);
    let groups = architecture.groups();
    let members = |name: &str| -> Vec<String> {
        let group = groups.iter().find(|group| group.name == name).unwrap();
        let of = |m: &crate::groups::Member| format!("{} {}", m.parameter, m.dim);
        group.members.iter().map(of).filter(|m| m.contains("weight")).collect()
    };
    let stage2 = [
        "layer2.0.conv2.weight 0",
        "layer2.0.bn2.weight 0",
        "layer2.0.downsample.0.weight 0",
        "layer2.0.downsample.1.weight 0",
        "layer3.0.conv1.weight 1",
        "layer3.0.downsample.0.weight 1",
    ];
    assert_eq!(members("layer2"), stage2);
    let inner = [
        "layer3.0.conv1.weight 0",
        "layer3.0.bn1.weight 0",
        "layer3.0.conv2.weight 1",
    ];
    assert_eq!(members("layer3.0.conv1"), inner);
    assert!(members("layer1").contains(&"conv1.weight 0".to_owned()));
    assert!(members("layer3").contains(&"fc.weight 1".to_owned()));
}

#[test]
fn a_residual_network_reads_colour_and_refuses_small_images() {
    let input = |side| Input::Image {
        width: side,
        height: side,
        channels: 3,
        mean: 0.4,
        std: 0.2,
    };
    let resnet8 = ModelSpec::Resnet8 {
        channels: vec![16, 32, 64],
    };
    let architecture = resnet8.resolve(&input(32)).unwrap();
    // MLPerf Tiny gives 12.5 million.
    assert_eq!(architecture.macs(1, 10), 12_501_632);
    let pixels = vec![100; 2 * 3 * 32 * 32];
    let batch = Batch::of_pixels(&pixels, &input(32), &Device::Cpu).unwrap();
    let scores = logits(&architecture, tensors_of(&architecture), &batch);
    assert!(scores.iter().flatten().all(|v| v.is_finite()));
    assert!(resnet8.resolve(&input(8)).is_ok());
    assert!(resnet8.resolve(&input(7)).is_err());
    let two_stages = ModelSpec::Resnet8 { channels: vec![16, 32] };
    assert!(two_stages.resolve(&input(32)).is_err());
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
    // He et al. 2016 at n = 1, with projections and without biases of convolutions: 864 parameters of norms among them.
    let colour = Input::Image {
        width: 32,
        height: 32,
        channels: 3,
        mean: 0.4,
        std: 0.2,
    };
    let resnet8 = ModelSpec::Resnet8 {
        channels: vec![16, 32, 64],
    };
    assert_eq!(count(resnet8, &colour, 10), 78_042);
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

#[test]
fn parameters_are_counted_without_making_them() {
    for (architecture, _) in all() {
        let narrower = (0..architecture.groups().len()).map(|group| architecture.with_width(group, 2));
        for architecture in std::iter::once(architecture.clone()).chain(narrower) {
            let mut parameters = Parameters::create(7, &Device::Cpu);
            architecture.build(&mut parameters, CLASSES).unwrap();
            assert_eq!(
                architecture.parameters(CLASSES),
                parameters.count() as u64,
                "{architecture:?}"
            );
        }
    }
}
