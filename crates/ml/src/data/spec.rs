//! What a data set is made of, as a recipe says it.

use serde::{Deserialize, Serialize};

use super::text_file::TextFormat;

/// The source of a data set and its settings, resolved and defaulted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "source")]
pub enum DataSpec {
    #[serde(rename = "builtin:reviews")]
    Reviews(Reviews),
    #[serde(rename = "builtin:digits")]
    Digits(Digits),
    #[serde(rename = "text")]
    TextFiles(TextFiles),
    #[serde(rename = "idx")]
    IdxFiles(IdxFiles),
}

/// Settings of `builtin:reviews`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reviews {
    pub train_rows: usize,
    pub test_rows: usize,
    pub data_seed: u64,
    /// Largest vocabulary to learn.
    pub vocab_size: usize,
    /// Most tokens of a row, `[CLS]` and `[SEP]` included.
    pub max_length: usize,
    pub lowercase: bool,
}

impl Default for Reviews {
    fn default() -> Self {
        Self {
            train_rows: 8000,
            test_rows: 2000,
            data_seed: 0,
            vocab_size: 1000,
            max_length: 32,
            lowercase: true,
        }
    }
}

/// Settings of `builtin:digits`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Digits {
    pub train_rows: usize,
    pub test_rows: usize,
    pub data_seed: u64,
}

impl Default for Digits {
    fn default() -> Self {
        Self {
            train_rows: 10_000,
            test_rows: 2000,
            data_seed: 0,
        }
    }
}

/// Settings of text files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextFiles {
    pub text_column: String,
    pub label_column: String,
    /// Without it, each file's extension says.
    pub format: Option<TextFormat>,
    /// Largest vocabulary to learn, where none is given.
    pub vocab_size: usize,
    /// Most tokens of a row, `[CLS]` and `[SEP]` included.
    pub max_length: usize,
    /// Whether a learnt or `vocab.txt` vocabulary is uncased; a tokenizer.json says for itself.
    pub lowercase: bool,
    /// Only the first rows of the training file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_train_rows: Option<usize>,
    /// Only the first rows of the test file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_test_rows: Option<usize>,
}

impl Default for TextFiles {
    fn default() -> Self {
        Self {
            text_column: "sentence".to_owned(),
            label_column: "label".to_owned(),
            format: None,
            vocab_size: 8000,
            max_length: 64,
            lowercase: true,
            max_train_rows: None,
            max_test_rows: None,
        }
    }
}

/// Settings of IDX files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdxFiles {
    /// Only the first images of the training files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_train_rows: Option<usize>,
    /// Only the first images of the test files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_test_rows: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DataSpec, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn settings_not_given_take_their_defaults_and_unknown_ones_are_denied() {
        let spec = parse(r#"{"source": "builtin:reviews", "train_rows": 10}"#).unwrap();
        assert_eq!(
            spec,
            DataSpec::Reviews(Reviews {
                train_rows: 10,
                ..Reviews::default()
            })
        );
        assert_eq!(
            parse(r#"{"source": "idx"}"#).unwrap(),
            DataSpec::IdxFiles(IdxFiles::default())
        );
        assert!(
            parse(r#"{"source": "builtin:digits", "max_length": 3}"#)
                .unwrap_err()
                .to_string()
                .contains("max_length")
        );
        assert!(
            parse(r#"{"source": "builtin:poems"}"#)
                .unwrap_err()
                .to_string()
                .contains("builtin:poems")
        );
        let spec = parse(r#"{"source": "text", "format": "jsonl"}"#).unwrap();
        assert_eq!(parse(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
    }
}
