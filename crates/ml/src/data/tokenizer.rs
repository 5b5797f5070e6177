//! Text to token ids: BERT's WordPiece, from a file or learnt from the data.
//!
//! A thin wrapper of the `tokenizers` crate that fixes what it leaves open: ids are `[CLS]` … `[SEP]`, cut to a length,
//! never padded (batching pads); a special token spelled out in a text is ordinary text; the JSON form is canonical (the
//! same vocabulary gives the same bytes). Vocabulary learning is our own, since the crate's trainer breaks ties by hash order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::json;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::DataError;
use super::error::listed;
use super::wordpiece::{self, CONTINUATION};

const PAD: &str = "[PAD]";
const UNKNOWN: &str = "[UNK]";
const CLASS: &str = "[CLS]";
const SEPARATOR: &str = "[SEP]";
const MASK: &str = "[MASK]";

/// The special tokens, in the order of their ids in a learnt vocabulary.
const SPECIAL: [&str; 5] = [PAD, UNKNOWN, CLASS, SEPARATOR, MASK];

/// The shortest row: `[CLS]`, one token, `[SEP]`.
pub const LEAST_LENGTH: usize = 3;

/// Cuts texts into tokens of a fixed vocabulary.
#[derive(Clone)]
pub struct Tokenizer {
    /// Shared, for a vocabulary is large.
    inner: Arc<tokenizers::Tokenizer>,
    json: Arc<str>,
    vocab_size: usize,
    pad: u32,
    class: u32,
    separator: u32,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` as Hugging Face publishes it. Its truncation and padding are dropped.
    ///
    /// `origin` names the source in errors. The vocabulary must have ids 0 to n − 1 and BERT's `[PAD]`, `[CLS]`, `[SEP]`.
    pub fn from_tokenizer_json(origin: &str, bytes: &[u8]) -> Result<Self, DataError> {
        let refuse = |reason: String| DataError::BadTokenizer {
            origin: origin.to_owned(),
            reason,
        };
        let document = checked(bytes).map_err(refuse)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(document).map_err(|error| refuse(error.to_string()))?;
        inner.with_truncation(None).map_err(|error| refuse(error.to_string()))?;
        inner.with_padding(None);
        inner.set_encode_special_tokens(true);
        let vocab = inner.get_vocab(true);
        let vocab_size = vocab.len();
        let ids: BTreeSet<u32> = vocab.values().copied().collect();
        // Of two tokens with one id, only one would be written again.
        if ids.len() < vocab_size || ids.last().is_some_and(|&id| id as usize >= vocab_size) {
            return Err(refuse(format!(
                "its {vocab_size} tokens do not have the ids 0 to {}",
                vocab_size - 1
            )));
        }
        let id = |token: &str| {
            vocab
                .get(token)
                .copied()
                .ok_or_else(|| refuse(format!("it has no token {token}")))
        };
        let (pad, class, separator) = (id(PAD)?, id(CLASS)?, id(SEPARATOR)?);
        let json = inner.to_string(false).map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            inner: Arc::new(inner),
            json: json.into(),
            vocab_size,
            pad,
            class,
            separator,
        })
    }

    /// Reads a `vocab.txt` (a token a line, the line number from 0 its id) as an uncased or cased BERT vocabulary.
    pub fn from_vocab_txt(origin: &str, bytes: &[u8], lowercase: bool) -> Result<Self, DataError> {
        let refuse = |reason: String| DataError::BadTokenizer {
            origin: origin.to_owned(),
            reason,
        };
        let text = std::str::from_utf8(bytes).map_err(|error| refuse(error.to_string()))?;
        let tokens: Vec<&str> = text.lines().map(str::trim_end).collect();
        Self::from_tokens(origin, &tokens, lowercase)
    }

    /// Learns a vocabulary of at most `vocab_size` tokens from the texts; special tokens come first, `[PAD]` is 0.
    pub fn learn_wordpiece(texts: &[String], vocab_size: usize, lowercase: bool) -> Result<Self, DataError> {
        let words = count_words(texts, lowercase);
        let tokens = wordpiece::learn(&words, &SPECIAL, vocab_size);
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        Self::from_tokens("the learnt vocabulary", &tokens, lowercase)
    }

    fn from_tokens(origin: &str, tokens: &[&str], lowercase: bool) -> Result<Self, DataError> {
        let refuse = |reason: String| DataError::BadTokenizer {
            origin: origin.to_owned(),
            reason,
        };
        let mut vocab = BTreeMap::new();
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = vocab.insert(*token, id) {
                return Err(refuse(format!(
                    "token `{token}` stands on lines {} and {}",
                    first + 1,
                    id + 1
                )));
            }
        }
        let id = |token: &str| {
            vocab
                .get(token)
                .copied()
                .ok_or_else(|| refuse(format!("it has no token {token}")))
        };
        let added = SPECIAL
            .iter()
            .map(|token| Ok((id(token)?, *token)))
            .collect::<Result<BTreeMap<usize, &str>, DataError>>()?
            .into_iter()
            .map(|(id, token)| {
                json!({
                    "id": id, "content": token, "special": true,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect::<Vec<_>>();
        let document = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": {
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                "lowercase": lowercase,
            },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "post_processor": {
                "type": "BertProcessing", "sep": [SEPARATOR, id(SEPARATOR)?], "cls": [CLASS, id(CLASS)?],
            },
            "decoder": { "type": "WordPiece", "prefix": CONTINUATION, "cleanup": true },
            "model": {
                "type": "WordPiece", "unk_token": UNKNOWN, "continuing_subword_prefix": CONTINUATION,
                "max_input_chars_per_word": 100, "vocab": vocab,
            },
        });
        Self::from_tokenizer_json(origin, document.to_string().as_bytes())
    }

    /// The ids of one text: `[CLS]`, at most `max_length − 2` tokens, `[SEP]`.
    pub fn encode(&self, text: &str, max_length: usize) -> Result<Vec<u32>, DataError> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|error| DataError::BadTokenizer {
                origin: "the tokenizer".to_owned(),
                reason: error.to_string(),
            })?;
        let tokens = encoding.get_ids().iter().copied().take(max_length.saturating_sub(2));
        Ok([self.class].into_iter().chain(tokens).chain([self.separator]).collect())
    }

    /// The ids of every text, in order; texts are cut in parallel.
    pub fn encode_all(&self, texts: &[String], max_length: usize) -> Result<Vec<Vec<u32>>, DataError> {
        texts.par_iter().map(|text| self.encode(text, max_length)).collect()
    }

    /// The canonical `tokenizer.json`.
    pub fn to_json(&self) -> &str {
        &self.json
    }

    /// Number of tokens: every id is below it.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The first id of `other` that stands for another token here, with both tokens; the one here is empty if there is none.
    pub fn first_difference(&self, other: &Self) -> Option<(u32, String, String)> {
        (0..other.vocab_size as u32).find_map(|id| {
            let token = |of: &Self| of.inner.id_to_token(id).unwrap_or_default();
            let (own, theirs) = (token(self), token(other));
            (own != theirs).then_some((id, own, theirs))
        })
    }

    /// The parts of the `tokenizer.json` that cut a text into words: the normalizer and the pre-tokenizer.
    pub fn cutting(&self) -> [serde_json::Value; 2] {
        let document = serde_json::from_str(&self.json);
        let mut document: serde_json::Value = document.expect("the canonical form was written as JSON");
        ["normalizer", "pre_tokenizer"].map(|part| document[part].take())
    }

    /// The id that fills a batch's short rows.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }
}

/// The document, if it is JSON and of BERT's kind: the `tokenizers` crate panics on some documents that are not.
fn checked(bytes: &[u8]) -> Result<Vec<u8>, String> {
    const PARTS: [(&str, &[&str]); 5] = [
        ("model", &["WordPiece"]),
        (
            "normalizer",
            &[
                "BertNormalizer",
                "Lowercase",
                "NFC",
                "NFD",
                "NFKC",
                "NFKD",
                "StripAccents",
            ],
        ),
        ("pre_tokenizer", &["BertPreTokenizer", "Whitespace", "WhitespaceSplit"]),
        ("post_processor", &["BertProcessing", "TemplateProcessing"]),
        ("decoder", &["WordPiece"]),
    ];
    let document: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    for (part, known) in PARTS {
        let value = &document[part];
        let kind = value["type"].as_str().unwrap_or("of no type");
        let is_left_out = value.is_null() && part != "model";
        if !is_left_out && !known.contains(&kind) {
            let known = listed(known.iter().copied());
            return Err(format!("its {part} is {kind}; BERT's is one of {known}"));
        }
    }
    Ok(document.to_string().into_bytes())
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("pad", &self.pad)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Tokenizer {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

/// How often each word occurs, words being cut as the tokenizer will cut them.
fn count_words(texts: &[String], lowercase: bool) -> BTreeMap<String, u64> {
    let normalizer = BertNormalizer::new(true, true, None, lowercase);
    let count = |mut counts: BTreeMap<String, u64>, text: &String| {
        let mut text = NormalizedString::from(text.as_str());
        normalizer
            .normalize(&mut text)
            .expect("BERT's normalizer accepts any text");
        let mut words = PreTokenizedString::from(text);
        BertPreTokenizer
            .pre_tokenize(&mut words)
            .expect("BERT's pre-tokenizer accepts any text");
        for (word, _, _) in words.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
        counts
    };
    texts
        .par_iter()
        .fold(BTreeMap::new, count)
        .reduce(BTreeMap::new, |mut total, part| {
            for (word, count) in part {
                *total.entry(word).or_default() += count;
            }
            total
        })
}

#[cfg(test)]
mod tests {
    use super::super::test_data;
    use super::*;

    fn texts() -> Vec<String> {
        let spec = super::super::reviews::ReviewsSpec {
            train: 300,
            test: 1,
            seed: 3,
        };
        super::super::reviews::generate(&spec).train.texts
    }

    #[test]
    fn a_learnt_vocabulary_covers_its_texts_and_is_the_same_every_time() {
        let texts = texts();
        let tokenizer = Tokenizer::learn_wordpiece(&texts, 400, true).unwrap();
        assert_eq!(tokenizer.pad_id(), 0);
        assert!(tokenizer.vocab_size() <= 400);
        let unknown = 1;
        for ids in tokenizer.encode_all(&texts, 64).unwrap() {
            assert!(!ids.contains(&unknown) && ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        }
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let again = alone.install(|| Tokenizer::learn_wordpiece(&texts, 400, true)).unwrap();
        assert_eq!(again.to_json(), tokenizer.to_json());
    }

    #[test]
    fn the_json_form_reads_back_to_itself() {
        let tokenizer = Tokenizer::learn_wordpiece(&texts(), 200, true).unwrap();
        let read = Tokenizer::from_tokenizer_json("copy", tokenizer.to_json().as_bytes()).unwrap();
        assert_eq!(read.to_json(), tokenizer.to_json());
        let text = "The plot was not dull, but the acting wasn't.";
        assert_eq!(read.encode(text, 64).unwrap(), tokenizer.encode(text, 64).unwrap());
    }

    #[test]
    fn rows_are_cut_and_special_tokens_in_a_text_are_text() {
        let vocab = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n[\n]\nsep\n";
        let tokenizer = Tokenizer::from_vocab_txt("vocab.txt", vocab, true).unwrap();
        assert_eq!(tokenizer.encode("A b a b", 4).unwrap(), [2, 5, 6, 3]);
        assert_eq!(tokenizer.encode("", 4).unwrap(), [2, 3]);
        assert_eq!(tokenizer.encode("a [SEP] b", 16).unwrap(), [2, 5, 7, 9, 8, 6, 3]);
    }

    #[test]
    fn unusable_vocabularies_are_refused() {
        let refused = |result: Result<Tokenizer, DataError>| result.unwrap_err().to_string();
        let vocab = |bytes: &[u8]| refused(Tokenizer::from_vocab_txt("v", bytes, true));
        assert!(vocab(b"[PAD]\n[UNK]\n[CLS]\n[MASK]\n").contains("it has no token [SEP]"));
        assert!(vocab(b"[PAD]\na\nb\na\n").contains("token `a` stands on lines 2 and 4"));
        assert!(vocab(b"\xff").contains("utf-8"));
        assert!(refused(Tokenizer::from_tokenizer_json("t", b"{}")).starts_with("t: not a tokenizer to use here"));
        let cut = b"{\"version\":\"1.0\",\"decoder\":{\"type\":\"WordPiece\"";
        assert!(refused(Tokenizer::from_tokenizer_json("t", cut)).contains("EOF"));
        let other = refused(Tokenizer::from_tokenizer_json(
            "t",
            b"{\"model\":{\"type\":\"Unigram\"}}",
        ));
        assert!(
            other.contains("its model is Unigram; BERT's is one of `WordPiece`"),
            "{other}"
        );
        let gap = Tokenizer::from_vocab_txt("v", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n", true).unwrap();
        for id in ["4000000000", "1"] {
            let gap = gap.to_json().replace("\"a\":5", &format!("\"a\":{id}"));
            let error = refused(Tokenizer::from_tokenizer_json("t", gap.as_bytes()));
            assert!(error.contains("do not have the ids 0 to 5"), "{id}: {error}");
        }
    }

    #[test]
    fn berts_own_vocabulary_gives_berts_ids_from_either_file() {
        let Some(folder) = test_data::find("bert_vocab") else {
            return;
        };
        let bytes = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let json = Tokenizer::from_tokenizer_json("tokenizer.json", &bytes("tokenizer.json")).unwrap();
        let list = Tokenizer::from_vocab_txt("vocab.txt", &bytes("vocab.txt"), true).unwrap();
        assert_eq!(json.encode("Hello world!", 16).unwrap(), [101, 7592, 2088, 999, 102]);
        assert_eq!((json.vocab_size(), json.pad_id()), (30_522, 0));
        let mut sample = texts();
        sample.extend(
            [
                "Ünïcödé naïve café",
                "日本語 text",
                "unaffable \u{200b}zero\twidth",
                "[MASK] isn't [sep]",
            ]
            .map(String::from),
        );
        assert_eq!(
            json.encode_all(&sample, 64).unwrap(),
            list.encode_all(&sample, 64).unwrap()
        );
    }
}
