//! The files of a prepared data set.
//!
//! `data.json` (task, classes, lengths or sizes), `train.safetensors`, `test.safetensors`, and for text `tokenizer.json`.
//! The bytes depend on the content alone. Reading trusts nothing: it checks all that training relies on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{EncodedSplit, ImageSplit, Prepared, Task, TextSplit};
use crate::data::{DataError, Tokenizer};

/// Version of the files' layout.
const FORMAT: u32 = 1;

const HEADER: &str = "data.json";
const TOKENIZER: &str = "tokenizer.json";
const TRAIN: &str = "train.safetensors";
const TEST: &str = "test.safetensors";

/// What `data.json` holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    labels: Vec<String>,
    task: TaskHeader,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum TaskHeader {
    Text {
        max_length: usize,
    },
    Image {
        width: usize,
        height: usize,
        channels: usize,
        mean: f32,
        std: f32,
    },
}

impl Prepared {
    /// Writes the files into `folder`, which must exist.
    pub fn write(&self, folder: &Path) -> Result<(), DataError> {
        let put = |name: &str, bytes: &[u8]| {
            let file = folder.join(name);
            std::fs::write(&file, bytes).map_err(|source| DataError::Unwritable { file, source })
        };
        let task = match &self.task {
            Task::Text {
                tokenizer,
                max_length,
                labels: _,
            } => {
                put(TOKENIZER, tokenizer.to_json().as_bytes())?;
                TaskHeader::Text {
                    max_length: *max_length,
                }
            }
            &Task::Image {
                width,
                height,
                channels,
                mean,
                std,
                labels: _,
            } => TaskHeader::Image {
                width,
                height,
                channels,
                mean,
                std,
            },
        };
        put(TRAIN, &split_bytes(&self.train))?;
        put(TEST, &split_bytes(&self.test))?;
        let header = Header {
            format: FORMAT,
            labels: self.labels().to_vec(),
            task,
        };
        put(
            HEADER,
            &serde_json::to_vec_pretty(&header).expect("numbers and strings become JSON"),
        )
    }

    /// Reads and checks what [`Prepared::write`] wrote; `files` maps file names to paths. Without the file of the test rows
    /// (see [`files_for_training`]) there are none.
    pub fn read(files: &BTreeMap<String, PathBuf>) -> Result<Self, DataError> {
        let header_file = path(files, HEADER)?;
        let header: Header = serde_json::from_slice(&bytes(header_file)?)
            .map_err(|error| DataError::corrupt(header_file, error.to_string()))?;
        if header.format != FORMAT {
            let reason = format!("its format is {}, this program reads {FORMAT}", header.format);
            return Err(DataError::corrupt(header_file, reason));
        }
        let labels = header.labels;
        if labels.len() < 2 {
            return Err(DataError::corrupt(header_file, "it names fewer than two classes"));
        }
        match header.task {
            TaskHeader::Text { max_length } => read_text(files, labels, max_length),
            TaskHeader::Image {
                width,
                height,
                channels,
                mean,
                std,
            } => {
                if !mean.is_finite() || !std.is_finite() || std <= 0.0 {
                    return Err(DataError::corrupt(header_file, "its mean or std is not a sound number"));
                }
                let shape = [channels, height, width];
                let train = read_images(path(files, TRAIN)?, shape, labels.len())?;
                let test = match files.get(TEST) {
                    Some(file) => read_images(file, shape, labels.len())?,
                    None => EncodedSplit::Image(ImageSplit {
                        shape,
                        pixels: Vec::new(),
                        labels: Vec::new(),
                    }),
                };
                Ok(Self {
                    task: Task::Image {
                        width,
                        height,
                        channels,
                        mean,
                        std,
                        labels,
                    },
                    train,
                    test,
                })
            }
        }
    }
}

/// Those of a data set's files that training reads: all but the test rows.
pub fn files_for_training(files: &BTreeMap<String, PathBuf>) -> impl Iterator<Item = (&String, &PathBuf)> {
    files.iter().filter(|(name, _)| *name != TEST)
}

fn path<'a>(files: &'a BTreeMap<String, PathBuf>, name: &str) -> Result<&'a Path, DataError> {
    files
        .get(name)
        .map(PathBuf::as_path)
        .ok_or_else(|| DataError::MissingFile { role: name.to_owned() })
}

fn bytes(file: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(file).map_err(DataError::unreadable(file))
}

/// The split as the bytes of a safetensors file.
fn split_bytes(split: &EncodedSplit) -> Vec<u8> {
    match split {
        EncodedSplit::Text(split) => text_bytes(split),
        EncodedSplit::Image(split) => image_bytes(split),
    }
}

fn text_bytes(split: &TextSplit) -> Vec<u8> {
    let parts = [
        ("ids", &split.ids),
        ("labels", &split.labels),
        ("offsets", &split.offsets),
    ];
    let parts = parts.map(|(name, values)| (name, values.len(), little_endian(values)));
    let views = parts
        .iter()
        .map(|(name, length, bytes)| (*name, view(Dtype::U32, vec![*length], bytes)));
    safetensors::serialize(views, None).expect("the views are sound")
}

fn image_bytes(split: &ImageSplit) -> Vec<u8> {
    let rows = split.labels.len();
    let [channels, height, width] = split.shape;
    let shape = vec![rows, channels, height, width];
    let labels = little_endian(&split.labels);
    let views = [
        ("labels", view(Dtype::U32, vec![rows], &labels)),
        ("pixels", view(Dtype::U8, shape, &split.pixels)),
    ];
    safetensors::serialize(views, None).expect("the views are sound")
}

fn view(dtype: Dtype, shape: Vec<usize>, bytes: &[u8]) -> TensorView<'_> {
    TensorView::new(dtype, shape, bytes).expect("a split's vectors fit its shape")
}

fn little_endian(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn read_text(files: &BTreeMap<String, PathBuf>, labels: Vec<String>, max_length: usize) -> Result<Prepared, DataError> {
    let tokenizer_file = path(files, TOKENIZER)?;
    let origin = tokenizer_file.display().to_string();
    let tokenizer = Tokenizer::from_tokenizer_json(&origin, &bytes(tokenizer_file)?)?;
    let bounds = TextBounds {
        max_length,
        vocab_size: tokenizer.vocab_size(),
        classes: labels.len(),
    };
    let train = read_texts(path(files, TRAIN)?, &bounds)?;
    let test = match files.get(TEST) {
        Some(file) => read_texts(file, &bounds)?,
        None => EncodedSplit::Text(TextSplit {
            offsets: vec![0],
            ..TextSplit::default()
        }),
    };
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

/// What the rows of a text split must keep to.
struct TextBounds {
    max_length: usize,
    vocab_size: usize,
    classes: usize,
}

fn read_texts(file: &Path, bounds: &TextBounds) -> Result<EncodedSplit, DataError> {
    let bytes = bytes(file)?;
    let tensors = Tensors::read(file, &bytes)?;
    let split = TextSplit {
        ids: tensors.vector("ids")?,
        offsets: tensors.vector("offsets")?,
        labels: tensors.labels(bounds.classes)?,
    };
    let corrupt = |reason: String| Err(DataError::corrupt(file, reason));
    if split.offsets.len() != split.rows() + 1 || split.offsets[0] != 0 {
        return corrupt(format!("{} offsets for {} rows", split.offsets.len(), split.rows()));
    }
    if split.offsets[split.rows()] as usize != split.ids.len() {
        return corrupt(format!("its rows do not end with its {} ids", split.ids.len()));
    }
    let too_long = |row: &[u32]| row[1] <= row[0] || (row[1] - row[0]) as usize > bounds.max_length;
    if let Some(row) = split.offsets.windows(2).position(too_long) {
        return corrupt(format!("row {row} does not have 1 to {} ids", bounds.max_length));
    }
    if let Some(id) = split.ids.iter().find(|&&id| id as usize >= bounds.vocab_size) {
        return corrupt(format!("token id {id} in a vocabulary of {}", bounds.vocab_size));
    }
    Ok(EncodedSplit::Text(split))
}

fn read_images(file: &Path, shape: [usize; 3], classes: usize) -> Result<EncodedSplit, DataError> {
    let bytes = bytes(file)?;
    let tensors = Tensors::read(file, &bytes)?;
    let labels = tensors.labels(classes)?;
    let pixels = tensors.get("pixels", Dtype::U8)?;
    let [channels, height, width] = shape;
    let expected = [labels.len(), channels, height, width];
    if pixels.shape() != expected || shape.contains(&0) {
        let reason = format!("pixels of shape {:?}, where {expected:?} was promised", pixels.shape());
        return Err(DataError::corrupt(file, reason));
    }
    Ok(EncodedSplit::Image(ImageSplit {
        shape,
        pixels: pixels.data().to_vec(),
        labels,
    }))
}

/// The tensors of one file.
struct Tensors<'a> {
    file: &'a Path,
    tensors: SafeTensors<'a>,
}

impl<'a> Tensors<'a> {
    fn read(file: &'a Path, bytes: &'a [u8]) -> Result<Self, DataError> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| DataError::corrupt(file, error.to_string()))?;
        Ok(Self { file, tensors })
    }

    fn get(&self, name: &str, dtype: Dtype) -> Result<TensorView<'a>, DataError> {
        let tensor = self
            .tensors
            .tensor(name)
            .map_err(|error| DataError::corrupt(self.file, error.to_string()))?;
        if tensor.dtype() != dtype {
            let reason = format!("tensor `{name}` is {:?}, not {dtype:?}", tensor.dtype());
            return Err(DataError::corrupt(self.file, reason));
        }
        Ok(tensor)
    }

    fn vector(&self, name: &str) -> Result<Vec<u32>, DataError> {
        let tensor = self.get(name, Dtype::U32)?;
        if tensor.shape().len() != 1 {
            return Err(DataError::corrupt(
                self.file,
                format!("tensor `{name}` is not a vector"),
            ));
        }
        let (values, _) = tensor.data().as_chunks::<4>();
        Ok(values.iter().map(|value| u32::from_le_bytes(*value)).collect())
    }

    /// The labels: at least one, all below `classes`.
    fn labels(&self, classes: usize) -> Result<Vec<u32>, DataError> {
        let labels = self.vector("labels")?;
        if labels.is_empty() {
            return Err(DataError::corrupt(self.file, "it holds no rows"));
        }
        match labels.iter().find(|&&label| label as usize >= classes) {
            Some(label) => Err(DataError::corrupt(
                self.file,
                format!("label {label} among {classes} classes"),
            )),
            None => Ok(labels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_data() -> Prepared {
        let texts = ["good film", "bad film", "bad"].map(str::to_owned);
        let tokenizer = Tokenizer::learn_wordpiece(&texts, 64, true).unwrap();
        let rows = tokenizer.encode_all(&texts, 16).unwrap();
        let train = TextSplit::from_rows(&rows, vec![1, 0, 0]).unwrap();
        let test = TextSplit::from_rows(&rows[..1], vec![1]).unwrap();
        let labels = vec!["negative".to_owned(), "positive".to_owned()];
        let task = Task::Text {
            tokenizer,
            max_length: 16,
            labels,
        };
        Prepared {
            task,
            train: EncodedSplit::Text(train),
            test: EncodedSplit::Text(test),
        }
    }

    fn image_data() -> Prepared {
        let split = |rows: u8| {
            let labels = (0..rows).map(|row| u32::from(row % 2)).collect();
            EncodedSplit::Image(ImageSplit {
                shape: [1, 2, 3],
                pixels: (0..rows * 6).collect(),
                labels,
            })
        };
        let labels = vec!["0".to_owned(), "1".to_owned()];
        let task = Task::Image {
            width: 3,
            height: 2,
            channels: 1,
            mean: 0.1,
            std: 0.3,
            labels,
        };
        Prepared {
            task,
            train: split(4),
            test: split(2),
        }
    }

    fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
            .collect()
    }

    #[test]
    fn what_is_written_reads_back_and_writes_the_same_bytes() {
        for data in [text_data(), image_data()] {
            let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            data.write(first.path()).unwrap();
            let read = Prepared::read(&files(first.path())).unwrap();
            assert_eq!(read, data);
            read.write(second.path()).unwrap();
            for (name, file) in files(first.path()) {
                assert_eq!(
                    std::fs::read(file).unwrap(),
                    std::fs::read(second.path().join(&name)).unwrap(),
                    "{name}"
                );
            }
        }
    }

    /// The error of reading `data`.
    fn refused(data: &Prepared) -> String {
        let folder = tempfile::tempdir().unwrap();
        data.write(folder.path()).unwrap();
        Prepared::read(&files(folder.path())).unwrap_err().to_string()
    }

    #[test]
    fn unsound_text_is_refused() {
        let spoilt = |expected: &str, spoil: fn(&mut TextSplit)| {
            let mut data = text_data();
            let EncodedSplit::Text(split) = &mut data.train else {
                unreachable!("text was made")
            };
            spoil(split);
            let error = refused(&data);
            assert!(error.contains(expected), "{error}");
        };
        spoilt("label 2 among 2 classes", |split| split.labels[0] = 2);
        spoilt("token id 60000 in a vocabulary of", |split| split.ids[1] = 60_000);
        spoilt("it holds no rows", |split| {
            *split = TextSplit {
                offsets: vec![0],
                ..TextSplit::default()
            }
        });
        spoilt("row 0 does not have 1 to 16 ids", |split| split.offsets[1] = 1_000_000);
        spoilt("row 1 does not have 1 to 16 ids", |split| {
            split.offsets[2] = split.offsets[1]
        });
        spoilt("its rows do not end with its", |split| split.ids.push(0));
        spoilt("3 offsets for 3 rows", |split| split.offsets.truncate(3));
    }

    #[test]
    fn unsound_images_are_refused() {
        let spoilt = |expected: &str, spoil: fn(&mut ImageSplit)| {
            let mut data = image_data();
            let EncodedSplit::Image(split) = &mut data.test else {
                unreachable!("images were made")
            };
            spoil(split);
            let error = refused(&data);
            assert!(error.contains(expected), "{error}");
        };
        spoilt("label 9 among 2 classes", |split| split.labels[1] = 9);
        spoilt(
            "pixels of shape [2, 2, 3, 1], where [2, 1, 2, 3] was promised",
            |split| split.shape = [2, 3, 1],
        );
        spoilt("it holds no rows", |split| {
            *split = ImageSplit {
                pixels: vec![],
                labels: vec![],
                ..*split
            }
        });
    }

    #[test]
    fn an_unsound_task_is_refused() {
        let spoilt = |mut data: Prepared, expected: &str, spoil: fn(&mut Task)| {
            spoil(&mut data.task);
            let error = refused(&data);
            assert!(error.contains(expected), "{error}");
        };
        spoilt(text_data(), "row 0 does not have 1 to 3 ids", |task| {
            let Task::Text { max_length, .. } = task else {
                unreachable!("text was made")
            };
            *max_length = 3;
        });
        spoilt(image_data(), "its mean or std is not a sound number", |task| {
            let Task::Image { std, .. } = task else {
                unreachable!("images were made")
            };
            *std = 0.0;
        });
        spoilt(image_data(), "fewer than two classes", |task| {
            let Task::Image { labels, .. } = task else {
                unreachable!("images were made")
            };
            labels.truncate(1);
        });
    }

    #[test]
    fn spoilt_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        image_data().write(folder.path()).unwrap();
        let with = |name: &str, content: &[u8]| {
            let good = std::fs::read(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name), content).unwrap();
            let error = Prepared::read(&files(folder.path())).unwrap_err().to_string();
            std::fs::write(folder.path().join(name), good).unwrap();
            error
        };
        let train = std::fs::read(folder.path().join(TRAIN)).unwrap();
        assert!(with(TRAIN, &train[..train.len() - 1]).contains("not what a data step writes"));
        assert!(with(TRAIN, &[0xff; 64]).contains("not what a data step writes"));
        assert!(with(HEADER, b"{\"format\":1}").contains("missing field"));
        let header = std::fs::read_to_string(folder.path().join(HEADER)).unwrap();
        assert!(with(HEADER, header.replace("\"format\": 1", "\"format\": 7").as_bytes()).contains("its format is 7"));
        let wide = header.replace("\"width\": 3", "\"width\": 18446744073709551615");
        assert!(with(HEADER, wide.as_bytes()).contains("was promised"));
        let mut some = files(folder.path());
        some.remove(TRAIN);
        assert!(matches!(Prepared::read(&some), Err(DataError::MissingFile { role }) if role == TRAIN));
    }

    #[test]
    fn what_training_reads_has_no_test_rows() {
        for whole in [image_data(), text_data()] {
            let folder = tempfile::tempdir().unwrap();
            whole.write(folder.path()).unwrap();
            let all = files(folder.path());
            let some = files_for_training(&all).map(|(name, path)| (name.clone(), path.clone()));
            let read = Prepared::read(&some.collect()).unwrap();
            assert_eq!((&read.task, &read.train), (&whole.task, &whole.train));
            assert_eq!(read.test.rows(), 0);
        }
    }
}
