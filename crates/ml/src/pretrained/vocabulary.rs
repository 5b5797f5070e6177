//! The vocabulary beside pretrained weights, which the data's must agree with: another number for a word, or another way to cut a
//! text, would make the model another function without an error.

use crate::artifact::{Files, TOKENIZER_FILE};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A vocabulary, one token a line.
pub(super) const VOCAB_FILE: &str = "vocab.txt";
/// Where there is no tokenizer.json: how texts are cut.
pub(super) const SETTINGS_FILE: &str = "tokenizer_config.json";

/// The files that say which number stands for which token.
#[derive(Debug, Clone)]
pub(super) enum Vocabulary {
    /// A tokenizer.json, which says all.
    Tokenizer(PathBuf),
    /// A vocab.txt, and a tokenizer_config.json if there is one.
    Tokens(PathBuf, Option<PathBuf>),
}

/// What a tokenizer_config.json says of how texts are cut.
#[derive(Debug, Deserialize)]
struct Settings {
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    word_tokenizer_type: Option<String>,
    subword_tokenizer_type: Option<String>,
}

impl Vocabulary {
    /// That of a model with these files, if it has one.
    pub fn among(files: &Files) -> Option<Self> {
        let tokenizer = files.get(TOKENIZER_FILE).cloned().map(Self::Tokenizer);
        let tokens = |path: &PathBuf| Self::Tokens(path.clone(), files.get(SETTINGS_FILE).cloned());
        tokenizer.or_else(|| files.get(VOCAB_FILE).map(tokens))
    }

    /// Checks that `tokenizer` gives each of its tokens the number that it has here, and cuts texts as it is done here, as far as
    /// the files tell.
    pub fn check(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (own, cutting) = self.read()?;
        let differs = |what: String| {
            Err(Error::Unsuited(format!(
                "the data's texts are not cut as those of the pretrained model: {what}; give the data the `tokenizer` of the \
                 model, or its `vocab` and `lowercase`"
            )))
        };
        if let Some((id, own, other)) = own.first_difference(tokenizer) {
            return differs(format!("token {id} is `{own}` in the model and `{other}` in the data"));
        }
        let Some(cutting) = cutting else { return Ok(()) };
        let parts = ["normalizer", "pre-tokenizer"].into_iter().zip(cutting);
        for ((part, own), other) in parts.zip(tokenizer.cutting()) {
            let (own, other) = (spelled_out(own), spelled_out(other));
            if own != other {
                return differs(format!("the {part} is {own} in the model and {other} in the data"));
            }
        }
        Ok(())
    }

    /// The tokenizer, and how texts are cut if the files say that.
    pub fn read(&self) -> Result<(Tokenizer, Option<[Value; 2]>)> {
        let (path, settings) = match self {
            Self::Tokenizer(path) => {
                let tokenizer = Tokenizer::from_tokenizer_json(&origin(path), &bytes(path)?)?;
                let cutting = tokenizer.cutting();
                return Ok((tokenizer, Some(cutting)));
            }
            Self::Tokens(path, settings) => (path, settings.as_deref().map(Settings::read).transpose()?),
        };
        let lowercase = settings.as_ref().and_then(|settings| settings.do_lower_case);
        let tokenizer = Tokenizer::from_vocab_txt(&origin(path), &bytes(path)?, lowercase.unwrap_or(true))?;
        let cutting = settings
            .filter(|_| lowercase.is_some())
            .map(|settings| settings.cutting(&tokenizer));
        Ok((tokenizer, cutting))
    }
}

impl Settings {
    fn read(path: &Path) -> Result<Self> {
        let corrupt = |detail: String| Error::Corrupt {
            path: path.into(),
            expected: "configuration of a BERT's tokenizer",
            detail,
        };
        let settings: Self = serde_json::from_slice(&bytes(path)?).map_err(|error| corrupt(error.to_string()))?;
        let kinds = [
            ("word_tokenizer_type", &settings.word_tokenizer_type, "basic"),
            ("subword_tokenizer_type", &settings.subword_tokenizer_type, "wordpiece"),
        ];
        for (key, kind, usual) in kinds {
            if let Some(kind) = kind.as_deref().filter(|kind| *kind != usual) {
                return Err(corrupt(format!(
                    "its {key} is {kind:?}, and only {usual:?} is known here"
                )));
            }
        }
        Ok(settings)
    }

    /// How `tokenizer`, which knows of lower case alone, cuts texts under these settings.
    fn cutting(&self, tokenizer: &Tokenizer) -> [Value; 2] {
        let [mut normalizer, pre_tokenizer] = tokenizer.cutting();
        normalizer["strip_accents"] = self.strip_accents.into();
        normalizer["handle_chinese_chars"] = self.tokenize_chinese_chars.unwrap_or(true).into();
        [normalizer, pre_tokenizer]
    }
}

/// A normalizer in which it is said whether accents go, which they do with capitals if nothing is said.
fn spelled_out(mut part: Value) -> Value {
    if part["type"] == "BertNormalizer" && part["strip_accents"].is_null() {
        part["strip_accents"] = part["lowercase"].clone();
    }
    part
}

fn origin(path: &Path) -> String {
    path.display().to_string()
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::io("read", path))
}
