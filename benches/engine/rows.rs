//! The rows: each a piece of work, ours, a peer's, their ratio and the target.

use crate::Outcome;
use crate::peers::Peer;
use crate::race::{Racer, numbers, race, say};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const GIBIBYTE: u64 = 1 << 30;
const ROUNDS: usize = 7;

/// The folder of what is to be deleted.
const ASIDE: &str = "aside";

/// Where everything lies.
struct Place {
    folder: PathBuf,
    /// The folder of snakemake's and DVC's programs.
    programs: PathBuf,
    ours: PathBuf,
}

/// The rows that were told.
struct Table {
    /// Whether all targets were met so far.
    is_met: bool,
}

/// The parts of the table.
const PARTS: [&str; 7] = ["noop-10", "noop-1000", "cold", "plans", "input", "publish", "worker"];

/// Measures in `folder` the rows of the `wanted` parts, all if none is named; tells whether every target was met.
pub fn all(folder: &Path, programs: &Path, wanted: &[&str]) -> Outcome<bool> {
    if let Some(unknown) = wanted.iter().find(|part| !PARTS.contains(part)) {
        return Err(format!("no part {unknown}; there are {}", PARTS.join(", ")).into());
    }
    fs::create_dir_all(folder)?;
    let place = Place {
        folder: folder.to_owned(),
        programs: programs.to_owned(),
        ours: std::env::current_exe()?,
    };
    let mut table = Table { is_met: true };
    say(&format!(
        "{:<44} {:>14} {:>24} {:>7}  target",
        "work", "ours", "peer", "ratio"
    ));
    for part in PARTS {
        if !wanted.is_empty() && !wanted.contains(&part) {
            continue;
        }
        match part {
            "noop-10" => table.nothing_to_do(&place, 10)?,
            "noop-1000" => table.nothing_to_do(&place, 1000)?,
            "cold" => table.cold(&place, 1000)?,
            "plans" => table.plans(&place)?,
            "input" => table.input(&place)?,
            "publish" => table.taking_in(&place)?,
            _ => table.worker(&place)?,
        }
    }
    Ok(table.is_met)
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn ours(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.ours);
        command.args(arguments).current_dir(&self.folder);
        command
    }

    /// Takes the folder `name` out of the way, to be deleted later.
    fn put_aside(&self, name: &str) -> Outcome<()> {
        let (folder, aside) = (self.path(name), self.path(ASIDE));
        if folder.exists() {
            fs::create_dir_all(&aside)?;
            let number = fs::read_dir(&aside)?.count();
            fs::rename(folder, aside.join(number.to_string()))?;
        }
        Ok(())
    }

    /// A shell's `script`, to which `file` is `$1`.
    fn shell(&self, script: &str, file: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(file).current_dir(&self.folder);
        command
    }

    fn peer(&self, peer: Peer, folder: &str) -> Racer<'_> {
        let folder = self.path(folder);
        Racer::new(move || peer.command(&folder, &self.programs))
    }
}

impl Table {
    /// A row that compares two times.
    fn row(&mut self, work: &str, ours: f64, peer: (&str, f64), bound: f64, target: &str) {
        let (name, theirs) = peer;
        let ratio = ours / theirs;
        let peer = format!("{name} {}", time(theirs));
        self.tell(work, &time(ours), &peer, &format!("{ratio:.3}"), target, ratio <= bound);
    }

    /// A row that compares with a peer and holds nothing against it.
    fn shown(&mut self, work: &str, ours: f64, peer: (&str, f64)) {
        self.row(work, ours, peer, f64::INFINITY, "none");
    }

    /// A row without a peer.
    fn bound(&mut self, work: &str, value: f64, text: &str, bound: f64, target: &str) {
        self.tell(work, text, "-", "-", target, value <= bound);
    }

    fn tell(&mut self, work: &str, ours: &str, peer: &str, ratio: &str, target: &str, is_met: bool) {
        let verdict = if is_met { "met" } else { "NOT MET" };
        self.is_met &= is_met;
        say(&format!(
            "{work:<44} {ours:>14} {peer:>24} {ratio:>7}  {target}: {verdict}"
        ));
    }

    /// Builds that find everything done.
    fn nothing_to_do(&mut self, place: &Place, count: usize) -> Outcome<()> {
        let (store, count_text) = (format!("store-noop-{count}"), count.to_string());
        let ours = Racer::new(|| place.ours(&["build", &store, &count_text, "here"]));
        ours.time()?;
        let racer = |peer: Peer| {
            let name = format!("{}-noop-{count}", peer.name());
            let racer = place.peer(peer, &name);
            let done = place.path(&name).join(format!("out{}", count - 1));
            if !done.exists() {
                peer.prepare(&place.path(&name), count, &place.programs)?;
                let seconds = racer.time()?;
                fs::write(place.path(&cold_time(peer, count)), seconds.to_string())?;
            }
            Ok::<_, Box<dyn std::error::Error>>(racer)
        };
        let work = format!("build of {count} steps, nothing to do");
        let fast = race(&[&ours, &racer(Peer::Ninja)?], 3 * ROUNDS)?;
        self.row(&work, fast[0], ("ninja", fast[1]), 3.0, "at most 3");
        let slow = [&racer(Peer::Snakemake)?, &racer(Peer::Dvc)?];
        let slow = race(&slow, if count > 100 { 1 } else { 3 })?;
        self.shown(&work, fast[0], ("snakemake", slow[0]));
        self.row(&work, fast[0], ("dvc", slow[1]), 0.01, "at most 0.01");
        Ok(())
    }

    /// Builds that find nothing done.
    fn cold(&mut self, place: &Place, count: usize) -> Outcome<()> {
        let (store, count_text) = ("store-cold", count.to_string());
        // What is deleted just before slows down making files on some file systems: it is deleted afterwards.
        let folder = place.path("ninja-cold");
        let ninja = place.peer(Peer::Ninja, "ninja-cold").after(|| {
            place.put_aside("ninja-cold")?;
            Peer::Ninja.prepare(&folder, count, &place.programs)
        });
        let ours = Racer::new(|| place.ours(&["build", store, &count_text, "here"]));
        let ours = ours.after(|| place.put_aside(store));
        let times = race(&[&ours, &ninja], ROUNDS)?;
        remove(&place.path(ASIDE))?;
        let work = format!("build of {count} trivial steps, all to do");
        self.row(&work, times[0], ("ninja", times[1]), 3.0, "at most 3");
        // They take up to many minutes: once is enough.
        for peer in [Peer::Snakemake, Peer::Dvc] {
            if let Ok(seconds) = fs::read_to_string(place.path(&cold_time(peer, count))) {
                self.shown(&work, times[0], (peer.name(), seconds.trim().parse()?));
            }
        }
        Ok(())
    }

    /// Plans that find nothing known, and plans that find everything known.
    fn plans(&mut self, place: &Place) -> Outcome<()> {
        for shape in ["wide", "chain", "tree", "layers"] {
            let (mut first, mut last) = (f64::NAN, f64::NAN);
            for count in ["1000", "10000", "100000"] {
                let runs: Vec<Vec<f64>> = (0..ROUNDS)
                    .map(|_| numbers(place.ours(&["plan", "store-plan", count, shape])))
                    .collect::<Outcome<_>>()?;
                let seconds = least(runs.iter().map(|run| run[0]));
                let mebibytes = least(runs.iter().map(|run| run[1]));
                let work = format!("plan of {count} actions, {shape}");
                let text = format!("{} {mebibytes:.0} MiB", time(seconds));
                self.bound(&work, seconds.max(mebibytes / 250.0), &text, 2.0, "2 s, 500 MiB");
                if count == "1000" {
                    first = seconds;
                }
                last = seconds;
            }
            let growth = last / first / 100.0;
            let work = format!("growth of that, per action, {shape}");
            self.bound(&work, growth, &format!("{growth:.2}x"), 2.0, "at most 2");
        }
        Ok(())
    }

    /// An external input of 1 GiB, hashed and unchanged.
    fn input(&mut self, place: &Place) -> Outcome<()> {
        let file = big_file(place)?;
        let name = file.display().to_string();
        let hashing = Racer::new(|| place.ours(&["input", "store-input", &name]));
        let hashing = hashing.after(|| remove(&place.path("store-input")));
        let b3sum = Racer::new(|| place.shell("exec b3sum \"$1\"", &file));
        let times = race(&[&hashing, &b3sum], ROUNDS)?;
        let target = "at most 1.25";
        self.row("hash of an input of 1 GiB", times[0], ("b3sum", times[1]), 1.25, target);
        // Times within a coarse file system's tick are not believed.
        std::thread::sleep(std::time::Duration::from_secs(3));
        let once = || Ok(numbers(place.ours(&["input", "store-input", &name]))?[0]);
        once()?;
        let unchanged = (0..ROUNDS).map(|_| once()).collect::<Outcome<Vec<f64>>>()?;
        let unchanged = least(unchanged.into_iter());
        self.bound("the same input, unchanged", unchanged, &time(unchanged), 0.002, "2 ms");
        Ok(())
    }

    /// An artifact of 1 GiB, taken into the store.
    fn taking_in(&mut self, place: &Place) -> Outcome<()> {
        let file = big_file(place)?;
        let ours = Racer::new(|| place.ours(&["publish", "store-publish", "big"]));
        let ours = ours.after(|| remove(&place.path("store-publish")));
        let script = "mkdir copy && cp --reflink=never \"$1\" copy/file && sync copy/file";
        let copy = Racer::new(|| place.shell(script, &file)).after(|| remove(&place.path("copy")));
        let b3sum = Racer::new(|| place.shell("exec b3sum \"$1\"", &file));
        let times = race(&[&ours, &copy, &b3sum], 3)?;
        remove(&place.path("store-publish"))?;
        remove(&place.path("copy"))?;
        let peer = ("cp, sync, b3sum", times[1] + times[2]);
        let allowed = times[1] + 1.5 * times[2];
        let work = "an artifact of 1 GiB into the store";
        self.row(work, times[0], peer, allowed / peer.1, "cp, sync, 1.5 b3sum");
        Ok(())
    }

    /// Actions in worker processes, one after another.
    fn worker(&mut self, place: &Place) -> Outcome<()> {
        const ACTIONS: usize = 50;
        let count = ACTIONS.to_string();
        let racer = Racer::new(|| place.ours(&["build", "store-workers", &count, "workers"]));
        let racer = racer.after(|| place.put_aside("store-workers"));
        let times = (0..ROUNDS).map(|_| racer.time()).collect::<Outcome<Vec<f64>>>()?;
        remove(&place.path(ASIDE))?;
        let each = least(times.into_iter()) / ACTIONS as f64;
        self.bound("an action in a worker process", each, &time(each), 0.03, "30 ms");
        Ok(())
    }
}

/// Where the seconds are kept that a peer's first build took.
fn cold_time(peer: Peer, count: usize) -> String {
    format!("{}-cold-{count}.seconds", peer.name())
}

/// A file of 1 GiB that no file system finds easy.
fn big_file(place: &Place) -> Outcome<PathBuf> {
    let folder = place.path("big");
    let path = folder.join("file");
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == GIBIBYTE) {
        return Ok(path);
    }
    fs::create_dir_all(&folder)?;
    let mut file = fs::File::create(&path)?;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut chunk = Vec::with_capacity(1 << 20);
    for _ in 0..GIBIBYTE >> 20 {
        chunk.clear();
        while chunk.len() < 1 << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&chunk)?;
    }
    Ok(path)
}

fn remove(folder: &Path) -> Outcome<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

/// The least of several times of ours that no peer's is compared with: others that use the machine only add to it.
fn least(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, f64::min)
}

/// Seconds for people.
fn time(seconds: f64) -> String {
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}
