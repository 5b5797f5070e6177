//! Models that were trained elsewhere: opened as when a recipe is read, and taken as they are on two texts.

use orchestrate_ml::artifact::{Files, files_of_folder};
use orchestrate_ml::checkpoint::Interruption;
use orchestrate_ml::data::DataSpec;
use orchestrate_ml::data::spec::TextFiles;
use orchestrate_ml::pretrained::{Classifier, Pretrained, PretrainedSettings, files_of};
use orchestrate_ml::steps::{Context, TrainSettings, prepare_data, train};
use orchestrate_ml::training::Training;
use orchestrate_recipe::open_device;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad\n";
const ROWS: &str = "sentence\tlabel\ngood\t1\nbad\t0\n";

/// The texts, prepared once.
static DATA: LazyLock<Files> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("there is a folder for a few texts").keep();
    let file = |name: &str, text: &str| -> PathBuf { crate::file(&folder, name, text.as_bytes()) };
    let rows = file("rows.tsv", ROWS);
    let files = [
        ("train", rows.clone()),
        ("test", rows),
        ("vocab", file("vocab.txt", VOCABULARY)),
    ];
    let files = files.map(|(role, path)| (role.to_owned(), path)).into();
    let out = folder.join("data");
    std::fs::create_dir(&out).expect("the folder can be written to");
    prepare_data(&DataSpec::TextFiles(TextFiles::default()), &files, None, &out).expect("the texts are well");
    files_of_folder(&out).expect("they were written")
});

pub fn read(bytes: &[u8], folder: &Path) {
    if crate::model_files(bytes, folder).is_none() {
        return;
    }
    let Ok(files) = files_of(folder) else { return };
    let Ok(pretrained) = Pretrained::open(&files) else {
        return;
    };
    let out = folder.join("out");
    std::fs::create_dir_all(&out).expect("the folder can be written to");
    for classifier in [Classifier::Keep, Classifier::New] {
        let settings = PretrainedSettings {
            classifier,
            classes: None,
        };
        let Ok(settings) = pretrained.resolve(settings) else {
            continue;
        };
        let settings = TrainSettings {
            model: pretrained.spec(),
            pretrained: Some(settings),
            training: Training::NONE,
        };
        let device = open_device("cpu").expect("there is always a CPU");
        let context = Context {
            device: &device,
            seed: 1,
            watch: &|_| {},
            interruption: Interruption::NONE,
        };
        drop(train(&DATA, &files, &settings, &context, &out));
    }
}
