//! Carries out each order in a process of its own.
//!
//! Invariants: the child is always reaped before `execute` returns; its standard input stays open until its result is
//! there, and is closed however this process ends, which is what ends the child. A build that is to stop tells it so. It leads a process group of its own,
//! so that Ctrl-C in a terminal reaches only the build, which then decides.

use crate::cancel::Cancel;
use crate::executor::{Executed, ExecutionError, Executor, Notice};
use crate::log_tail::LogTail;
use crate::memory;
use crate::step::{FailureClass, Outcome, StepError};
use crate::worker::{WorkOrder, WorkerMessage};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// How often a silent child and the cancel flag are looked at.
const POLL: Duration = Duration::from_millis(50);
/// How long a child may take to exit after its result, and its pipes to close after its exit.
const GRACE: Duration = Duration::from_secs(5);
/// Longer lines are cut into several.
const MAX_LINE: u64 = 16 << 20;

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
/// What Rust says before it aborts a process that gets no more memory.
const NO_MEMORY: &str = "memory allocation of";

/// Runs `program args…` for each order; it must speak the protocol of [`run_worker`](crate::run_worker).
#[derive(Debug, Clone)]
pub struct ProcessExecutor {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Each worker's share of the threads, as `RAYON_NUM_THREADS`.
    pub threads: NonZeroUsize,
    /// Further variables of its environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Memory that there is, in bytes, to tell beside what a worker held that was killed.
    pub memory: Option<u64>,
}

impl Executor for ProcessExecutor {
    fn execute(
        &self,
        order: &WorkOrder,
        cancel: &Cancel,
        on: &mut dyn FnMut(Notice),
    ) -> Result<Executed, ExecutionError> {
        if cancel.is_now() {
            return Err(ExecutionError::Cancelled);
        }
        let spawned = Command::new(&self.program)
            .args(&self.args)
            .env("RAYON_NUM_THREADS", self.threads.to_string())
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let child = spawned.map_err(|source| ExecutionError::Spawn {
            program: self.program.clone(),
            source,
        })?;
        Running::new(child, order, self.memory).attend(cancel, on)
    }
}

/// What comes from the child.
enum Heard {
    Message(WorkerMessage),
    Log(String),
}

/// What the child said last.
enum Verdict {
    Finished(Outcome),
    Failed(StepError),
}

/// A child at work.
struct Running {
    child: Child,
    /// What is sent here asks the child to stop; dropping it closes the child's standard input.
    stop: Option<Sender<()>>,
    is_asked_to_stop: bool,
    heard: Receiver<Heard>,
    verdict: Option<Verdict>,
    peak_memory_bytes: Option<u64>,
    /// That there is, in bytes.
    memory: Option<u64>,
    log: LogTail,
}

impl Running {
    fn new(mut child: Child, order: &WorkOrder, memory: Option<u64>) -> Self {
        let (sender, heard) = mpsc::channel();
        let stop = speak(child.stdin.take().expect("standard input is piped"), order);
        listen(
            child.stdout.take().expect("standard output is piped"),
            sender.clone(),
            |line| {
                // What a library prints there is no message, but worth keeping.
                serde_json::from_str(&line).map_or(Heard::Log(line), Heard::Message)
            },
        );
        listen(
            child.stderr.take().expect("standard error is piped"),
            sender,
            Heard::Log,
        );
        Self {
            child,
            stop: Some(stop),
            is_asked_to_stop: false,
            heard,
            verdict: None,
            peak_memory_bytes: None,
            memory,
            log: LogTail::default(),
        }
    }

    /// Hears the child until it has ended.
    fn attend(mut self, cancel: &Cancel, on: &mut dyn FnMut(Notice)) -> Result<Executed, ExecutionError> {
        let mut deadline = None;
        let status = loop {
            match self.heard.recv_timeout(POLL) {
                Ok(heard) => self.take(heard, on),
                // Both pipes are closed: the child has ended or is about to.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(1)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(status) = self.child.try_wait().transpose() {
                break status;
            }
            if cancel.is_stopped() {
                self.ask_to_stop();
            }
            if self.verdict.is_some() {
                self.stop = None;
                deadline.get_or_insert_with(|| Instant::now() + GRACE);
            }
            if cancel.is_now() || deadline.is_some_and(|deadline| Instant::now() > deadline) {
                break self.kill();
            }
        };
        let is_awaited = !cancel.is_now();
        self.drain(is_awaited, on);
        self.stop = None;
        if cancel.is_now() && self.verdict.is_none() {
            return Err(ExecutionError::Cancelled);
        }
        self.conclude(status)
    }

    fn take(&mut self, heard: Heard, on: &mut dyn FnMut(Notice)) {
        match heard {
            Heard::Message(WorkerMessage::Progress {
                progress,
                peak_memory_bytes,
            }) => {
                self.peak_memory_bytes = self.peak_memory_bytes.max(peak_memory_bytes);
                on(Notice::Progress(progress));
            }
            Heard::Message(WorkerMessage::Finished {
                outcome,
                peak_memory_bytes,
            }) => {
                self.peak_memory_bytes = self.peak_memory_bytes.max(peak_memory_bytes);
                self.verdict = Some(Verdict::Finished(outcome));
            }
            Heard::Message(WorkerMessage::Failed { error }) => self.verdict = Some(Verdict::Failed(error)),
            Heard::Log(line) => {
                self.log.push(&line);
                on(Notice::Log(line));
            }
        }
    }

    /// Hears what the child said before it ended. What came of its work, if that `is_awaited`, may be late on a machine
    /// that is busy. Whoever inherited its pipes may keep them open: that is not waited for.
    fn drain(&mut self, is_awaited: bool, on: &mut dyn FnMut(Notice)) {
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            match self.heard.recv_timeout(POLL) {
                Ok(heard) => self.take(heard, on),
                Err(RecvTimeoutError::Timeout) if is_awaited && self.verdict.is_none() => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Asks the child, once, to stop when it can go on from there.
    fn ask_to_stop(&mut self) {
        if let Some(stop) = &self.stop
            && !self.is_asked_to_stop
        {
            self.is_asked_to_stop = true;
            // A child that no longer listens ends anyway.
            let _ = stop.send(());
        }
    }

    fn conclude(self, status: io::Result<ExitStatus>) -> Result<Executed, ExecutionError> {
        let log = self.log.text();
        match self.verdict {
            Some(Verdict::Finished(outcome)) => {
                if !status.as_ref().is_ok_and(ExitStatus::success) {
                    tracing::warn!(?status, "a worker finished its work and then ended badly");
                }
                Ok(Executed {
                    outcome,
                    peak_memory_bytes: self.peak_memory_bytes,
                    log,
                })
            }
            Some(Verdict::Failed(error)) => Err(ExecutionError::Step { error, log }),
            None => {
                let (how, class) = self.crash_in_words(status, &log);
                Err(ExecutionError::Crashed { how, class, log })
            }
        }
    }

    /// Tells how a worker ended that told nothing itself.
    fn crash_in_words(&self, status: io::Result<ExitStatus>, log: &str) -> (String, FailureClass) {
        use FailureClass::{Environment, Step};
        let status = match status {
            Ok(status) => status,
            Err(error) => return (format!("the worker cannot be waited for: {error}"), Environment),
        };
        match status.signal() {
            Some(SIGKILL) => (memory::killed(self.peak_memory_bytes, self.memory), Environment),
            Some(SIGABRT) if let Some(line) = log.lines().rev().find(|line| line.starts_with(NO_MEMORY)) => (
                format!("the worker is out of memory: {line}; {}", memory::NEED_LESS),
                Environment,
            ),
            Some(signal) => (format!("the worker was ended by signal {signal}"), Step),
            None => {
                let code = status
                    .code()
                    .map_or_else(|| "no code".to_owned(), |code| code.to_string());
                (format!("the worker exited ({code}) without a result"), Step)
            }
        }
    }
}

/// Writes `order` to a child's standard input, and a line for each message; closes it when the sender is dropped.
fn speak(mut stdin: ChildStdin, order: &WorkOrder) -> Sender<()> {
    let mut line = serde_json::to_string(order).expect("an order is plain JSON");
    line.push('\n');
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        // A child that reads nothing is told by how it ends.
        let mut say = |line: &str| stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).is_ok();
        let mut is_heard = say(&line);
        while is_heard && requests.recv().is_ok() {
            is_heard = say("stop\n");
        }
    });
    sender
}

/// Sends each line of `pipe`, until it closes or nobody hears.
fn listen(pipe: impl Read + Send + 'static, sender: Sender<Heard>, parse: impl Fn(String) -> Heard + Send + 'static) {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut pipe).take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            if sender
                .send(parse(text.trim_end_matches(['\n', '\r']).to_owned()))
                .is_err()
            {
                return;
            }
        }
    });
}
