//! `kind = "export"`: a model is written as it is deployed.

use crate::section::{Named, Section};
use crate::source::Place;
use orchestrate_ml::steps::{ExportSettings, Precision};

/// An export step.
#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    /// The step whose model is written.
    pub input: String,
    /// Name of the data set that the input has.
    pub data: String,
    /// What the weights become.
    pub settings: ExportSettings,
}

/// What the section says.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub input: Named,
    pub precision: Precision,
    /// Of `precision`, if it is set.
    pub precision_place: Option<Place>,
}

impl Draft {
    pub(super) fn read(mut section: Section) -> Option<Self> {
        section.turns_out_to_be("an export step");
        let input = section.needed_reference("input", "step");
        let precision = section.choice("precision", &[("int8", Precision::Int8), ("f32", Precision::F32)]);
        let precision_place = section.place_of("precision");
        section.done(|| {
            Some(Self {
                input: input?,
                precision: precision.unwrap_or(Precision::Int8),
                precision_place,
            })
        })
    }

    pub(super) fn finish(self, data: String) -> Export {
        Export {
            input: self.input.name,
            data,
            settings: ExportSettings {
                precision: self.precision,
            },
        }
    }
}
