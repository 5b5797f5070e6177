//! `orchestrate predict DIR`: one JSON line for each input, in the order of the inputs.

use crate::arguments::Predict;
use crate::exit::{ExitCode, Failure};
use crate::output;
use orchestrate_recipe::{Prediction, Predictor, open_device};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};

/// Lines that are answered together: enough to fill a batch, few enough for a pipe to answer soon.
const LINES: usize = 32;

/// Answers the inputs.
pub fn run(arguments: &Predict) -> Result<ExitCode, Failure> {
    orchestrate_recipe::prepare_process();
    let predictor = Predictor::open(&arguments.model, &open_device(&arguments.device)?)?;
    if predictor.reads_text() {
        if arguments.files.is_empty() {
            if io::stdin().is_terminal() {
                output::note("one text a line; end with Ctrl-D");
            }
            answer_lines(&predictor, io::stdin().lock(), "standard input")?;
        }
        for path in &arguments.files {
            let file = File::open(path).map_err(Failure::file("read", path))?;
            answer_lines(&predictor, BufReader::new(file), &path.display().to_string())?;
        }
    } else {
        if arguments.files.is_empty() {
            return Err(Failure::Usage("this model reads images: name PNG or IDX files".into()));
        }
        for path in &arguments.files {
            print(&predictor.images(path)?)?;
        }
    }
    Ok(ExitCode::Done)
}

fn answer_lines(predictor: &Predictor, input: impl BufRead, name: &str) -> Result<(), Failure> {
    let interactive = name == "standard input" && io::stdin().is_terminal();
    let most = if interactive { 1 } else { LINES };
    let mut waiting = Vec::new();
    for line in input.lines() {
        waiting.push(line.map_err(Failure::file("read", name))?);
        if waiting.len() == most {
            print(&predictor.texts(&waiting)?)?;
            waiting.clear();
        }
    }
    if waiting.is_empty() {
        Ok(())
    } else {
        print(&predictor.texts(&waiting)?)
    }
}

fn print(predictions: &[Prediction]) -> Result<(), Failure> {
    predictions.iter().try_for_each(|prediction| {
        output::line(&serde_json::to_string(prediction).expect("a prediction has string keys and finite numbers"))
    })
}
