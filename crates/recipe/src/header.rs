//! `[recipe]`: what concerns all steps.

use crate::diagnostic::Problem;
use crate::named::is_name;
use crate::section::Section;
use crate::shape::{Interval, Shape};
use crate::suggest::quoted;
use orchestrate_ml::device::DeviceChoice;

const MOST_LATENCY_SECONDS: f64 = 3600.0;

/// The recipe without its parts.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    /// If it is set.
    pub name: Option<String>,
    pub seed: u64,
    pub device: DeviceChoice,
    pub latency_seconds: f64,
}

/// Reads the header.
pub(crate) fn read(mut section: Section) -> Option<Header> {
    let name = section.text_of_shape("name", Shape::Name);
    if let Some((text, place)) = name
        && !is_name(&text.value)
    {
        section.fault(Problem::error(
            format!("{} cannot be the name of a recipe", quoted(&text.value)),
            place,
            "not a name",
            "use 1 to 64 letters, digits, `_` and `-`: exports land in `out/NAME`",
        ));
    }
    let seed = section.seed("seed");
    let device = section.choice(
        "device",
        &[
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda),
            ("metal", DeviceChoice::Metal),
            ("auto", DeviceChoice::Auto),
        ],
    );
    let seconds = Interval::from(0.0).to(MOST_LATENCY_SECONDS);
    let latency_seconds = section.real_called("latency_seconds", seconds, "a number of seconds from 0 to 3600");
    section.done(|| {
        Some(Header {
            name: name.map(|(text, _)| text.value.clone()),
            seed: seed.unwrap_or(1),
            device: device.unwrap_or(DeviceChoice::Cpu),
            latency_seconds: latency_seconds.unwrap_or(1.0),
        })
    })
}

/// The name of a recipe that does not say one: its file's, with other characters made `-`.
pub(crate) fn name_of_file(stem: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name: String = stem
        .chars()
        .take(64)
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    if name.is_empty() { "recipe".to_owned() } else { name }
}
