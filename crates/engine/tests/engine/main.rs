//! Tests of the engine by way of what it offers to others: store, plan, build and worker processes, with steps that
//! fake. (They are marked as tests so that Clippy lets them unwrap.)

#[cfg(test)]
mod builds;
#[cfg(test)]
mod checkpoints;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod contention;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod gc;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod inputs;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod mounted;
#[cfg(test)]
mod order;
#[cfg(test)]
mod process;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod records;
#[cfg(test)]
mod repair;
#[cfg(test)]
mod reproduce;
#[cfg(test)]
mod results;
#[cfg(test)]
mod roots;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod store;
