//! The recipe language from the outside: text and command line in, recipe or diagnostics out.

// Marked as tests, so that `allow-unwrap-in-tests` covers what the tests share.
#[cfg(test)]
mod defaults;
#[cfg(test)]
mod demands;
#[cfg(test)]
mod diagnostics;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod overrides;
#[cfg(test)]
mod precision;
#[cfg(test)]
mod pretrained;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod semantics;
#[cfg(test)]
mod workspace;
