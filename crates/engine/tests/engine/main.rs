//! Tests of the engine by way of what it offers to others: store, plan, build and worker processes, with steps that fake.

mod builds;
mod fixture;
mod process;
mod properties;
mod records;
mod repair;
mod store;
