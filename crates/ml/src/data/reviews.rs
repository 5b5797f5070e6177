//! `builtin:reviews`: short opinions in English, written by a seeded grammar, with the label known by construction.
//!
//! Negation, concession, hearsay and scope decide the label, so word counts say little and word order says all: a
//! bag-of-words logistic regression stays under 80 % (a test holds it there) while there is no label noise at all.
//! Row `i` depends on the seed and `i` alone, except that a sentence already written is drawn again; the test rows do not
//! depend on the number of training rows, and no sentence occurs twice in the two splits together.

mod grammar;
mod lexicon;

use std::collections::HashSet;

use orchestrate_kernels::{RandomKey, RandomStream};

use self::lexicon::Polarity;
use super::{Splits, TextRows};

/// Version of the grammar and its words: the same spec gives the same rows under the same version.
///
/// - 1: first.
pub const VERSION: u32 = 1;

/// The class names in label order.
pub const LABELS: [&str; 2] = ["negative", "positive"];

/// Sentence length in words and punctuation marks.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=24;

const PURPOSE_TRAIN: u32 = u32::from_be_bytes(*b"rvtr");
const PURPOSE_TEST: u32 = u32::from_be_bytes(*b"rvte");

/// How many sentences to write, from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReviewsSpec {
    pub train: usize,
    pub test: usize,
    pub seed: u64,
}

/// Writes both splits; labels alternate, so each split is balanced.
pub fn generate(spec: &ReviewsSpec) -> Splits<TextRows> {
    let mut written = HashSet::with_capacity(spec.train + spec.test);
    let test = rows(spec.test, spec.seed, PURPOSE_TEST, &mut written);
    let train = rows(spec.train, spec.seed, PURPOSE_TRAIN, &mut written);
    Splits { train, test }
}

fn rows(count: usize, seed: u64, purpose: u32, written: &mut HashSet<String>) -> TextRows {
    let mut rows = TextRows::default();
    for index in 0..count as u64 {
        let polarity = if index % 2 == 0 {
            Polarity::Negative
        } else {
            Polarity::Positive
        };
        let mut random = RandomStream::new(RandomKey {
            seed,
            purpose,
            step: index,
        });
        let text = loop {
            let text = grammar::write(&mut random, polarity);
            if LENGTH.contains(&length(&text)) && written.insert(text.clone()) {
                break text;
            }
        };
        rows.texts.push(text);
        rows.labels.push(polarity as u32);
    }
    rows
}

/// Words and punctuation marks of a sentence.
fn length(text: &str) -> usize {
    text.split(' ').count() + text.matches([',', '.']).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::linear_probe::{self, Rows};
    use super::*;

    const SPEC: ReviewsSpec = ReviewsSpec {
        train: 8000,
        test: 2000,
        seed: 1,
    };

    fn words(text: &str) -> Vec<String> {
        text.to_lowercase()
            .replace(',', " ,")
            .replace('.', " .")
            .split(' ')
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn no_sentence_occurs_twice_and_labels_are_balanced() {
        let Splits { train, test } = generate(&SPEC);
        let distinct: HashSet<&String> = train.texts.iter().chain(&test.texts).collect();
        assert_eq!(distinct.len(), SPEC.train + SPEC.test);
        assert_eq!(train.labels.iter().sum::<u32>() as usize, SPEC.train / 2);
        assert_eq!(test.labels.iter().sum::<u32>() as usize, SPEC.test / 2);
        assert!(train.texts.iter().all(|text| (8..=24).contains(&words(text).len())));
    }

    #[test]
    fn the_seed_says_everything_and_the_test_rows_ignore_the_training_rows() {
        let few = generate(&ReviewsSpec { train: 10, ..SPEC });
        let all = generate(&SPEC);
        assert_eq!(few.test, all.test);
        assert_eq!(few.train.texts, all.train.texts[..10]);
        assert_ne!(generate(&ReviewsSpec { seed: 2, ..SPEC }).test, all.test);
    }

    #[test]
    fn version_1_writes_what_it_always_wrote() {
        let Splits { train, test } = generate(&ReviewsSpec {
            train: 200,
            test: 100,
            seed: 0,
        });
        let written = [train.texts, test.texts].concat().join("\n");
        // A change here is a change of every reviews data set: raise VERSION.
        assert_eq!(
            blake3::hash(written.as_bytes()).to_hex().as_str(),
            "abbf11ccbb220be49b964b96c85ccb401f0480c09aa070a46505d7a79c7623eb"
        );
    }

    #[test]
    fn the_vocabulary_is_of_some_hundred_words() {
        let Splits { train, .. } = generate(&SPEC);
        let vocabulary: HashSet<String> = train.texts.iter().flat_map(|text| words(text)).collect();
        assert!((300..=500).contains(&vocabulary.len()), "{} words", vocabulary.len());
    }

    #[test]
    fn connectives_and_negators_are_as_frequent_under_either_label() {
        let Splits { train, .. } = generate(&SPEC);
        for word in [
            "not", "never", "hardly", "nobody", "neither", "but", "yet", "although", "despite", "only", "without",
        ] {
            let held = |label| {
                let rows = train.texts.iter().zip(&train.labels);
                rows.filter(|(text, own)| **own == label && words(text).iter().any(|other| other == word))
                    .count() as f64
            };
            let (negative, positive) = (held(0), held(1));
            assert!(negative + positive > 100.0, "`{word}` is rare");
            // Five standard deviations of a fair coin.
            let spread = 5.0 * (negative + positive).sqrt();
            assert!(
                (negative - positive).abs() < spread,
                "`{word}`: {negative} negative, {positive} positive"
            );
        }
    }

    #[test]
    fn bags_of_words_stay_under_80_percent() {
        let splits = generate(&SPEC);
        let mut ids = BTreeMap::new();
        for text in &splits.train.texts {
            for word in words(text) {
                let next = ids.len();
                ids.entry(word).or_insert(next);
            }
        }
        let rows = |rows: &TextRows| Rows {
            features: rows
                .texts
                .iter()
                .map(|text| {
                    words(text)
                        .iter()
                        .filter_map(|word| ids.get(word))
                        .map(|&id| (id, 1.0))
                        .collect()
                })
                .collect(),
            labels: rows.labels.clone(),
        };
        let (train, test) = (rows(&splits.train), rows(&splits.test));
        let accuracy = linear_probe::accuracy(&train, &test, ids.len(), 2, 20, 0.05);
        assert!((0.60..0.80).contains(&accuracy), "accuracy {accuracy}");
    }
}
