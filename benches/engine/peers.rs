//! The same trivial graphs in the peers' words: a tree of files, each made by a `touch`.

use crate::Outcome;
use crate::graphs::Shape;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// ninja.
    Ninja,
    /// snakemake.
    Snakemake,
    /// DVC.
    Dvc,
}

impl Peer {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ninja => "ninja",
            Self::Snakemake => "snakemake",
            Self::Dvc => "dvc",
        }
    }

    /// Makes `folder` anew, with a description of `count` trivial steps.
    pub fn prepare(self, folder: &Path, count: usize, programs: &Path) -> Outcome<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let (name, text) = match self {
            Self::Ninja => ("build.ninja", ninja(count)?),
            Self::Snakemake => ("Snakefile", snakemake(count)?),
            Self::Dvc => ("dvc.yaml", dvc(count)?),
        };
        fs::write(folder.join(name), text)?;
        if self == Self::Dvc {
            let program = programs.join("dvc");
            for arguments in [&["init", "--no-scm", "-q"][..], &["config", "core.analytics", "false"]] {
                let status = Command::new(&program).args(arguments).current_dir(folder).status()?;
                if !status.success() {
                    return Err("dvc could not be set up".into());
                }
            }
        }
        Ok(())
    }

    /// What builds all in `folder`.
    pub fn command(self, folder: &Path, programs: &Path) -> Command {
        let (program, arguments): (PathBuf, &[&str]) = match self {
            Self::Ninja => ("ninja".into(), &[]),
            Self::Snakemake => (programs.join("snakemake"), &["--cores", "4", "-q", "all"]),
            Self::Dvc => (programs.join("dvc"), &["repro", "-q"]),
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder);
        command
    }
}

/// What the step at `at` reads, as a file's name.
fn read_by(at: usize) -> Option<String> {
    Shape::Tree.reads(at).first().map(|from| format!("out{from}"))
}

fn ninja(count: usize) -> Outcome<String> {
    let mut text = "rule touch\n  command = true > $out\n".to_owned();
    for at in 0..count {
        writeln!(text, "build out{at}: touch {}", read_by(at).unwrap_or_default())?;
    }
    Ok(text)
}

fn snakemake(count: usize) -> Outcome<String> {
    let mut text = format!("rule all:\n    input: [f'out{{i}}' for i in range({count})]\n");
    for at in 0..count {
        let input = read_by(at).map_or_else(String::new, |file| format!("    input: '{file}'\n"));
        writeln!(
            text,
            "rule r{at}:\n{input}    output: 'out{at}'\n    shell: 'true > {{output}}'"
        )?;
    }
    Ok(text)
}

fn dvc(count: usize) -> Outcome<String> {
    let mut text = "stages:\n".to_owned();
    for at in 0..count {
        let input = read_by(at).map_or_else(String::new, |file| format!("    deps: [{file}]\n"));
        writeln!(
            text,
            "  s{at}:\n    cmd: echo {at} > out{at}\n{input}    outs: [out{at}]"
        )?;
    }
    Ok(text)
}
