//! `orchestrate predict DIR`: one JSON line for each input, in the order of the inputs.

use crate::arguments::Predict;
use crate::exit::{ExitCode, Failure};
use crate::output;
use orchestrate_recipe::{Prediction, Predictor, open_device};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::Path;

/// Lines that are answered together: enough to fill a batch, few enough for a pipe to answer soon.
const LINES: usize = 32;

/// Answers the inputs.
pub fn run(arguments: &Predict) -> Result<ExitCode, Failure> {
    orchestrate_recipe::prepare_process();
    let predictor = Predictor::open(&arguments.model, &open_device(&arguments.device)?)?;
    if predictor.reads_text() {
        if arguments.files.is_empty() {
            answer_standard_input(&predictor)?;
        }
        for path in &arguments.files {
            let file = File::open(path).map_err(|error| unreadable(path, &error))?;
            let name = path.display().to_string();
            answer_lines(&predictor, BufReader::new(file), &name, LINES, |error| {
                unreadable(path, &error)
            })?;
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

fn answer_standard_input(predictor: &Predictor) -> Result<(), Failure> {
    let (input, name) = (io::stdin(), "standard input");
    let is_interactive = input.is_terminal();
    if is_interactive {
        output::note("one text a line; end with Ctrl-D");
    }
    let together = if is_interactive { 1 } else { LINES };
    answer_lines(predictor, input.lock(), name, together, Failure::file("read", name))
}

/// A file that the command line names and that cannot be read is a fault of the command line.
fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::Usage(format!("cannot read {}: {error}", path.display()))
}

/// Answers line by line, `together` at a time. Before a line that cannot be read, those before it are answered.
fn answer_lines(
    predictor: &Predictor,
    input: impl BufRead,
    name: &str,
    together: usize,
    broken: impl FnOnce(io::Error) -> Failure,
) -> Result<(), Failure> {
    let mut waiting = Vec::new();
    let mut end = Ok(());
    for (number, line) in (1..).zip(input.split(b'\n')) {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                end = Err(broken(error));
                break;
            }
        };
        match String::from_utf8(line) {
            Ok(text) => waiting.push(text.strip_suffix('\r').map(str::to_owned).unwrap_or(text)),
            Err(_) => {
                end = Err(not_utf8(name, number));
                break;
            }
        }
        if waiting.len() == together {
            print(&predictor.texts(&waiting)?)?;
            waiting.clear();
        }
    }
    if !waiting.is_empty() {
        print(&predictor.texts(&waiting)?)?;
    }
    end
}

fn not_utf8(name: &str, number: usize) -> Failure {
    Failure::Usage(format!(
        "{name}, line {number}: not UTF-8, the lines from there on are not answered; save the text as UTF-8"
    ))
}

fn print(predictions: &[Prediction]) -> Result<(), Failure> {
    predictions.iter().try_for_each(|prediction| {
        output::line(&serde_json::to_string(prediction).expect("a prediction has string keys and finite numbers"))
    })
}
