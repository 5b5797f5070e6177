//! The vocabulary beside pretrained weights, which the data's must agree with: another number for a word, or another way to cut a
//! text, would make the model another function without an error.

use crate::artifact::{Files, TOKENIZER_FILE};
use crate::data::Tokenizer;
use crate::error::{Error, Result};
use serde::Deserialize;
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

/// What a tokenizer_config.json says of case.
#[derive(Deserialize)]
struct Settings {
    do_lower_case: Option<bool>,
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
        let (own, says_case) = self.read()?;
        let differs = |what: String| {
            Err(Error::Unsuited(format!(
                "the data's texts are not cut as those of the pretrained model: {what}; give the data the `tokenizer` of the \
                 model, or its `vocab` and `lowercase`"
            )))
        };
        if let Some((id, own, other)) = own.first_difference(tokenizer) {
            return differs(format!("token {id} is `{own}` in the model and `{other}` in the data"));
        }
        let parts = ["normalizer", "pre_tokenizer"].into_iter().filter(|_| says_case);
        for part in parts {
            let (own, other) = (own.part(part), tokenizer.part(part));
            if own != other {
                return differs(format!("the {part} is {own} in the model and {other} in the data"));
            }
        }
        Ok(())
    }

    /// The tokenizer, and whether the files say how it cuts texts.
    fn read(&self) -> Result<(Tokenizer, bool)> {
        match self {
            Self::Tokenizer(path) => Ok((Tokenizer::from_tokenizer_json(&origin(path), &bytes(path)?)?, true)),
            Self::Tokens(path, settings) => {
                let lowercase = settings.as_deref().map(lowercase).transpose()?.flatten();
                let tokenizer = Tokenizer::from_vocab_txt(&origin(path), &bytes(path)?, lowercase.unwrap_or(true))?;
                Ok((tokenizer, lowercase.is_some()))
            }
        }
    }
}

fn lowercase(settings: &Path) -> Result<Option<bool>> {
    let settings: Settings = serde_json::from_slice(&bytes(settings)?).map_err(|error| Error::Corrupt {
        path: settings.into(),
        expected: "configuration of a tokenizer",
        detail: error.to_string(),
    })?;
    Ok(settings.do_lower_case)
}

fn origin(path: &Path) -> String {
    path.display().to_string()
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::io("read", path))
}
