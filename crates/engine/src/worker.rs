//! The worker: a process that carries out one order, and the protocol that it speaks.
//!
//! The order is one line of JSON on its standard input, which then stays open: when it ends, the parent is gone, and
//! the worker exits at once, so that there is never an orphan. Any further line asks the step to stop as soon as it has
//! kept what it needs to go on. Messages are lines of JSON on its standard output, the last of which is `finished` or
//! `failed`. Standard error is its log. Nothing else may be written to standard output.

use crate::step::{CheckpointPlace, FailureClass, InputFiles, Outcome, Progress, StepError, Steps, Work, run_step};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Progress is told no more often than this.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// What a worker is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkOrder {
    /// The action's name, for logs; the step does not see it.
    pub action: String,
    /// Name of its kind.
    pub kind: String,
    /// Its parameters.
    pub parameters: serde_json::Value,
    /// Its seed.
    pub seed: u64,
    /// Its numerics class.
    pub numerics: String,
    /// Role to verified files.
    pub inputs: BTreeMap<String, InputFiles>,
    /// An empty folder for its artifact.
    pub output: PathBuf,
    /// Where it may keep checkpoints.
    pub checkpoints: Option<CheckpointPlace>,
}

impl WorkOrder {
    /// The order as its step sees it.
    pub(crate) fn work<'a>(&'a self, progress: &'a dyn Fn(Progress), is_stopped: &'a dyn Fn() -> bool) -> Work<'a> {
        Work {
            kind: &self.kind,
            parameters: &self.parameters,
            seed: self.seed,
            numerics: &self.numerics,
            inputs: self.inputs.clone(),
            output: &self.output,
            checkpoints: self.checkpoints.as_ref(),
            is_stopped,
            progress,
        }
    }
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum WorkerMessage {
    /// How far it is.
    Progress {
        /// That far.
        progress: Progress,
        /// Most memory that it held so far.
        #[serde(default)]
        peak_memory_bytes: Option<u64>,
    },
    /// It is done.
    Finished {
        /// What the step told.
        outcome: Outcome,
        /// Most memory that it held.
        #[serde(default)]
        peak_memory_bytes: Option<u64>,
    },
    /// It failed.
    Failed {
        /// Why.
        error: StepError,
    },
}

/// Carries out the order on `stdin` with `steps` and answers on `stdout`. Returns success if the step succeeded and
/// that could be told. If `stdin` ends before, the whole process exits.
pub fn run_worker(steps: &dyn Steps, mut stdin: impl BufRead + Send + 'static, stdout: impl Write + Send) -> ExitCode {
    let voice = Voice::new(stdout);
    let order = match read_order(&mut stdin) {
        Ok(order) => order,
        Err(error) => {
            voice.say(&WorkerMessage::Failed { error });
            return ExitCode::FAILURE;
        }
    };
    let parent = Arc::new(Parent::default());
    heed_parent(stdin, Arc::clone(&parent));
    let is_stopped = || parent.asks_to_stop.load(Ordering::SeqCst);
    let result = run_step(steps, &order.work(&|progress| voice.progress(progress), &is_stopped));
    parent.is_over.store(true, Ordering::SeqCst);
    voice.last_progress();
    let (message, code) = match result {
        Ok(outcome) => (
            WorkerMessage::Finished {
                outcome,
                peak_memory_bytes: peak_memory_bytes(),
            },
            ExitCode::SUCCESS,
        ),
        Err(error) => (WorkerMessage::Failed { error }, ExitCode::FAILURE),
    };
    if voice.say(&message) { code } else { ExitCode::FAILURE }
}

fn read_order(stdin: &mut dyn BufRead) -> Result<WorkOrder, StepError> {
    let mut line = String::new();
    let read = stdin.read_line(&mut line).map_err(|error| error.to_string());
    let order = read.and_then(|_| serde_json::from_str(&line).map_err(|error| error.to_string()));
    order.map_err(|error| {
        StepError::new(
            FailureClass::Environment,
            format!("a worker's order cannot be read: {error}"),
        )
    })
}

/// What is between a worker and its parent.
#[derive(Default)]
struct Parent {
    /// The work is done, so that the parent may go.
    is_over: AtomicBool,
    asks_to_stop: AtomicBool,
}

/// Heeds `stdin`: a line asks to stop, and its end is the parent's. The thread ends with the process.
fn heed_parent(mut stdin: impl BufRead + Send + 'static, parent: Arc<Parent>) {
    std::thread::spawn(move || {
        // Whatever else is wrong with the pipe, nobody is there any longer.
        while stdin.skip_until(b'\n').is_ok_and(|bytes| bytes > 0) {
            parent.asks_to_stop.store(true, Ordering::SeqCst);
        }
        if !parent.is_over.load(Ordering::SeqCst) {
            std::process::exit(1);
        }
    });
}

/// The way to the parent.
struct Voice<W: Write>(RefCell<VoiceState<W>>);

struct VoiceState<W> {
    out: W,
    last_told: Option<Instant>,
    /// The newest progress, if it was not told.
    untold: Option<Progress>,
}

impl<W: Write> Voice<W> {
    fn new(out: W) -> Self {
        Self(RefCell::new(VoiceState {
            out,
            last_told: None,
            untold: None,
        }))
    }

    /// Says one thing; whether that worked. If it did not, the parent is gone.
    fn say(&self, message: &WorkerMessage) -> bool {
        let mut line = serde_json::to_string(message).expect("a message is plain JSON");
        line.push('\n');
        let out = &mut self.0.borrow_mut().out;
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_ok()
    }

    fn progress(&self, progress: Progress) {
        let is_due = self
            .0
            .borrow()
            .last_told
            .is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL);
        self.0.borrow_mut().untold = Some(progress.finite());
        if is_due {
            self.last_progress();
        }
    }

    /// Tells the newest progress if it was not told yet.
    fn last_progress(&self) {
        let untold = self.0.borrow_mut().untold.take();
        if let Some(progress) = untold {
            self.0.borrow_mut().last_told = Some(Instant::now());
            self.say(&WorkerMessage::Progress {
                progress,
                peak_memory_bytes: peak_memory_bytes(),
            });
        }
    }
}

/// Most memory that this process ever held, where the system tells it.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Step;
    use std::io::{self, BufReader};

    /// Does what `kind` says.
    struct Scripted;

    impl Steps for Scripted {
        fn get(&self, kind: &str) -> Option<&dyn Step> {
            (kind != "unknown").then_some(self)
        }
    }

    impl Step for Scripted {
        fn run(&self, work: &Work<'_>) -> Result<Outcome, StepError> {
            match work.kind {
                "panic" => panic!("on purpose"),
                "nan" => {
                    let metrics = [("loss".to_owned(), f64::NAN)].into();
                    return Ok(Outcome {
                        metrics,
                        ..Outcome::default()
                    });
                }
                _ => {}
            }
            for done in 1..=work.seed {
                let values = [("loss".to_owned(), f64::INFINITY), ("rate".to_owned(), 0.5)].into();
                (work.progress)(Progress {
                    done,
                    total: work.seed,
                    values,
                });
            }
            Ok(Outcome {
                metrics: [("accuracy".to_owned(), 0.1 + 0.2)].into(),
                ..Outcome::default()
            })
        }
    }

    fn order(kind: &str, seed: u64) -> String {
        let order = WorkOrder {
            action: "a".into(),
            kind: kind.into(),
            parameters: serde_json::json!({}),
            seed,
            numerics: "exact".into(),
            inputs: BTreeMap::new(),
            output: PathBuf::from("/nowhere"),
            checkpoints: None,
        };
        serde_json::to_string(&order).unwrap() + "\n"
    }

    /// What a worker says that gets `line`; its standard input stays open meanwhile.
    fn answers(line: &str) -> Vec<WorkerMessage> {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(line.as_bytes()).unwrap();
        let mut said = Vec::new();
        let code = run_worker(&Scripted, BufReader::new(reader), &mut said);
        let said = String::from_utf8(said).unwrap();
        let messages: Vec<WorkerMessage> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let is_finished = matches!(messages.last(), Some(WorkerMessage::Finished { .. }));
        assert_eq!(
            code,
            if is_finished {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        );
        messages
    }

    #[test]
    fn progress_is_thinned_but_the_last_is_told_before_the_end() {
        let messages = answers(&order("count", 1_000));
        let far = |message: &WorkerMessage| match message {
            WorkerMessage::Progress { progress, .. } => Some((progress.done, progress.values.clone())),
            WorkerMessage::Finished { .. } | WorkerMessage::Failed { .. } => None,
        };
        let finite: BTreeMap<String, f64> = [("rate".to_owned(), 0.5)].into();
        assert_eq!(far(&messages[0]), Some((1, finite.clone())));
        assert_eq!(far(&messages[messages.len() - 2]), Some((1_000, finite)));
        assert!(messages.len() < 100, "{} messages", messages.len());
        let Some(WorkerMessage::Finished {
            outcome,
            peak_memory_bytes,
        }) = messages.last()
        else {
            panic!("{messages:?}")
        };
        assert_eq!(outcome.metrics["accuracy"], 0.1 + 0.2);
        assert!(!cfg!(target_os = "linux") || peak_memory_bytes.is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn every_way_to_fail_is_told() {
        let cases = [
            (order("panic", 0), "the step panicked: on purpose"),
            (order("nan", 0), "the step reported `loss` as NaN"),
            (order("unknown", 0), "there is no step of kind `unknown`"),
            ("nonsense\n".to_owned(), "a worker's order cannot be read"),
        ];
        for (line, expected) in cases {
            let messages = answers(&line);
            let [WorkerMessage::Failed { error }] = &messages[..] else {
                panic!("{messages:?}")
            };
            assert!(error.message.starts_with(expected), "{error}");
        }
    }
}
