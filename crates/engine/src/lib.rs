//! The build engine: action keys, the store, the action cache, the scheduler and its executors.
//!
//! ```text
//! ActionGraph ─► assess ─► KeyDocument ─► ActionKey ─► action cache ─► Fresh | Stale(Reason)
//!    plan: tells it
//!    build: Job ─► lease ─► verified inputs ─► Executor ─► Step::run ─► Store::publish ─► ActionResult
//!                                                └──► RunEvent ─► sink, run record
//! ```
//! An [`Action`] of an [`ActionGraph`] is what is run. [`plan()`] and [`build`] assess it in the same way: once the
//! artifacts of its inputs are known, its [`KeyDocument`] says everything that its result depends on, the document's
//! digest is its [`ActionKey`], and the [`Store`] has a result of that key or gives a [`Reason`] to run. What runs is a
//! [`Step`], here or in a worker process; what it leaves in its output folder becomes an artifact, a [`Tree`] of
//! content-addressed blobs.
//!
//! Invariants:
//! - A result is only ever found under a key that names all that it depends on, and only if it is whole.
//! - The reason that is told for a rerun is the difference between two key documents, the very thing that is hashed.
//! - Nothing that a crash, a full disk or a flipped bit leaves behind needs a person to clean it up.
//! - What is not in the key (names, paths, times, resources, the order in which threads end) is not in any result.
//!
//! It knows nothing of machine learning, of recipes or of terminals, and runs on Unix alone: it relies on `flock`,
//! process groups and syncing of folders.

#[cfg(test)]
extern crate self as orchestrate_engine;

#[cfg(test)]
#[path = "../tests/engine/fixture.rs"]
#[expect(dead_code, reason = "it is made for the tests of what the engine offers to others")]
mod fixture;

mod action;
mod artifact;
mod assess;
mod cancel;
mod change;
mod difference;
mod digest;
mod error;
mod event;
mod executor;
mod file_digest;
mod freshness;
mod graph;
mod input_file;
mod job;
mod key;
mod log_tail;
mod memory;
mod plan;
mod pools;
mod process;
mod ready;
mod record;
mod report;
mod reproduce;
mod result;
mod runs;
mod scheduler;
mod stamp;
mod states;
mod step;
mod store;
mod worker;

pub use action::{Action, ActionId, Demand, Input, Kind};
pub use artifact::{Tree, TreeEntry, TreeError};
pub use cancel::Cancel;
pub use change::{Change, changes};
pub use difference::KeyDifference;
pub use digest::{Digest, ParseDigestError};
pub use error::EngineError;
pub use event::RunEvent;
pub use executor::{Executed, ExecutionError, Executor, InProcessExecutor, Notice};
pub use freshness::{Freshness, Reason};
pub use graph::{ActionGraph, GraphError};
pub use key::{ActionKey, InputDigest, KEY_SCHEMA, KeyDocument};
pub use memory::memory_in_words;
pub use plan::{Decision, Plan, PlannedAction, documents, plan};
pub use process::ProcessExecutor;
pub use record::{ActionRecord, RecordedOutcome, RunCounts, StartedAction, Variant};
pub use report::{ActionOutcome, ActionReport, BuildReport};
pub use reproduce::{Describe, Reproduction, reproduce};
pub use result::ActionResult;
pub use runs::{RecordedRun, RunId, RunState, RunSummary};
pub use scheduler::{BuildOptions, build};
pub use step::{CheckpointPlace, FailureClass, InputFiles, Outcome, Progress, Step, StepError, Steps, Work};
pub use store::{
    Damage, GcOptions, GcReport, HeldLease, Integrity, Lease, LeaseHolder, LeasePurpose, ListedResult, Lookup,
    RecordedName, Scratch, Store, StoreError, Survey, Tally, VerifyReport,
};
pub use worker::{WorkOrder, WorkerMessage, run_worker};
