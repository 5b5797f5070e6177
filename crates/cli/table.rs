//! The table behind a build, in at most [`WIDTH`](crate::output::WIDTH) columns, and numbers as people read them.

use orchestrate_engine::BuildReport;
use orchestrate_recipe::report::StepReport;

/// Longest step name that is shown whole.
const NAME: usize = 14;

/// What the cells of a row are.
pub const HEADER: [&str; 11] = [
    "step", "accuracy", "params", "bytes", "MACs", "p50 ms", "points", "smaller", "faster", "time", "state",
];

/// The rows, header first. `baseline` is the step that others are compared with.
pub fn steps(steps: &[StepReport], baseline: Option<&str>) -> Vec<String> {
    let width = steps
        .iter()
        .map(|step| step.name.chars().count())
        .max()
        .unwrap_or(0)
        .clamp("step".len(), NAME);
    let compared = baseline.unwrap_or("baseline");
    let against = format!("against {}", shortened(compared, NAME));
    let mut rows = vec![
        format!("{:width$}{:43}{against:>25}", "", ""),
        aligned(&HEADER.map(str::to_owned), width),
    ];
    rows.extend(cells(steps, baseline).into_iter().map(|mut row| {
        row[0] = shortened(&row[0], width);
        aligned(&row, width)
    }));
    rows.into_iter().map(|row| row.trim_end().to_owned()).collect()
}

/// The cells of each step's row, in the order of [`HEADER`].
pub fn cells(steps: &[StepReport], baseline: Option<&str>) -> Vec<[String; 11]> {
    let reference = steps.iter().find(|step| Some(step.name.as_str()) == baseline);
    steps
        .iter()
        .map(|step| row(step, reference.filter(|r| r.name != step.name)))
        .collect()
}

fn row(step: &StepReport, baseline: Option<&StepReport>) -> [String; 11] {
    let figure = |name: &str| step.figures.get(name).copied();
    let of_baseline = |name: &str| baseline.and_then(|step| step.figures.get(name).copied());
    let ratio = |name: &str| Some(format!("{:.1}x", of_baseline(name)? / figure(name)?));
    // Times on two devices say nothing of the models.
    let beside = baseline.is_some_and(|baseline| baseline.device == step.device);
    let points = || {
        Some(format!(
            "{:+.2}",
            100.0 * (figure("accuracy")? - of_baseline("accuracy")?)
        ))
    };
    let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        step.name.clone(),
        cell(figure("accuracy").map(|v| format!("{:.2}%", 100.0 * v))),
        cell(figure("parameters").map(count)),
        cell(figure("file_bytes").map(bytes)),
        cell(figure("macs").map(count)),
        cell(figure("latency_ms_p50").map(milliseconds)),
        cell(points()),
        cell(ratio("file_bytes")),
        cell(ratio("latency_ms_p50").filter(|_| beside)),
        cell((step.seconds > 0.0).then(|| duration(step.seconds))),
        step.state.word().to_owned(),
    ]
}

fn aligned([name, a, b, c, d, e, f, g, h, i, j]: &[String; 11], width: usize) -> String {
    format!("{name:width$} {a:>8} {b:>7} {c:>8} {d:>7} {e:>8} {f:>8} {g:>7} {h:>7} {i:>7} {j:>7}")
}

/// How the exported model and the one that simulates it differ, in at most [`WIDTH`](crate::output::WIDTH) columns.
pub fn agreement(step: &StepReport) -> String {
    let figure = |name: &str| step.figures.get(name).copied().unwrap_or(0.0);
    format!(
        "{}: {:.0} of {:.0} predictions change when run in integers (logits by at most {:.1e})",
        shortened(&step.name, NAME),
        figure("predictions_changed"),
        figure("rows"),
        figure("largest_logit_difference"),
    )
}

/// The last line.
pub fn summary(report: &BuildReport) -> String {
    let actions = report.actions.len();
    if report.executed + report.failed + report.skipped == 0 {
        return format!(
            "up to date: nothing to run, {actions} actions cached ({:.2} s)",
            report.seconds
        );
    }
    let mut parts = vec![
        format!("{} executed", report.executed),
        format!("{} cached", report.cached),
    ];
    for (count, word) in [(report.failed, "failed"), (report.skipped, "skipped")] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    format!("{actions} actions: {} ({})", parts.join(", "), duration(report.seconds))
}

/// The first characters of `text`, with a mark where some are left out.
pub fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `13.3M`: three significant digits.
pub fn count(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T"])
}

/// `1.12MB`: decimal units.
pub fn bytes(value: f64) -> String {
    scaled(value, 1000.0, &["B", "kB", "MB", "GB", "TB"])
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = match value {
        v if unit == 0 && v.fract() == 0.0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", units[unit])
}

/// `0.9625`, `1.200e-5`, `1234567`: a figure of any kind, whole or with four significant digits.
pub fn figure(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 && size < 1e15 {
        format!("{value:.0}")
    } else if (1e-3..1e15).contains(&size) {
        let digits = (3 - size.log10().floor() as i64).clamp(0, 9) as usize;
        format!("{value:.digits$}")
    } else {
        format!("{value:.3e}")
    }
}

fn milliseconds(value: f64) -> String {
    let digits = if value < 9.9995 { 3 } else { 1 };
    format!("{value:.digits$}")
}

/// `0.4s`, `83s`, `12m05s`, `3h07m`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1}s"),
        10..100 => format!("{whole}s"),
        100..6000 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orchestrate_recipe::report::StepState;
    use std::collections::BTreeMap;

    fn step(name: &str, figures: [f64; 5]) -> StepReport {
        let names = ["accuracy", "parameters", "file_bytes", "macs", "latency_ms_p50"];
        let figures: BTreeMap<String, f64> = names.map(str::to_owned).into_iter().zip(figures).collect();
        StepReport {
            name: name.into(),
            kind: "train",
            state: StepState::Ran,
            figures,
            seconds: 83.2,
            device: "cpu",
        }
    }

    #[test]
    fn the_table_fits_its_width_and_compares_with_the_baseline() {
        let long = "a-step-with-a-name-of-more-than-a-few-characters";
        let mut failed = step(long, [0.0; 5]);
        failed.figures.clear();
        // What the sum of no floats is.
        failed.seconds = -0.0;
        failed.state = StepState::Failed;
        let rows = steps(
            &[
                step("teacher", [0.9713, 13_321_218.0, 53_293_120.0, 189_928_448.0, 1007.338]),
                step("export", [0.9688, 1_081_602.0, 1_123_674.0, 11_977_728.0, 0.327]),
                failed,
            ],
            Some("teacher"),
        );
        insta::assert_snapshot!(rows.join("\n"), @r"
                                                                           against teacher
        step           accuracy  params    bytes    MACs   p50 ms   points smaller  faster    time   state
        teacher          97.13%   13.3M   53.3MB    190M   1007.3        -       -       -     83s     ran
        export           96.88%   1.08M   1.12MB   12.0M    0.327    -0.25   47.4x 3080.5x     83s     ran
        a-step-with-a…        -       -        -       -        -        -       -       -       -  failed
        ");
        assert!(rows.iter().all(|row| row.chars().count() <= crate::output::WIDTH));
    }

    #[test]
    fn times_on_two_devices_are_not_compared() {
        let mut teacher = step("teacher", [0.5, 4.0, 4.0, 4.0, 8.0]);
        let export = step("export", [0.5, 2.0, 2.0, 2.0, 2.0]);
        let compared = |teacher: &StepReport| {
            let [_, row] = cells(&[teacher.clone(), export.clone()], Some("teacher"))
                .try_into()
                .ok()?;
            Some([row[7].clone(), row[8].clone()])
        };
        assert_eq!(compared(&teacher), Some(["2.0x", "4.0x"].map(str::to_owned)));
        teacher.device = "cuda";
        assert_eq!(compared(&teacher), Some(["2.0x", "-"].map(str::to_owned)));
    }

    #[test]
    fn the_agreement_fits_the_width() {
        let mut export = step("a-step-with-14", [0.0; 5]);
        for (name, value) in [
            ("predictions_changed", 6e4),
            ("rows", 6e4),
            ("largest_logit_difference", 9.3e-4),
        ] {
            export.figures.insert(name.into(), value);
        }
        let line = agreement(&export);
        assert_eq!(
            line,
            "a-step-with-14: 60000 of 60000 predictions change when run in integers (logits by at most 9.3e-4)"
        );
        assert!(line.chars().count() <= crate::output::WIDTH);
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(
            [0.0, 0.9625, 1234.56, 1e-5, 7.0].map(figure).join(" "),
            "0 0.9625 1235 1.000e-5 7"
        );
        assert_eq!(
            [0.0, 7.0, 999.0, 1000.0, 12_345.0, 999_600.0, 5.3e9]
                .map(count)
                .join(" "),
            "0 7 999 1.00k 12.3k 1.00M 5.30G"
        );
        assert_eq!(
            [0.04, 9.96, 99.4, 100.0, 5999.0, 7265.0].map(duration).join(" "),
            "0.0s 10s 99s 1m40s 99m59s 2h01m"
        );
    }
}
