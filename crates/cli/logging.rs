//! The log on standard error: warnings as it comes, more with `-v`; `ORCHESTRATE_LOG` overrides, in tracing's syntax.

use std::io;
use tracing_subscriber::EnvFilter;

/// Starts it.
pub fn start(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "warn,orchestrate=info,orchestrate_engine=info,orchestrate_recipe=info,orchestrate_ml=info",
        _ => "info,orchestrate=debug,orchestrate_engine=debug,orchestrate_recipe=debug,orchestrate_ml=debug",
    };
    let filter = EnvFilter::try_from_env("ORCHESTRATE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(crate::output::colours_errors())
        .with_target(false)
        .without_time()
        .init();
}
