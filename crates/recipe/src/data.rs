//! `[data.NAME]`: where rows come from.

use crate::diagnostic::Problem;
use crate::node::Text;
use crate::path::{Folders, file};
use crate::recipe::Data;
use crate::section::Section;
use crate::source::Place;
use orchestrate_ml::data::DataSpec;
use orchestrate_ml::data::spec::{Digits, IdxFiles, Reviews, TextFiles};
use orchestrate_ml::data::text_file::TextFormat;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const MOST_ROWS: usize = 1_000_000;
const LEAST_VOCABULARY: usize = 64;
const MOST_VOCABULARY: usize = 1_000_000;
const LEAST_LENGTH: usize = 3;
const MOST_LENGTH: usize = 8192;

#[derive(Debug, Clone, Copy)]
enum Source {
    Reviews,
    Digits,
    Text,
    Idx,
}

/// Reads a data set.
pub(crate) fn read(mut section: Section, folders: &Folders) -> Option<Data> {
    let source = section.choice(
        "source",
        &[
            ("builtin:reviews", Source::Reviews),
            ("builtin:digits", Source::Digits),
            ("text", Source::Text),
            ("idx", Source::Idx),
        ],
    );
    section.require("source", "\"builtin:reviews\"");
    let Some(source) = source else {
        return section.given_up();
    };
    let mut files = BTreeMap::new();
    let spec = match source {
        Source::Reviews => reviews(&mut section, folders, &mut files),
        Source::Digits => digits(&mut section),
        Source::Text => text(&mut section, folders, &mut files),
        Source::Idx => idx(&mut section, folders, &mut files),
    };
    section.done(|| Some(Data { spec: spec?, files }))
}

fn reviews(section: &mut Section, folders: &Folders, files: &mut BTreeMap<String, PathBuf>) -> Option<DataSpec> {
    section.turns_out_to_be("a data set of `builtin:reviews`");
    let default = Reviews::default();
    let spec = Reviews {
        train_rows: section.whole("train_rows", 1, MOST_ROWS).unwrap_or(default.train_rows),
        test_rows: section.whole("test_rows", 1, MOST_ROWS).unwrap_or(default.test_rows),
        data_seed: section.seed("data_seed").unwrap_or(default.data_seed),
        vocab_size: vocab_size(section).unwrap_or(default.vocab_size),
        max_length: max_length(section).unwrap_or(default.max_length),
        lowercase: section.flag("lowercase").unwrap_or(default.lowercase),
    };
    vocabulary_files(section, folders, files);
    Some(DataSpec::Reviews(spec))
}

fn digits(section: &mut Section) -> Option<DataSpec> {
    section.turns_out_to_be("a data set of `builtin:digits`");
    let default = Digits::default();
    Some(DataSpec::Digits(Digits {
        train_rows: section.whole("train_rows", 1, MOST_ROWS).unwrap_or(default.train_rows),
        test_rows: section.whole("test_rows", 1, MOST_ROWS).unwrap_or(default.test_rows),
        data_seed: section.seed("data_seed").unwrap_or(default.data_seed),
    }))
}

fn text(section: &mut Section, folders: &Folders, files: &mut BTreeMap<String, PathBuf>) -> Option<DataSpec> {
    section.turns_out_to_be("a data set of `text` files");
    for (role, example) in [("train", "\"data/train.tsv\""), ("test", "\"data/dev.tsv\"")] {
        let path = file(section, role, folders);
        section.require(role, example);
        files.extend(path.map(|path| (role.to_owned(), path)));
    }
    let default = TextFiles::default();
    let column = |found: Option<(&Text, Place)>| found.map(|(text, _)| text.value.clone());
    let text_column = column(section.text("text_column")).unwrap_or(default.text_column);
    let label_column = column(section.text("label_column")).unwrap_or(default.label_column);
    let format = section.choice(
        "format",
        &[
            ("tsv", TextFormat::Tsv),
            ("csv", TextFormat::Csv),
            ("jsonl", TextFormat::Jsonl),
        ],
    );
    let spec = TextFiles {
        text_column,
        label_column,
        format: format.or_else(|| format_of(section, files)),
        vocab_size: vocab_size(section).unwrap_or(default.vocab_size),
        max_length: max_length(section).unwrap_or(default.max_length),
        lowercase: section.flag("lowercase").unwrap_or(default.lowercase),
        max_train_rows: section.whole("max_train_rows", 1, MOST_ROWS),
        max_test_rows: section.whole("max_test_rows", 1, MOST_ROWS),
    };
    vocabulary_files(section, folders, files);
    Some(DataSpec::TextFiles(spec))
}

fn idx(section: &mut Section, folders: &Folders, files: &mut BTreeMap<String, PathBuf>) -> Option<DataSpec> {
    section.turns_out_to_be("a data set of `idx` files");
    let roles = [
        ("train_images", "\"data/train-images-idx3-ubyte.gz\""),
        ("train_labels", "\"data/train-labels-idx1-ubyte.gz\""),
        ("test_images", "\"data/t10k-images-idx3-ubyte.gz\""),
        ("test_labels", "\"data/t10k-labels-idx1-ubyte.gz\""),
    ];
    for (role, example) in roles {
        let path = file(section, role, folders);
        section.require(role, example);
        files.extend(path.map(|path| (role.to_owned(), path)));
    }
    Some(DataSpec::IdxFiles(IdxFiles {
        max_train_rows: section.whole("max_train_rows", 1, MOST_ROWS),
        max_test_rows: section.whole("max_test_rows", 1, MOST_ROWS),
    }))
}

fn vocab_size(section: &mut Section) -> Option<usize> {
    section.whole("vocab_size", LEAST_VOCABULARY, MOST_VOCABULARY)
}

fn max_length(section: &mut Section) -> Option<usize> {
    section.whole("max_length", LEAST_LENGTH, MOST_LENGTH)
}

fn vocabulary_files(section: &mut Section, folders: &Folders, files: &mut BTreeMap<String, PathBuf>) {
    for role in ["tokenizer", "vocab"] {
        let path = file(section, role, folders);
        files.extend(path.map(|path| (role.to_owned(), path)));
    }
    if let (Some(tokenizer), Some(vocab)) = (section.place_of("tokenizer"), section.place_of("vocab")) {
        section.fault(
            Problem::error(
                "`tokenizer` and `vocab` are both set",
                vocab,
                "a vocab.txt",
                "keep one: a tokenizer.json has its vocabulary in it",
            )
            .and(tokenizer, "a tokenizer.json"),
        );
    }
}

/// The layout that the files' extensions name: made explicit, since the paths themselves do not enter the settings.
fn format_of(section: &mut Section, files: &BTreeMap<String, PathBuf>) -> Option<TextFormat> {
    let of = |role: &str| files.get(role).map(|path| extension_format(path));
    let (train, test) = (of("train")?, of("test")?);
    if section.has("format") || (train.is_some() && train == test) {
        return train;
    }
    let unclear = if train.is_none() { "train" } else { "test" };
    let message = if train.is_some() && test.is_some() {
        "the files of `train` and `test` are of different formats".to_owned()
    } else {
        format!("the extension of `{unclear}` does not say its format")
    };
    let place = section.place_of(unclear).unwrap_or_else(|| section.place());
    section.fault(Problem::error(
        message,
        place,
        "which format?",
        "add `format = \"tsv\"`, `\"csv\"` or `\"jsonl\"`: it is that of both files",
    ));
    None
}

fn extension_format(path: &Path) -> Option<TextFormat> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    [
        (TextFormat::Tsv, ["tsv", "tab"].as_slice()),
        (TextFormat::Csv, &["csv"]),
        (TextFormat::Jsonl, &["jsonl", "ndjson"]),
    ]
    .into_iter()
    .find(|(_, extensions)| extensions.contains(&extension.as_str()))
    .map(|(format, _)| format)
}
