//! Workers as processes: shell scripts that speak the protocol or break it, and the real worker in this very program.

use crate::fixture::{Fake, Workshop, all, concatenate, graph, options};
use orchestrate_engine::{
    Cancel, Executed, ExecutionError, Executor, FailureClass, InputFiles, Notice, Outcome, ProcessExecutor, Progress,
    RunEvent, StepError, Work, WorkOrder, WorkerMessage, run_worker,
};
use serde_json::json;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, Stdio};

/// Tells the test below that it is to be a worker.
const IS_WORKER: &str = "ORCHESTRATE_TEST_IS_WORKER";

/// What a worker says that has done what it should.
const FINISHED: &str = r#"echo '{"message":"finished","outcome":{"metrics":{"m":0.1},"measurements":{}}}'"#;

fn shell(script: &str) -> ProcessExecutor {
    let args = ["-c", script].map(OsString::from).into();
    ProcessExecutor {
        program: "/bin/sh".into(),
        args,
        threads: NonZeroUsize::new(3).unwrap(),
        environment: vec![("GREETING".into(), "hello".into())],
        memory: Some(2 << 30),
    }
}

/// An executor whose workers are this test program, as [`worker_of_this_program`].
pub fn ourselves() -> ProcessExecutor {
    let mut args: Vec<OsString> = vec![format!("{IS_WORKER}=1").into(), std::env::current_exe().unwrap().into()];
    args.extend(["--exact", "process::worker_of_this_program", "--nocapture"].map(OsString::from));
    ProcessExecutor {
        program: "/usr/bin/env".into(),
        args,
        threads: NonZeroUsize::MIN,
        environment: vec![],
        memory: None,
    }
}

fn order(kind: &str, output: &Path) -> WorkOrder {
    WorkOrder {
        action: "a".into(),
        kind: kind.into(),
        parameters: json!({"text": "t"}),
        seed: 7,
        numerics: "exact".into(),
        inputs: [("data".to_owned(), InputFiles::File("/nowhere".into()))].into(),
        output: output.to_owned(),
        checkpoints: None,
    }
}

/// Runs `script` as a worker; what it logs is compared with `log`.
fn execute(script: &str, log: &str) -> Result<Executed, ExecutionError> {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    let mut on = |notice| {
        if let Notice::Log(line) = notice {
            lines.push(line);
        }
    };
    let executed = shell(script).execute(&order("k", folder.path()), &Cancel::new(), &mut on);
    assert_eq!(lines.join("\n"), log);
    executed
}

#[test]
fn a_worker_that_speaks_the_protocol_is_heard() {
    let script = format!(
        r#"read -r order
        case "$order" in '{{'*'"seed":7'*'}}') echo "order understood, $RAYON_NUM_THREADS threads, $GREETING" >&2 ;; esac
        echo 'a library says hello'
        echo '{{"message":"progress","progress":{{"done":1,"total":2}},"peak_memory_bytes":9}}'
        {FINISHED}; cat"#
    );
    let folder = tempfile::tempdir().unwrap();
    let mut notices = Vec::new();
    let executed = shell(&script)
        .execute(&order("k", folder.path()), &Cancel::new(), &mut |notice| {
            notices.push(notice)
        })
        .unwrap();
    assert_eq!(executed.outcome.metrics["m"], 0.1);
    assert_eq!(executed.peak_memory_bytes, Some(9));
    let mut log: Vec<&str> = executed.log.lines().collect();
    log.sort_unstable();
    assert_eq!(log, ["a library says hello", "order understood, 3 threads, hello"]);
    assert!(notices.contains(&Notice::Progress(Progress {
        done: 1,
        total: 2,
        ..Progress::default()
    })));
    assert_eq!(notices.len(), 3);
}

#[test]
fn a_worker_that_was_killed_is_reported_with_its_peak() {
    let progress = r#"{"message":"progress","progress":{"done":1,"total":2},"peak_memory_bytes":3145728}"#;
    let error = execute(&format!("read -r order; echo '{progress}'; kill -9 $$"), "").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the worker was killed (signal 9), as the system does when memory runs out: it was last seen to hold 3 MiB of \
         2.0 GiB; if that was it, lower batch_size, max_length or the number of rows, raise gradient_accumulation, use a \
         smaller model, or run less at once with a lower `--jobs`"
    );
    assert!(matches!(
        error,
        ExecutionError::Crashed {
            class: FailureClass::Environment,
            ..
        }
    ));
    let error = execute("kill -TERM $$", "").unwrap_err();
    assert_eq!(error.to_string(), "the worker was ended by signal 15");
}

#[test]
fn a_worker_that_gets_no_more_memory_is_a_matter_of_the_environment() {
    let said = "memory allocation of 8589934592 bytes failed";
    let error = execute(&format!("read -r order; echo '{said}' >&2; kill -ABRT $$"), said).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the worker is out of memory: {said}; lower batch_size, max_length or the number of rows, raise \
             gradient_accumulation, use a smaller model, or run less at once with a lower `--jobs`"
        )
    );
    assert!(matches!(
        error,
        ExecutionError::Crashed {
            class: FailureClass::Environment,
            ..
        }
    ));
    let error = execute("echo 'assertion failed' >&2; kill -ABRT $$", "assertion failed").unwrap_err();
    assert_eq!(error.to_string(), "the worker was ended by signal 6");
}

#[test]
fn a_worker_that_ends_without_a_result_is_reported_with_its_last_words() {
    let error = execute("echo 'last words' >&2; exit 3", "last words").unwrap_err();
    assert_eq!(error.to_string(), "the worker exited (3) without a result");
    assert!(matches!(&error, ExecutionError::Crashed { log, class: FailureClass::Step, .. } if log == "last words"));
    let failed = r#"{"message":"failed","error":{"message":"no such column","class":"input"}}"#;
    let error = execute(&format!("read -r order; echo '{failed}'; exit 1"), "").unwrap_err();
    assert!(matches!(&error, ExecutionError::Step { error, .. } if error.class == FailureClass::Input));
    assert_eq!(error.to_string(), "no such column");
}

#[test]
fn a_worker_that_finished_and_then_ended_badly_has_finished() {
    assert!(execute(&format!("read -r order; {FINISHED}; exit 9"), "").is_ok());
    // Its pipes are kept open by a process that it left behind.
    assert!(execute(&format!("read -r order; sleep 20 & {FINISHED}"), "").is_ok());
}

/// As on a machine that is so busy that what a worker said is read long after it ended.
#[test]
fn a_result_that_is_heard_after_the_worker_ended_counts() {
    let late = format!("read -r order; (sleep 0.5; {FINISHED}) & exit 0");
    assert!(execute(&late, "").is_ok());
}

#[test]
fn a_worker_is_killed_when_the_build_is_to_end_now() {
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let mut process = None;
    let mut on = |notice| {
        if let Notice::Log(line) = notice {
            process = Some(line);
            cancel.stop();
            assert!(!cancel.is_now());
            cancel.stop_now();
        }
    };
    let executor = shell("echo $$ >&2; exec sleep 1000");
    let error = executor
        .execute(&order("k", folder.path()), &cancel, &mut on)
        .unwrap_err();
    assert!(matches!(error, ExecutionError::Cancelled));
    let process = Path::new("/proc").join(process.unwrap());
    assert!(!process.exists() || !cfg!(target_os = "linux"));
    assert!(matches!(
        executor.execute(&order("k", folder.path()), &cancel, &mut |_| {}),
        Err(ExecutionError::Cancelled)
    ));
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let executor = ProcessExecutor {
        program: "/no/such".into(),
        args: vec![],
        threads: NonZeroUsize::MIN,
        environment: vec![],
        memory: None,
    };
    let error = executor
        .execute(&order("k", folder.path()), &Cancel::new(), &mut |_| {})
        .unwrap_err();
    assert!(
        error.to_string().starts_with("cannot start the worker /no/such: "),
        "{error}"
    );
}

/// No test by itself: what this program does when a test starts it as a worker.
#[test]
fn worker_of_this_program() {
    if std::env::var_os(IS_WORKER).is_none() {
        return;
    }
    let act = |work: &Work<'_>| -> Result<Outcome, StepError> {
        (work.progress)(Progress {
            done: 1,
            total: 1,
            ..Progress::default()
        });
        if work.kind == "forever" {
            loop {
                std::thread::park();
            }
        }
        concatenate(work)
    };
    run_worker(&Fake::new(act), BufReader::new(std::io::stdin()), std::io::stdout());
}

#[test]
fn a_build_runs_in_processes_as_it_does_in_this_one() {
    let workshop = Workshop::new();
    let graph = graph(&[
        ("a", "a", &[]),
        ("b", "b", &["a"]),
        ("c", "c", &["a"]),
        ("d", "d", &["b", "c"]),
    ]);
    let built = workshop.build_on(
        &workshop.store(),
        &graph,
        &all(&graph),
        &options(2, false),
        &ourselves(),
    );
    assert!(built.report.is_success(), "{:?}", built.report);
    assert_eq!(workshop.text_of(&built, "d"), "d(b(a))(c(a))");
    assert!(
        built
            .events
            .iter()
            .any(|event| matches!(event, RunEvent::ActionProgress { done: 1, .. }))
    );
    let elsewhere = Workshop::new().build(&graph);
    for (id, report) in &built.report.actions {
        let (ours, theirs) = (
            report.result.as_ref().unwrap(),
            elsewhere.report.actions[id].result.as_ref().unwrap(),
        );
        assert_eq!(
            (ours.key, ours.tree, &ours.metrics),
            (theirs.key, theirs.tree, &theirs.metrics)
        );
        assert!(ours.peak_memory_bytes.is_some() || !cfg!(target_os = "linux"));
    }
}

#[test]
fn a_build_that_is_to_stop_tells_its_worker_and_waits_for_it() {
    let said = r#"{"message":"failed","error":{"message":"stopped at 3","class":"interrupted"}}"#;
    let script = format!("read -r order; echo ready >&2; read -r line; echo \"heard $line\" >&2; echo '{said}'");
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let mut log = Vec::new();
    let error = shell(&script)
        .execute(&order("k", folder.path()), &cancel, &mut |notice| {
            if let Notice::Log(line) = notice {
                cancel.stop();
                log.push(line);
            }
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "stopped at 3");
    assert_eq!(log, ["ready", "heard stop"]);
}

#[test]
fn a_worker_ends_when_its_parent_does() {
    let folder = tempfile::tempdir().unwrap();
    let executor = ourselves();
    let spawned = Command::new(&executor.program)
        .args(&executor.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut worker = spawned.unwrap();
    let mut stdin = worker.stdin.take().unwrap();
    writeln!(
        stdin,
        "{}",
        serde_json::to_string(&order("forever", folder.path())).unwrap()
    )
    .unwrap();
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let is_progress = |line: String| matches!(serde_json::from_str(&line), Ok(WorkerMessage::Progress { .. }));
    assert!(lines.any(|line| is_progress(line.unwrap())));
    drop(stdin);
    assert_eq!(worker.wait().unwrap().code(), Some(1));
}
