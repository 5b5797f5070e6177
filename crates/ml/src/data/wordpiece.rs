//! Learns a WordPiece vocabulary from words and their counts, the same on every run.
//!
//! Words start as characters, those after the first marked by `##`; the most frequent adjacent pair of tokens is merged
//! into one until the vocabulary is full (Sennrich, Haddow, Birch 2016, §3.2; the result is used as the vocabulary of
//! Schuster & Nakajima 2012's longest-match segmentation). Counts are integers and ties go to the pair of earlier tokens,
//! so neither rounding nor the order of a hash map can change the outcome. It does not tokenise: see the parent's
//! `tokenizer`.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use std::cmp::Reverse;

/// The mark of a token that continues a word.
pub(super) const CONTINUATION: &str = "##";
/// Longer words are never cut into tokens, so nothing is learnt from them.
const LONGEST_WORD: usize = 100;
/// A pair seen less often is not worth a token.
const LEAST_COUNT: u64 = 2;

type Pair = (u32, u32);

/// `reserved`, then the alphabet in byte order, then merged tokens in the order of merging; at most `size` tokens.
///
/// If the alphabet alone does not fit, its most frequent characters are kept.
pub(super) fn learn(words: &BTreeMap<String, u64>, reserved: &[&str], size: usize) -> Vec<String> {
    let alphabet = alphabet(words, size.saturating_sub(reserved.len()));
    let mut learner = Learner::new(reserved.iter().map(|&token| token.to_owned()).chain(alphabet).collect());
    for (word, count) in words.iter().filter(|(word, _)| word.chars().count() <= LONGEST_WORD) {
        learner.add(word, *count);
    }
    learner.merge_up_to(size);
    learner.tokens
}

/// The single-character tokens of a word, in order.
fn characters(word: &str) -> impl Iterator<Item = String> {
    word.chars().enumerate().map(|(place, c)| {
        if place == 0 {
            c.to_string()
        } else {
            format!("{CONTINUATION}{c}")
        }
    })
}

fn alphabet(words: &BTreeMap<String, u64>, room: usize) -> BTreeSet<String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (word, count) in words {
        for token in characters(word) {
            *counts.entry(token).or_default() += count;
        }
    }
    let mut ranked: Vec<(String, u64)> = counts.into_iter().collect();
    ranked.sort_by_key(|(_, count)| Reverse(*count));
    ranked.into_iter().take(room).map(|(token, _)| token).collect()
}

struct Word {
    tokens: Vec<u32>,
    count: u64,
}

impl Word {
    fn pairs(&self) -> impl Iterator<Item = Pair> + '_ {
        self.tokens.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// Replaces each occurrence of `pair`, from the left.
    fn merge(&mut self, pair: Pair, merged: u32) {
        let mut kept = Vec::with_capacity(self.tokens.len());
        let mut rest = self.tokens.as_slice();
        while let [first, tail @ ..] = rest {
            if tail.first().is_some_and(|second| (*first, *second) == pair) {
                kept.push(merged);
                rest = &tail[1..];
            } else {
                kept.push(*first);
                rest = tail;
            }
        }
        self.tokens = kept;
    }
}

/// The vocabulary so far, the words cut by it, and the counts of adjacent pairs.
struct Learner {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    words: Vec<Word>,
    counts: HashMap<Pair, u64>,
    /// The words that have held a pair; some may hold it no more.
    holders: HashMap<Pair, BTreeSet<usize>>,
    /// Pairs by count, then the earliest; an entry whose count has changed since is passed over.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Learner {
    fn new(tokens: Vec<String>) -> Self {
        let ids = (0u32..).zip(&tokens).map(|(id, token)| (token.clone(), id)).collect();
        let (counts, holders) = (HashMap::new(), HashMap::new());
        Self {
            tokens,
            ids,
            words: Vec::new(),
            counts,
            holders,
            queue: BinaryHeap::new(),
        }
    }

    /// Adds a word, unless it has a character outside the alphabet.
    fn add(&mut self, word: &str, count: u64) {
        let Some(tokens) = characters(word).map(|token| self.ids.get(&token).copied()).collect() else {
            return;
        };
        self.words.push(Word { tokens, count });
        self.count_pairs(self.words.len() - 1);
    }

    fn count_pairs(&mut self, index: usize) {
        let word = &self.words[index];
        for pair in word.pairs() {
            *self.counts.entry(pair).or_default() += word.count;
            self.holders.entry(pair).or_default().insert(index);
        }
    }

    fn uncount_pairs(&mut self, index: usize) {
        let word = &self.words[index];
        for pair in word.pairs() {
            *self.counts.get_mut(&pair).expect("a held pair is counted") -= word.count;
        }
    }

    fn merge_up_to(&mut self, size: usize) {
        self.queue = self
            .counts
            .iter()
            .map(|(pair, count)| (*count, Reverse(*pair)))
            .collect();
        while self.tokens.len() < size {
            let Some((count, Reverse(pair))) = self.queue.pop() else {
                break;
            };
            if count != self.counts[&pair] {
                continue;
            }
            if count < LEAST_COUNT {
                break;
            }
            self.merge(pair);
        }
    }

    fn merge(&mut self, pair: Pair) {
        let merged = self.merged_token(pair);
        let mut touched = BTreeSet::new();
        for index in self.holders.remove(&pair).unwrap_or_default() {
            touched.extend(self.words[index].pairs());
            self.uncount_pairs(index);
            self.words[index].merge(pair, merged);
            self.count_pairs(index);
            touched.extend(self.words[index].pairs());
        }
        for pair in touched {
            let count = self.counts[&pair];
            if count > 0 {
                self.queue.push((count, Reverse(pair)));
            }
        }
    }

    /// The id of a pair's concatenation, which another pair may have made before.
    fn merged_token(&mut self, (left, right): Pair) -> u32 {
        let right = &self.tokens[right as usize];
        let text = format!(
            "{}{}",
            self.tokens[left as usize],
            right.strip_prefix(CONTINUATION).unwrap_or(right)
        );
        let next = u32::try_from(self.tokens.len()).expect("a vocabulary is far smaller than 2³²");
        let id = *self.ids.entry(text.clone()).or_insert(next);
        if id == next {
            self.tokens.push(text);
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(words: &[(&str, u64)]) -> BTreeMap<String, u64> {
        words.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
    }

    #[test]
    fn the_most_frequent_pair_is_merged_first() {
        // Pairs: h##u 15, ##u##g 20, ##u##n 16, p##u 17, ##g##s 5, b##u 4.
        let words = counts(&[("hug", 10), ("pug", 5), ("pun", 12), ("bun", 4), ("hugs", 5)]);
        let tokens = learn(&words, &["[UNK]"], 11);
        let alphabet = ["[UNK]", "##g", "##n", "##s", "##u", "b", "h", "p"];
        assert_eq!(tokens[..8], alphabet);
        // After ##ug (20): h##ug 15, p##ug 5, p##u 12, ##u##n 16; then ##un (16), then hug (15).
        assert_eq!(tokens[8..], ["##ug", "##un", "hug"]);
    }

    #[test]
    fn ties_go_to_the_pair_of_earlier_tokens() {
        let words = counts(&[("ba", 3), ("dc", 3)]);
        assert_eq!(learn(&words, &[], 5), ["##a", "##c", "b", "d", "ba"]);
    }

    #[test]
    fn a_small_vocabulary_keeps_the_most_frequent_characters() {
        let words = counts(&[("a", 1), ("b", 9), ("c", 5)]);
        assert_eq!(learn(&words, &["[UNK]"], 3), ["[UNK]", "b", "c"]);
    }

    #[test]
    fn a_repeated_pair_in_one_word_is_merged_everywhere() {
        let words = counts(&[("aaaa", 5)]);
        // ##a##a occurs twice a word: 10; then a##aa and a rest of ##a.
        let tokens = learn(&words, &[], 10);
        assert_eq!(tokens[..3], ["##a", "a", "##aa"]);
        assert!(
            tokens.contains(&"aaaa".to_owned()),
            "merging goes on to the whole word: {tokens:?}"
        );
    }
}
