//! The way from a data set's specification to [`Prepared`].
//!
//! Files come by role, already resolved to paths: `train` and `test` for text, `train_images`, `train_labels`,
//! `test_images` and `test_labels` for IDX, and for any text optionally `tokenizer` (a tokenizer.json) or `vocab` (a
//! vocab.txt), without which a vocabulary is learnt from the training texts. Paths and times do not enter the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::digits::{self, DigitsSpec};
use super::error::listed;
use super::reviews::{self, ReviewsSpec};
use super::spec::{Digits, IdxFiles, Reviews, TextFiles};
use super::text_file::{self, Columns, LabelNames};
use super::tokenizer::LEAST_LENGTH;
use super::{
    DataError, DataSpec, EncodedSplit, ImageRows, ImageSplit, Prepared, Splits, Task, TextRows, TextSplit, Tokenizer,
    idx,
};

const MOST_ROWS: usize = 1_000_000;
const LEAST_VOCAB: usize = 64;
const MOST_VOCAB: usize = 1_000_000;
pub(crate) const LARGEST_LENGTH: usize = 8192;

/// Makes or reads the rows, checks them, and turns them into numbers.
///
/// With `like`, the rows are turned into numbers as that task's are, with its tokenizer or normalization and its classes, so
/// that a model of that task can read them.
pub fn prepare(spec: &DataSpec, files: &BTreeMap<String, PathBuf>, like: Option<&Task>) -> Result<Prepared, DataError> {
    match spec {
        DataSpec::Reviews(settings) => prepare_reviews(settings, files, like),
        DataSpec::Digits(settings) => prepare_digits(settings, like),
        DataSpec::TextFiles(settings) => prepare_text_files(settings, files, like),
        DataSpec::IdxFiles(settings) => prepare_idx(settings, files, like),
    }
}

fn prepare_reviews(
    settings: &Reviews,
    files: &BTreeMap<String, PathBuf>,
    like: Option<&Task>,
) -> Result<Prepared, DataError> {
    check_rows(settings.train_rows, settings.test_rows)?;
    let (train, test, seed) = (settings.train_rows, settings.test_rows, settings.data_seed);
    let splits = reviews::generate(&ReviewsSpec { train, test, seed });
    let labels = reviews::LABELS.map(str::to_owned).to_vec();
    if let Some(task) = like.filter(|task| task.labels() != labels) {
        return Err(other_classes(task, &labels));
    }
    let Reviews {
        vocab_size,
        max_length,
        lowercase,
        ..
    } = *settings;
    encode(
        splits,
        labels,
        files,
        TokenSettings {
            vocab_size,
            max_length,
            lowercase,
        },
        like,
    )
}

fn prepare_text_files(
    settings: &TextFiles,
    files: &BTreeMap<String, PathBuf>,
    like: Option<&Task>,
) -> Result<Prepared, DataError> {
    let (train_file, test_file) = (file(files, "train")?, file(files, "test")?);
    let columns = Columns {
        text: &settings.text_column,
        label: &settings.label_column,
    };
    let mut train = text_file::read(train_file, settings.format, columns)?;
    let mut test = text_file::read(test_file, settings.format, columns)?;
    train.truncate(settings.max_train_rows);
    test.truncate(settings.max_test_rows);
    let classes = match like {
        Some(task) => LabelNames::given(task.labels()),
        None => LabelNames::from_training(train_file, &train)?,
    };
    let splits = Splits {
        train: TextRows {
            labels: classes.ids(train_file, &train)?,
            texts: train.texts,
        },
        test: TextRows {
            labels: classes.ids(test_file, &test)?,
            texts: test.texts,
        },
    };
    let TextFiles {
        vocab_size,
        max_length,
        lowercase,
        ..
    } = *settings;
    encode(
        splits,
        classes.names().to_vec(),
        files,
        TokenSettings {
            vocab_size,
            max_length,
            lowercase,
        },
        like,
    )
}

/// The settings that every text source has.
#[derive(Clone, Copy)]
struct TokenSettings {
    vocab_size: usize,
    max_length: usize,
    lowercase: bool,
}

fn encode(
    splits: Splits<TextRows>,
    labels: Vec<String>,
    files: &BTreeMap<String, PathBuf>,
    settings: TokenSettings,
    like: Option<&Task>,
) -> Result<Prepared, DataError> {
    check("vocab_size", settings.vocab_size, LEAST_VOCAB, MOST_VOCAB)?;
    check("max_length", settings.max_length, LEAST_LENGTH, LARGEST_LENGTH)?;
    let (tokenizer, max_length) = match like {
        Some(Task::Text {
            tokenizer, max_length, ..
        }) => (tokenizer.clone(), *max_length),
        Some(task @ Task::Image { .. }) => return Err(other_classes(task, &labels)),
        None => (tokenizer_of(&splits.train.texts, files, settings)?, settings.max_length),
    };
    let split = |rows: TextRows| -> Result<EncodedSplit, DataError> {
        let encoded = tokenizer.encode_all(&rows.texts, max_length)?;
        TextSplit::from_rows(&encoded, rows.labels).map(EncodedSplit::Text)
    };
    let (train, test) = (split(splits.train)?, split(splits.test)?);
    Ok(Prepared {
        task: Task::Text {
            tokenizer,
            max_length,
            labels,
        },
        train,
        test,
    })
}

/// The tokenizer that a file gives, or one that is learnt from the training texts.
fn tokenizer_of(
    texts: &[String],
    files: &BTreeMap<String, PathBuf>,
    settings: TokenSettings,
) -> Result<Tokenizer, DataError> {
    match tokenizer_of_files(files, settings.lowercase)? {
        Some(tokenizer) => Ok(tokenizer),
        None => Tokenizer::learn_wordpiece(texts, settings.vocab_size, settings.lowercase),
    }
}

/// The tokenizer in the files of the roles `tokenizer` or `vocab`, the latter of which `lowercase` is for; nothing if there is
/// neither.
fn tokenizer_of_files(files: &BTreeMap<String, PathBuf>, lowercase: bool) -> Result<Option<Tokenizer>, DataError> {
    match (files.get("tokenizer"), files.get("vocab")) {
        (Some(file), None) => Tokenizer::from_tokenizer_json(&file.display().to_string(), &bytes(file)?).map(Some),
        (None, Some(file)) => {
            Tokenizer::from_vocab_txt(&file.display().to_string(), &bytes(file)?, lowercase).map(Some)
        }
        (None, None) => Ok(None),
        (Some(_), Some(vocab)) => Err(DataError::BadSetting {
            field: "vocab",
            found: vocab.display().to_string(),
            expected: "absent where `tokenizer` is given".to_owned(),
        }),
    }
}

/// The tokenizer that the texts of `spec` will be cut with, where that is known before they are read.
///
/// # Errors
/// If the file of the vocabulary cannot be read or is none.
pub fn given_tokenizer(spec: &DataSpec, files: &BTreeMap<String, PathBuf>) -> Result<Option<Tokenizer>, DataError> {
    match spec {
        DataSpec::Reviews(Reviews { lowercase, .. }) | DataSpec::TextFiles(TextFiles { lowercase, .. }) => {
            tokenizer_of_files(files, *lowercase)
        }
        DataSpec::Digits(_) | DataSpec::IdxFiles(_) => Ok(None),
    }
}

fn other_classes(task: &Task, labels: &[String]) -> DataError {
    DataError::OtherTask {
        wanted: listed(task.labels().iter().map(String::as_str)),
        found: listed(labels.iter().map(String::as_str)),
    }
}

fn prepare_digits(settings: &Digits, like: Option<&Task>) -> Result<Prepared, DataError> {
    check_rows(settings.train_rows, settings.test_rows)?;
    let (train, test, seed) = (settings.train_rows, settings.test_rows, settings.data_seed);
    let splits = digits::generate(&DigitsSpec { train, test, seed });
    image_data(splits, digits::LABELS.map(str::to_owned).to_vec(), like)
}

fn prepare_idx(
    settings: &IdxFiles,
    files: &BTreeMap<String, PathBuf>,
    like: Option<&Task>,
) -> Result<Prepared, DataError> {
    let (train_labels, test_labels) = (file(files, "train_labels")?, file(files, "test_labels")?);
    let test_images = file(files, "test_images")?;
    let mut train = idx::read_pair(file(files, "train_images")?, train_labels)?;
    let mut test = idx::read_pair(test_images, test_labels)?;
    train.truncate(settings.max_train_rows);
    test.truncate(settings.max_test_rows);
    if (train.width, train.height) != (test.width, test.height) {
        return Err(DataError::SizeMismatch {
            file: test_images.to_owned(),
            width: train.width,
            height: train.height,
            found_width: test.width,
            found_height: test.height,
        });
    }
    let largest = train
        .labels
        .iter()
        .copied()
        .max()
        .expect("an IDX file of no rows is refused");
    if largest == 0 {
        return Err(DataError::OneClass {
            file: train_labels.to_owned(),
            label: "0".to_owned(),
        });
    }
    if let Some((row, &label)) = test.labels.iter().enumerate().find(|&(_, &label)| label > largest) {
        return Err(DataError::LabelOutOfRange {
            file: test_labels.to_owned(),
            row,
            label,
            largest,
        });
    }
    let names = (0..=largest).map(|class| class.to_string()).collect();
    image_data(Splits { train, test }, names, like)
}

fn image_data(splits: Splits<ImageRows>, labels: Vec<String>, like: Option<&Task>) -> Result<Prepared, DataError> {
    let Splits { train, test } = splits;
    let (width, height, channels) = (train.width, train.height, train.channels);
    let task = match like {
        None => {
            let (mean, std) = moments(&train.pixels);
            Task::Image {
                width,
                height,
                channels,
                mean,
                std,
                labels,
            }
        }
        // A data set may lack the last classes: a few rows need not have them all.
        Some(task) if task.is_of_images(width, height, channels) && task.labels().starts_with(&labels) => task.clone(),
        Some(task) => return Err(other_classes(task, &labels)),
    };
    let split = |rows: ImageRows| {
        let shape = [rows.channels, rows.height, rows.width];
        EncodedSplit::Image(ImageSplit {
            shape,
            pixels: rows.pixels,
            labels: rows.labels,
        })
    };
    Ok(Prepared {
        task,
        train: split(train),
        test: split(test),
    })
}

/// Mean and standard deviation of pixels scaled to 0 to 1; the deviation of a constant is given as 1. Sums are integers,
/// so their order does not matter.
fn moments(pixels: &[u8]) -> (f32, f32) {
    let count = pixels.len() as f64;
    let mean = pixels.iter().map(|&pixel| u64::from(pixel)).sum::<u64>() as f64 / count;
    let square = pixels.iter().map(|&pixel| u64::from(pixel).pow(2)).sum::<u64>() as f64 / count;
    let variance = square - mean * mean;
    let deviation = if variance > 0.0 { variance.sqrt() / 255.0 } else { 1.0 };
    ((mean / 255.0) as f32, deviation as f32)
}

fn file<'a>(files: &'a BTreeMap<String, PathBuf>, role: &str) -> Result<&'a Path, DataError> {
    files
        .get(role)
        .map(PathBuf::as_path)
        .ok_or_else(|| DataError::MissingFile { role: role.to_owned() })
}

fn bytes(file: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(file).map_err(DataError::unreadable(file))
}

fn check_rows(train: usize, test: usize) -> Result<(), DataError> {
    check("train_rows", train, 1, MOST_ROWS)?;
    check("test_rows", test, 1, MOST_ROWS)
}

fn check(field: &'static str, found: usize, least: usize, most: usize) -> Result<(), DataError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(DataError::BadSetting {
        field,
        found: found.to_string(),
        expected: format!("{least} to {most}"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_data;
    use super::*;

    fn parse(text: &str) -> Result<DataSpec, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let refused = |spec: &str| {
            prepare(&parse(spec).unwrap(), &BTreeMap::new(), None)
                .unwrap_err()
                .to_string()
        };
        assert!(
            refused(r#"{"source": "builtin:digits", "test_rows": 0}"#).contains("`test_rows` is 0, but must be 1 to")
        );
        assert!(refused(r#"{"source": "builtin:reviews", "train_rows": 9999999}"#).contains("`train_rows` is 9999999"));
        assert!(refused(r#"{"source": "builtin:reviews", "max_length": 2}"#).contains("`max_length` is 2"));
        assert!(refused(r#"{"source": "idx"}"#).contains("no file was given for `train_labels`"));
    }

    #[test]
    fn builtin_sources_prepare_to_sound_data() {
        let reviews = parse(r#"{"source": "builtin:reviews", "train_rows": 50, "test_rows": 20}"#).unwrap();
        let digits = parse(r#"{"source": "builtin:digits", "train_rows": 50, "test_rows": 20}"#).unwrap();
        for spec in [reviews, digits] {
            let data = prepare(&spec, &BTreeMap::new(), None).unwrap();
            assert_eq!((data.train.rows(), data.test.rows()), (50, 20));
            let folder = tempfile::tempdir().unwrap();
            data.write(folder.path()).unwrap();
            let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().into_string().unwrap(), entry.path())
            });
            assert_eq!(Prepared::read(&files.collect()).unwrap(), data);
        }
    }

    #[test]
    fn moments_are_of_pixels_scaled_to_one() {
        assert_eq!(moments(&[0, 255, 0, 255]), (0.5, 0.5));
        assert_eq!(moments(&[51, 51]), (0.2, 1.0), "a constant is not divided by zero");
    }

    #[test]
    fn sst2_prepares_with_a_given_vocabulary_and_a_learnt_one() {
        let (Some(sst2), Some(vocab)) = (test_data::find("sst2"), test_data::find("bert_vocab")) else {
            return;
        };
        let mut files = BTreeMap::from([
            ("train".to_owned(), sst2.join("glue_train.tsv")),
            ("test".to_owned(), sst2.join("glue_dev.tsv")),
        ]);
        let spec = DataSpec::TextFiles(TextFiles::default());
        let learnt = prepare(&spec, &files, None).unwrap();
        assert_eq!((learnt.train.rows(), learnt.test.rows()), (60_614, 872));
        assert_eq!(learnt.labels(), ["0", "1"]);
        assert_eq!(learnt.train.labels().iter().sum::<u32>(), 33_828);
        let Task::Text { tokenizer, .. } = &learnt.task else {
            panic!("text was asked for")
        };
        assert_eq!(tokenizer.vocab_size(), 8000);
        files.insert("tokenizer".to_owned(), vocab.join("tokenizer.json"));
        let given = prepare(&spec, &files, None).unwrap();
        let Task::Text { tokenizer, .. } = &given.task else {
            panic!("text was asked for")
        };
        assert_eq!(tokenizer.vocab_size(), 30_522);
        assert_eq!(
            given.test.tokens(1).unwrap(),
            [101, 4895, 10258, 2378, 8450, 2135, 21657, 1998, 7143, 102]
        );
    }

    #[test]
    fn mnist_has_its_well_known_mean() {
        let Some(folder) = test_data::find("mnist") else { return };
        let files = ["train_images", "train_labels", "test_images", "test_labels"];
        let names = [
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
            "t10k-images-idx3-ubyte.gz",
            "t10k-labels-idx1-ubyte.gz",
        ];
        let files = files
            .into_iter()
            .map(str::to_owned)
            .zip(names.map(|name| folder.join(name)))
            .collect();
        let data = prepare(&DataSpec::IdxFiles(IdxFiles::default()), &files, None).unwrap();
        assert_eq!(
            (data.train.rows(), data.test.rows(), data.labels().len()),
            (60_000, 10_000, 10)
        );
        let Task::Image { mean, std, .. } = data.task else {
            panic!("images were asked for")
        };
        assert!(
            (mean - 0.1307).abs() < 1e-4 && (std - 0.3081).abs() < 1e-4,
            "{mean} {std}"
        );
    }
}
