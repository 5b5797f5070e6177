//! `[model.NAME]`: an architecture and its widths.

use crate::diagnostic::Problem;
use crate::section::Section;
use orchestrate_ml::models::ModelSpec;

const MOST_LAYERS: usize = 256;
const MOST_WIDTH: usize = 65_536;
const LEAST_POSITIONS: usize = 3;
const DEFAULT_POSITIONS: usize = 512;

#[derive(Debug, Clone, Copy)]
enum Family {
    Bert,
    Mlp,
    Lenet5,
    Resnet8,
}

/// Reads a model.
pub(crate) fn read(mut section: Section) -> Option<ModelSpec> {
    let family = section.choice(
        "architecture",
        &[
            ("bert", Family::Bert),
            ("mlp", Family::Mlp),
            ("lenet5", Family::Lenet5),
            ("resnet8", Family::Resnet8),
        ],
    );
    section.require("architecture", "\"bert\"");
    let Some(family) = family else {
        return section.given_up();
    };
    let spec = match family {
        Family::Bert => bert(&mut section),
        Family::Mlp => mlp(&mut section),
        Family::Lenet5 => lenet5(&mut section),
        Family::Resnet8 => resnet8(&mut section),
    };
    section.done(|| spec)
}

fn bert(section: &mut Section) -> Option<ModelSpec> {
    section.turns_out_to_be("a bert model");
    let layers = section.whole("layers", 1, MOST_LAYERS);
    section.require("layers", "2");
    let hidden = section.whole("hidden", 1, MOST_WIDTH);
    section.require("hidden", "256");
    let heads = section.whole("heads", 1, MOST_WIDTH);
    section.require("heads", "4");
    let intermediate = section.whole("intermediate", 1, MOST_WIDTH);
    let max_positions = section.whole("max_positions", LEAST_POSITIONS, MOST_WIDTH);
    let (layers, hidden, heads) = (layers?, hidden?, heads?);
    if !hidden.is_multiple_of(heads) {
        divide(section, hidden, heads);
    }
    Some(ModelSpec::Bert {
        layers,
        hidden,
        heads,
        intermediate: Some(intermediate.unwrap_or(4 * hidden)),
        max_positions: max_positions.unwrap_or(DEFAULT_POSITIONS),
    })
}

fn divide(section: &mut Section, hidden: usize, heads: usize) {
    let near = (1..=heads)
        .rev()
        .find(|count| hidden.is_multiple_of(*count))
        .unwrap_or(1);
    let place = section.place_of("heads").unwrap_or_else(|| section.place());
    let width = section.place_of("hidden").unwrap_or(place);
    section.fault(
        Problem::error(
            format!("{heads} heads do not divide `hidden` = {hidden}"),
            place,
            "does not divide it",
            format!("each head has an equal part of the width: use {near} heads, or another width"),
        )
        .and(width, "the width"),
    );
}

fn mlp(section: &mut Section) -> Option<ModelSpec> {
    section.turns_out_to_be("an mlp model");
    let what = "a list of whole numbers: the width of each hidden layer";
    let hidden = section.wholes("hidden", what, (1, MOST_LAYERS), (1, MOST_WIDTH));
    Some(ModelSpec::Mlp {
        hidden: hidden.unwrap_or_else(|| vec![300, 100]),
    })
}

fn lenet5(section: &mut Section) -> Option<ModelSpec> {
    section.turns_out_to_be("a lenet5 model");
    let channels = section.wholes("channels", "a list of two whole numbers", (2, 2), (1, MOST_WIDTH));
    let hidden = section.whole("hidden", 1, MOST_WIDTH);
    Some(ModelSpec::Lenet5 {
        channels: channels.unwrap_or_else(|| vec![20, 50]),
        hidden: hidden.unwrap_or(500),
    })
}

fn resnet8(section: &mut Section) -> Option<ModelSpec> {
    section.turns_out_to_be("a resnet8 model");
    let channels = section.wholes("channels", "a list of three whole numbers", (3, 3), (1, MOST_WIDTH));
    Some(ModelSpec::Resnet8 {
        channels: channels.unwrap_or_else(|| vec![16, 32, 64]),
    })
}
