//! What came of running actions a second time (`build --check`): in words, and as an exit code.

use crate::exit::ExitCode;
use orchestrate_engine::{ActionId, FailureClass, Reproduction};
use std::collections::BTreeMap;

/// By action.
pub type Reproductions = BTreeMap<ActionId, Reproduction>;

/// What is wrong with the second run of the action `name`: a title and the rest. Nothing if it was the same, or if the
/// action was not run.
pub fn problem<'a>(name: &str, reproduction: &'a Reproduction) -> Option<(String, &'a str)> {
    match reproduction {
        Reproduction::Same | Reproduction::Skipped => None,
        Reproduction::Differs { difference } => Some((format!("{name} is not reproducible"), difference)),
        Reproduction::Failed { error, class } => {
            let what = match class {
                FailureClass::Step | FailureClass::Interrupted => "failed when it ran a second time",
                FailureClass::Input | FailureClass::Environment => "could not be checked",
            };
            Some((format!("{name} {what}"), error))
        }
    }
}

/// How many were the same.
pub fn summary(reproductions: &Reproductions) -> String {
    let count = |of: &Reproduction| reproductions.values().filter(|found| *found == of).count();
    let skipped = match count(&Reproduction::Skipped) {
        0 => String::new(),
        skipped => format!(", {skipped} not run"),
    };
    format!(
        "check: {} of {} actions gave the same bytes and metrics a second time{skipped}",
        count(&Reproduction::Same),
        reproductions.len()
    )
}

/// The code of a check that did not go well: of an interruption, else of what differs, else of what failed.
pub fn code(reproductions: &Reproductions) -> Option<ExitCode> {
    let ranked = reproductions.values().filter_map(|reproduction| match reproduction {
        Reproduction::Same => None,
        Reproduction::Skipped => Some((0, ExitCode::Interrupted)),
        Reproduction::Differs { .. } => Some((1, ExitCode::NotReproducible)),
        Reproduction::Failed {
            class: FailureClass::Environment,
            ..
        } => Some((2, ExitCode::Environment)),
        Reproduction::Failed { .. } => Some((3, ExitCode::StepFailed)),
    });
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, code)| code)
}

/// Why a build that was to be checked is not to replace what an earlier one exported, if it is not.
pub fn doubt(reproductions: Option<&Reproductions>) -> Option<&'static str> {
    match reproductions.map(code) {
        None => Some("nothing was checked"),
        Some(None) => None,
        Some(Some(ExitCode::NotReproducible)) => Some("not all of it is reproducible"),
        Some(Some(_)) => Some("not all of it could be checked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orchestrate_engine::ActionGraph;

    /// Of as many actions.
    fn reproductions(all: &[Reproduction]) -> Reproductions {
        let mut graph = ActionGraph::new();
        let ids = (0..all.len()).map(|number| {
            let action = orchestrate_engine::Action {
                name: number.to_string(),
                step: "step".into(),
                kind: orchestrate_engine::Kind {
                    name: "kind".into(),
                    version: 1,
                },
                parameters: serde_json::Value::Null,
                seed: 0,
                numerics: "exact".into(),
                inputs: BTreeMap::new(),
                demand: orchestrate_engine::Demand::Slot,
                memory: None,
                trajectory: None,
            };
            graph.add(action).unwrap()
        });
        ids.zip(all.iter().cloned()).collect()
    }

    #[test]
    fn what_could_not_be_run_again_is_not_called_irreproducible_and_what_is_comes_first() {
        let failed = |class| Reproduction::Failed {
            error: "why".into(),
            class,
        };
        let differs = Reproduction::Differs {
            difference: "how".into(),
        };
        let (input, environment) = (failed(FailureClass::Input), failed(FailureClass::Environment));
        assert_eq!(problem("a", &input), Some(("a could not be checked".to_owned(), "why")));
        assert_eq!(problem("a", &Reproduction::Same), None);
        let code_of = |all: &[Reproduction]| code(&reproductions(all));
        assert_eq!(
            code_of(&[Reproduction::Same, input.clone()]),
            Some(ExitCode::StepFailed)
        );
        assert_eq!(
            code_of(&[environment.clone(), Reproduction::Same]),
            Some(ExitCode::Environment)
        );
        assert_eq!(
            code_of(&[input.clone(), differs.clone()]),
            Some(ExitCode::NotReproducible)
        );
        assert_eq!(
            code_of(&[differs.clone(), Reproduction::Skipped]),
            Some(ExitCode::Interrupted)
        );
        assert_eq!(
            code_of(&[input.clone(), environment.clone()]),
            Some(ExitCode::Environment)
        );
        assert_eq!(code_of(&[Reproduction::Same]), None);
        let doubt_of = |all: &[Reproduction]| doubt(Some(&reproductions(all)));
        assert_eq!(doubt_of(&[Reproduction::Same]), None);
        assert_eq!(doubt_of(&[differs]), Some("not all of it is reproducible"));
        assert_eq!(
            doubt_of(&[input, Reproduction::Same]),
            Some("not all of it could be checked")
        );
        assert_eq!(doubt(None), Some("nothing was checked"));
        let some = reproductions(&[Reproduction::Same, Reproduction::Skipped]);
        assert!(summary(&some).ends_with("1 of 2 actions gave the same bytes and metrics a second time, 1 not run"));
    }
}
