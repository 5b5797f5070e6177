//! The fuzzer: libFuzzer over the target that `ORCHESTRATE_FUZZ_TARGET` names, in the folder `ORCHESTRATE_FUZZ_FOLDER`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orchestrate_fuzz::Target;
use std::path::PathBuf;
use std::sync::LazyLock;

static TARGET: LazyLock<(Target, PathBuf)> = LazyLock::new(|| {
    let name = std::env::var("ORCHESTRATE_FUZZ_TARGET").expect("ORCHESTRATE_FUZZ_TARGET names a target");
    let target = Target::ALL.into_iter().find(|target| target.name() == name);
    let folder = std::env::var_os("ORCHESTRATE_FUZZ_FOLDER").expect("ORCHESTRATE_FUZZ_FOLDER is a folder to write to");
    (target.expect("there is a target of that name"), folder.into())
});

fuzz_target!(|bytes: &[u8]| {
    let (target, folder) = &*TARGET;
    target.read(bytes, folder);
});
