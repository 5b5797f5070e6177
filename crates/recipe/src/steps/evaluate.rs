//! `kind = "evaluate"`: a model is measured on a data set of the user's choice.

use crate::section::{Named, Section};

/// An evaluate step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluate {
    /// The step whose model is measured.
    pub input: String,
    /// Name of the data set.
    pub data: String,
}

/// What the section says.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub input: Named,
    pub data: Option<Named>,
}

impl Draft {
    pub(super) fn read(mut section: Section) -> Option<Self> {
        section.turns_out_to_be("an evaluate step");
        let input = section.needed_reference("input", "step");
        let data = section.reference("data", "data set");
        section.done(|| Some(Self { input: input?, data }))
    }

    pub(super) fn finish(self, data: String) -> Evaluate {
        Evaluate {
            input: self.input.name,
            data,
        }
    }
}
