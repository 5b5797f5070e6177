//! Where everything printed goes through: lines to standard output, errors and diagnostics to standard error.

use crate::exit::Failure;
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use std::io::{self, IsTerminal, Write};

/// Columns that tables and diagnostics fit into.
pub const WIDTH: usize = 100;

/// Prints one line to standard output.
///
/// # Errors
/// [`Failure::OutputClosed`] if nobody reads it, [`Failure::File`] if it cannot be written, as on a full disk.
pub fn line(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{text}").map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::file("write", "standard output")(error),
    })
}

/// Prints one line to standard error.
pub fn note(text: &str) {
    // If standard error is gone there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints an error to standard error.
pub fn error(text: &str) {
    let prefix = if colours_errors() {
        "\u{1b}[1;31merror:\u{1b}[0m"
    } else {
        "error:"
    };
    note(&format!("{prefix} {text}"));
}

/// Whether standard error takes colour: it is a terminal, and `NO_COLOR` is not set (no-color.org).
pub fn colours_errors() -> bool {
    io::stderr().is_terminal() && !no_colour()
}

fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Shows a diagnostic with its source underlined.
pub fn show_diagnostic(diagnostic: &dyn Diagnostic) {
    let theme = if colours_errors() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(WIDTH)
        .with_links(false);
    let mut text = String::new();
    match handler.render_report(&mut text, diagnostic) {
        Ok(()) => note(text.trim_end()),
        Err(_) => error(&diagnostic.to_string()),
    }
}
