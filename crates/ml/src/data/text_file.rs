//! Labelled texts from TSV, CSV and JSON Lines files.
//!
//! TSV is GLUE's: no quoting, a header line, fields between tabs. CSV is RFC 4180 with a header. JSON Lines has one
//! object a line. Text is trimmed, blank lines are skipped, a byte order mark is dropped. Labels are read as names; the
//! training file alone says which classes there are ([`LabelNames`]), so that class ids never depend on the test file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DataError;
use super::error::listed;

/// How a text file lays out its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextFormat {
    Tsv,
    Csv,
    Jsonl,
}

impl TextFormat {
    /// The format that the file's extension names.
    fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "tsv" | "tab" => Some(TextFormat::Tsv),
            "csv" => Some(TextFormat::Csv),
            "jsonl" | "ndjson" => Some(TextFormat::Jsonl),
            _ => None,
        }
    }
}

/// The names of the two columns (or JSON keys) to read.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    pub text: &'a str,
    pub label: &'a str,
}

/// A file's rows with labels as written, and the line that each row starts at (from 1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamedRows {
    pub texts: Vec<String>,
    pub labels: Vec<String>,
    pub lines: Vec<usize>,
}

impl NamedRows {
    /// Keeps the first `rows`, if a number is given.
    pub fn truncate(&mut self, rows: Option<usize>) {
        let rows = rows.unwrap_or(usize::MAX);
        self.texts.truncate(rows);
        self.labels.truncate(rows);
        self.lines.truncate(rows);
    }

    fn push(&mut self, text: &str, label: &str, line: usize) {
        self.texts.push(text.trim().to_owned());
        self.labels.push(label.trim().to_owned());
        self.lines.push(line);
    }
}

/// Reads `file`; without a `format`, its extension says which.
pub fn read(file: &Path, format: Option<TextFormat>, columns: Columns<'_>) -> Result<NamedRows, DataError> {
    let format = format
        .or_else(|| TextFormat::of(file))
        .ok_or_else(|| DataError::UnknownFormat { file: file.to_owned() })?;
    let bytes = std::fs::read(file).map_err(DataError::unreadable(file))?;
    let text = utf8(file, &bytes)?;
    let source = Source { file, text, columns };
    let rows = match format {
        TextFormat::Tsv => source.tsv(),
        TextFormat::Csv => source.csv(),
        TextFormat::Jsonl => source.jsonl(),
    }?;
    if rows.texts.is_empty() {
        return Err(DataError::Empty { file: file.to_owned() });
    }
    if let Some(row) = rows.labels.iter().position(String::is_empty) {
        return Err(DataError::BadValue {
            file: file.to_owned(),
            line: rows.lines[row],
            column: columns.label.to_owned(),
            expected: "the name of a class",
            found: "nothing".to_owned(),
        });
    }
    Ok(rows)
}

fn utf8<'a>(file: &Path, bytes: &'a [u8]) -> Result<&'a str, DataError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let start = valid
                .iter()
                .rposition(|&byte| byte == b'\n')
                .map_or(0, |newline| newline + 1);
            Err(DataError::InvalidUtf8 {
                file: file.to_owned(),
                line,
                column: valid.len() - start + 1,
            })
        }
    }
}

/// A file's whole text, about to be read in one of the formats.
struct Source<'a> {
    file: &'a Path,
    text: &'a str,
    columns: Columns<'a>,
}

impl Source<'_> {
    fn tsv(&self) -> Result<NamedRows, DataError> {
        let mut lines = self
            .text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        let Some((index, header)) = lines.next() else {
            return Ok(NamedRows::default());
        };
        let names: Vec<&str> = header.split('\t').map(str::trim).collect();
        let (text, label) = self.positions(&names, index + 1)?;
        let mut rows = NamedRows::default();
        for (index, line) in lines {
            let fields: Vec<&str> = line.split('\t').collect();
            if fields.len() != names.len() {
                return Err(self.ragged(index + 1, fields.len(), names.len()));
            }
            rows.push(fields[text], fields[label], index + 1);
        }
        Ok(rows)
    }

    fn csv(&self) -> Result<NamedRows, DataError> {
        let mut reader = csv::ReaderBuilder::new().from_reader(self.text.as_bytes());
        let names = reader.headers().map_err(|error| self.csv_error(&error))?.clone();
        if names.is_empty() {
            return Ok(NamedRows::default());
        }
        let names: Vec<&str> = names.iter().map(str::trim).collect();
        let (text, label) = self.positions(&names, 1)?;
        let mut rows = NamedRows::default();
        for record in reader.records() {
            let record = record.map_err(|error| self.csv_error(&error))?;
            let line = record.position().map_or(0, csv::Position::line);
            rows.push(
                &record[text],
                &record[label],
                usize::try_from(line).unwrap_or(usize::MAX),
            );
        }
        Ok(rows)
    }

    fn jsonl(&self) -> Result<NamedRows, DataError> {
        let mut rows = NamedRows::default();
        for (index, line) in self
            .text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let line_number = index + 1;
            let object: BTreeMap<String, serde_json::Value> =
                serde_json::from_str(line).map_err(|error| DataError::BadJson {
                    file: self.file.to_owned(),
                    line: line_number,
                    reason: error.to_string(),
                })?;
            let text = self.json_value(&object, self.columns.text, line_number)?;
            let serde_json::Value::String(text) = text else {
                return Err(self.bad_value(line_number, self.columns.text, "a string", text));
            };
            let label = self.json_value(&object, self.columns.label, line_number)?;
            let label = match label {
                serde_json::Value::String(name) => name.clone(),
                serde_json::Value::Number(number) if !number.is_f64() => number.to_string(),
                serde_json::Value::Null
                | serde_json::Value::Bool(_)
                | serde_json::Value::Number(_)
                | serde_json::Value::Array(_)
                | serde_json::Value::Object(_) => {
                    return Err(self.bad_value(line_number, self.columns.label, "a string or an integer", label));
                }
            };
            rows.push(text, &label, line_number);
        }
        Ok(rows)
    }

    fn json_value<'v>(
        &self,
        object: &'v BTreeMap<String, serde_json::Value>,
        column: &str,
        line: usize,
    ) -> Result<&'v serde_json::Value, DataError> {
        object.get(column).ok_or_else(|| {
            let names: Vec<&str> = object.keys().map(String::as_str).collect();
            self.missing(column, &names, line)
        })
    }

    /// Where the text and the label column stand in the header.
    fn positions(&self, names: &[&str], line: usize) -> Result<(usize, usize), DataError> {
        let find = |column: &str| {
            names
                .iter()
                .position(|name| *name == column)
                .ok_or_else(|| self.missing(column, names, line))
        };
        Ok((find(self.columns.text)?, find(self.columns.label)?))
    }

    fn missing(&self, column: &str, names: &[&str], line: usize) -> DataError {
        DataError::MissingColumn {
            file: self.file.to_owned(),
            line,
            column: column.to_owned(),
            available: listed(names.iter().copied()),
            suggestion: nearest(column, names),
        }
    }

    fn ragged(&self, line: usize, found: usize, expected: usize) -> DataError {
        DataError::RaggedRow {
            file: self.file.to_owned(),
            line,
            found,
            expected,
        }
    }

    fn bad_value(&self, line: usize, column: &str, expected: &'static str, found: &serde_json::Value) -> DataError {
        let found = found.to_string().chars().take(40).collect();
        DataError::BadValue {
            file: self.file.to_owned(),
            line,
            column: column.to_owned(),
            expected,
            found,
        }
    }

    fn csv_error(&self, error: &csv::Error) -> DataError {
        let line = error.position().map_or(0, csv::Position::line);
        let line = usize::try_from(line).unwrap_or(usize::MAX);
        if let csv::ErrorKind::UnequalLengths { expected_len, len, .. } = error.kind() {
            let count = |length: u64| usize::try_from(length).unwrap_or(usize::MAX);
            return self.ragged(line, count(*len), count(*expected_len));
        }
        DataError::BadCsv {
            file: self.file.to_owned(),
            line,
            reason: error.to_string(),
        }
    }
}

/// The name most like `wanted`, if one is like it at all.
fn nearest(wanted: &str, names: &[&str]) -> Option<String> {
    let wanted = wanted.to_lowercase();
    names
        .iter()
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), *name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}

/// The classes of a data set: names in id order, as the training file has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelNames {
    names: Vec<String>,
    ids: BTreeMap<String, u32>,
}

impl LabelNames {
    /// Sorts the distinct labels of the training rows: by value if all are integers, else by their bytes.
    pub fn from_training(file: &Path, rows: &NamedRows) -> Result<Self, DataError> {
        let mut names: Vec<String> = rows.labels.clone();
        names.sort_unstable();
        names.dedup();
        if names.iter().all(|name| name.parse::<i64>().is_ok()) {
            names.sort_by_key(|name| name.parse::<i64>().ok());
        }
        if let [label] = names.as_slice() {
            return Err(DataError::OneClass {
                file: file.to_owned(),
                label: label.clone(),
            });
        }
        Ok(Self::given(&names))
    }

    /// The classes `names`, in id order.
    pub fn given(names: &[String]) -> Self {
        let ids = (0u32..).zip(names).map(|(id, name)| (name.clone(), id)).collect();
        Self {
            names: names.to_vec(),
            ids,
        }
    }

    /// The class names in id order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The class id of every row.
    pub fn ids(&self, file: &Path, rows: &NamedRows) -> Result<Vec<u32>, DataError> {
        let id_of = |(label, line): (&String, &usize)| {
            self.ids.get(label).copied().ok_or_else(|| DataError::UnknownLabel {
                file: PathBuf::from(file),
                line: *line,
                label: label.chars().take(60).collect(),
                known: listed(self.names.iter().map(String::as_str)),
            })
        };
        rows.labels.iter().zip(&rows.lines).map(id_of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: Columns<'static> = Columns {
        text: "sentence",
        label: "label",
    };

    fn read_as(name: &str, content: impl AsRef<[u8]>) -> Result<NamedRows, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        read(&file, None, COLUMNS)
    }

    fn pairs(rows: &NamedRows) -> Vec<(&str, &str, usize)> {
        let labelled = rows.texts.iter().zip(&rows.labels).zip(&rows.lines);
        labelled
            .map(|((text, label), line)| (text.as_str(), label.as_str(), *line))
            .collect()
    }

    #[test]
    fn tsv_has_no_quoting_and_trailing_spaces_go() {
        let rows = read_as("a.tsv", "\u{feff}label\tsentence\r\n1\tit 's \"good \r\n\n0\tno\n").unwrap();
        assert_eq!(pairs(&rows), [("it 's \"good", "1", 2), ("no", "0", 4)]);
    }

    #[test]
    fn csv_may_quote_commas_and_line_ends() {
        let rows = read_as("a.csv", "id,sentence,label\n7,\"one,\ntwo\",pos\n8,three,neg\n").unwrap();
        assert_eq!(pairs(&rows), [("one,\ntwo", "pos", 2), ("three", "neg", 4)]);
    }

    #[test]
    fn jsonl_labels_may_be_integers_or_strings() {
        let rows = read_as(
            "a.jsonl",
            "{\"label\": 3, \"sentence\": \"a\\tb\"}\n\n{\"sentence\":\"c\",\"label\":\"x\"}",
        )
        .unwrap();
        assert_eq!(pairs(&rows), [("a\tb", "3", 1), ("c", "x", 3)]);
    }

    #[test]
    fn a_missing_column_lists_the_columns_and_suggests_one() {
        let error = read_as("a.tsv", "text\tlabels\nx\t1\n").unwrap_err().to_string();
        assert!(
            error.ends_with("a.tsv:1: no column `sentence`, the columns are `text`, `labels`; choose one of them"),
            "{error}"
        );
        let error = read_as("a.tsv", "sentence\tlabels\nx\t1\n").unwrap_err().to_string();
        assert!(
            error.ends_with("no column `label`, the columns are `sentence`, `labels`; did you mean `labels`?"),
            "{error}"
        );
    }

    #[test]
    fn errors_name_the_line() {
        let error = |name: &str, content: &[u8]| read_as(name, content).unwrap_err().to_string();
        let cases: [(&str, &[u8], &str); 9] = [
            (
                "a.tsv",
                b"sentence\tlabel\na\t1\nb\n",
                "a.tsv:3: has 1 fields where the header has 2",
            ),
            (
                "a.csv",
                b"sentence,label\na,1\nb,1,2\n",
                "a.csv:3: has 3 fields where the header has 2",
            ),
            ("a.tsv", b"sentence\tlabel\nab\xff\t1\n", "a.tsv:2: not UTF-8 at byte 3"),
            (
                "a.jsonl",
                b"{\"sentence\":\"a\",\"label\":1}\n{\"sentence\":\n",
                "a.jsonl:2: not a JSON object",
            ),
            ("a.jsonl", b"[1]\n", "a.jsonl:1: not a JSON object"),
            (
                "a.jsonl",
                b"{\"sentence\":\"a\",\"label\":1.5}\n",
                "a.jsonl:1: `label` must be a string or an integer, found 1.5",
            ),
            (
                "a.jsonl",
                b"{\"sentence\":null,\"label\":1}\n",
                "a.jsonl:1: `sentence` must be a string, found null",
            ),
            ("a.tsv", b"sentence\tlabel\n\n", "a.tsv: holds no rows"),
            ("a.data", b"x", "a.data: its name does not tell its format"),
        ];
        for (name, content, expected) in cases {
            let text = error(name, content);
            assert!(text.contains(expected), "{text}");
        }
        for empty in ["a.tsv", "a.csv", "a.jsonl"] {
            assert!(error(empty, b"").contains("holds no rows"));
        }
    }

    #[test]
    fn classes_come_from_the_training_file_in_order() {
        let file = Path::new("train.tsv");
        let rows = |labels: &[&str]| {
            let mut rows = NamedRows::default();
            labels
                .iter()
                .enumerate()
                .for_each(|(index, label)| rows.push("x", label, index + 2));
            rows
        };
        let numbers = LabelNames::from_training(file, &rows(&["10", "2", "2", "-1"])).unwrap();
        assert_eq!(numbers.names(), ["-1", "2", "10"], "integers sort by value");
        assert_eq!(numbers.ids(file, &rows(&["10", "-1"])).unwrap(), [2, 0]);
        let words = LabelNames::from_training(file, &rows(&["pos", "10", "2"])).unwrap();
        assert_eq!(words.names(), ["10", "2", "pos"]);
        let error = words
            .ids(Path::new("test.tsv"), &rows(&["2", "neg"]))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("test.tsv:3: label `neg` does not occur"), "{error}");
        let error = LabelNames::from_training(file, &rows(&["1", "1"])).unwrap_err();
        assert!(matches!(error, DataError::OneClass { .. }), "{error}");
    }
}
