//! Labelled texts, vocabularies and tokenizers.

use orchestrate_ml::data::Tokenizer;
use orchestrate_ml::data::text_file::{Columns, LabelNames, TextFormat, read as read_texts};
use std::path::Path;

const COLUMNS: Columns<'static> = Columns {
    text: "sentence",
    label: "label",
};
/// Words, punctuation, accents, another script, a special token spelled out, and none of it.
const TEXTS: [&str; 4] = [
    "the film was not bad, at all!",
    "Ünïcödé naïve 日本語",
    "[MASK] [sep]\u{200b}\t\n",
    "",
];

pub fn read(bytes: &[u8], folder: &Path) {
    let Some((format, text)) = bytes.split_first() else {
        return;
    };
    let format = match format % 3 {
        0 => TextFormat::Tsv,
        1 => TextFormat::Csv,
        _ => TextFormat::Jsonl,
    };
    let path = crate::file(folder, "texts", text);
    let Ok(rows) = read_texts(&path, Some(format), COLUMNS) else {
        return;
    };
    assert!(!rows.texts.is_empty() && rows.texts.len() == rows.labels.len());
    if let Ok(names) = LabelNames::from_training(&path, &rows) {
        let ids = names
            .ids(&path, &rows)
            .expect("the rows have the classes that were read from them");
        assert_eq!(ids.len(), rows.texts.len());
    }
}

pub fn read_tokenizer(bytes: &[u8]) {
    let Some((which, file)) = bytes.split_first() else {
        return;
    };
    let read = match which % 3 {
        0 => Tokenizer::from_vocab_txt("vocab.txt", file, true),
        1 => Tokenizer::from_vocab_txt("vocab.txt", file, false),
        _ => Tokenizer::from_tokenizer_json("tokenizer.json", file),
    };
    let Ok(tokenizer) = read else { return };
    for text in TEXTS {
        if let Ok(ids) = tokenizer.encode(text, 8) {
            assert!((2..=8).contains(&ids.len()));
            assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        }
    }
    let again = Tokenizer::from_tokenizer_json("tokenizer.json", tokenizer.to_json().as_bytes());
    assert!(again.is_ok_and(|again| again == tokenizer));
}
