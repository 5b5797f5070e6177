//! The words of the review grammar: nouns by domain, opinion words by polarity, and neutral padding.
//!
//! Opinion words come in two lists of one length, so that drawing an index gives both polarities the same chance.
//! Changing any word changes every data set made from it: raise `VERSION` in the parent module with it.

/// The side an opinion takes; its discriminant is the class label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polarity {
    Negative = 0,
    Positive = 1,
}

impl Polarity {
    pub(super) fn opposite(self) -> Self {
        match self {
            Polarity::Negative => Polarity::Positive,
            Polarity::Positive => Polarity::Negative,
        }
    }
}

/// Opinion words of both sides, of equal number.
pub(super) struct Opinions<T: 'static> {
    pub(super) negative: &'static [T],
    pub(super) positive: &'static [T],
}

impl<T> Opinions<T> {
    pub(super) fn of(&self, polarity: Polarity) -> &'static [T] {
        match polarity {
            Polarity::Negative => self.negative,
            Polarity::Positive => self.positive,
        }
    }
}

/// Something a review can judge, with an adjective of each polarity that suits it in particular.
pub(super) struct Noun {
    pub(super) text: &'static str,
    pub(super) plural: bool,
    negative: &'static str,
    positive: &'static str,
}

impl Noun {
    pub(super) fn adjective(&self, polarity: Polarity) -> &'static str {
        match polarity {
            Polarity::Negative => self.negative,
            Polarity::Positive => self.positive,
        }
    }
}

const fn one(text: &'static str, negative: &'static str, positive: &'static str) -> Noun {
    Noun {
        text,
        plural: false,
        negative,
        positive,
    }
}

const fn many(text: &'static str, negative: &'static str, positive: &'static str) -> Noun {
    Noun {
        text,
        plural: true,
        negative,
        positive,
    }
}

/// A field that reviews are about.
pub(super) struct Domain {
    pub(super) nouns: &'static [Noun],
    /// Statements without an opinion, joined to a clause by "and" or "but".
    pub(super) facts: &'static [&'static str],
    /// Neutral phrases that may end a clause.
    pub(super) endings: &'static [&'static str],
}

/// A verb in the two forms that the grammar needs.
pub(super) struct Verb {
    pub(super) base: &'static str,
    pub(super) past: &'static str,
}

const fn verb(base: &'static str, past: &'static str) -> Verb {
    Verb { base, past }
}

/// Adjectives that suit any noun.
pub(super) const ADJECTIVES: Opinions<&str> = Opinions {
    negative: &[
        "bad",
        "awful",
        "terrible",
        "dreadful",
        "horrible",
        "poor",
        "disappointing",
        "mediocre",
        "unpleasant",
        "miserable",
        "appalling",
        "shoddy",
    ],
    positive: &[
        "good",
        "great",
        "wonderful",
        "superb",
        "excellent",
        "brilliant",
        "splendid",
        "delightful",
        "impressive",
        "fantastic",
        "pleasant",
        "remarkable",
    ],
};

/// What a noun does to the reviewer ("the ending bored me").
pub(super) const EFFECTS: Opinions<Verb> = Opinions {
    negative: &[
        verb("bore", "bored"),
        verb("annoy", "annoyed"),
        verb("disappoint", "disappointed"),
        verb("frustrate", "frustrated"),
        verb("irritate", "irritated"),
    ],
    positive: &[
        verb("impress", "impressed"),
        verb("delight", "delighted"),
        verb("amaze", "amazed"),
        verb("please", "pleased"),
        verb("thrill", "thrilled"),
    ],
};

/// What the reviewer feels for a noun ("I loved the ending").
pub(super) const ATTITUDES: Opinions<Verb> = Opinions {
    negative: &[
        verb("hate", "hated"),
        verb("dislike", "disliked"),
        verb("regret", "regretted"),
        verb("detest", "detested"),
    ],
    positive: &[
        verb("love", "loved"),
        verb("like", "liked"),
        verb("enjoy", "enjoyed"),
        verb("admire", "admired"),
    ],
};

pub(super) const DEGREES: &[&str] = &[
    "very",
    "truly",
    "really",
    "quite",
    "so",
    "simply",
    "especially",
    "rather",
];

pub(super) const OPENERS: &[&str] = &[
    "in my opinion",
    "to be honest",
    "all things considered",
    "for me",
    "in the end",
    "as far as I can tell",
    "looking back",
    "at first sight",
    "this time",
    "once again",
];

pub(super) const REPORTERS: &[&str] = &[
    "critics",
    "my friends",
    "other people",
    "most reviewers",
    "my parents",
    "several colleagues",
    "the neighbours",
    "many others",
];

pub(super) const DOMAINS: &[Domain] = &[
    Domain {
        nouns: &[
            one("film", "dull", "moving"),
            one("movie", "dull", "clever"),
            one("plot", "dull", "clever"),
            one("acting", "weak", "moving"),
            one("dialogue", "clumsy", "sharp"),
            one("ending", "weak", "moving"),
            one("music", "dull", "moving"),
            one("script", "clumsy", "clever"),
            many("jokes", "stale", "fresh"),
            many("special effects", "cheap", "vivid"),
        ],
        facts: &[
            "we saw it on a friday evening",
            "I watched it at home",
            "it runs for two hours",
            "the cinema was half full",
            "we sat in the third row",
        ],
        endings: &[
            "from start to finish",
            "on the second viewing",
            "on the big screen",
            "after the first hour",
        ],
    },
    Domain {
        nouns: &[
            one("restaurant", "dirty", "cosy"),
            one("food", "stale", "fresh"),
            one("service", "rude", "friendly"),
            one("soup", "stale", "fresh"),
            one("dessert", "stale", "fresh"),
            one("menu", "dull", "clever"),
            one("wine", "cheap", "elegant"),
            many("waiters", "rude", "friendly"),
            many("drinks", "weak", "fresh"),
            many("vegetables", "stale", "fresh"),
        ],
        facts: &[
            "we had booked a table for four",
            "we ordered three courses",
            "I came with my family",
            "it opens at noon",
            "we sat near the window",
        ],
        endings: &[
            "on a busy friday",
            "on our second visit",
            "at lunch",
            "from the first bite",
        ],
    },
    Domain {
        nouns: &[
            one("phone", "slow", "reliable"),
            one("screen", "ugly", "sharp"),
            one("battery", "weak", "reliable"),
            one("camera", "slow", "sharp"),
            one("speaker", "weak", "reliable"),
            one("keyboard", "clumsy", "reliable"),
            one("design", "ugly", "elegant"),
            one("software", "slow", "reliable"),
            many("buttons", "cheap", "elegant"),
            many("cables", "weak", "reliable"),
        ],
        facts: &[
            "I bought it in the spring",
            "it came in a grey box",
            "I use it every day",
            "my brother has the same one",
            "it arrived on monday",
        ],
        endings: &[
            "after a month of use",
            "out of the box",
            "at work",
            "since the last update",
        ],
    },
    Domain {
        nouns: &[
            one("hotel", "shabby", "cosy"),
            one("room", "dirty", "clean"),
            one("bed", "shabby", "cosy"),
            one("breakfast", "stale", "fresh"),
            one("pool", "dirty", "clean"),
            one("lobby", "shabby", "elegant"),
            one("bathroom", "dirty", "clean"),
            one("view", "dull", "vivid"),
            one("staff", "rude", "friendly"),
            many("towels", "shabby", "clean"),
        ],
        facts: &[
            "we stayed for three nights",
            "our room was on the fifth floor",
            "we arrived late in the evening",
            "it stands close to the station",
            "we travelled with two children",
        ],
        endings: &[
            "during our stay",
            "on the first evening",
            "every morning",
            "at the weekend",
        ],
    },
    Domain {
        nouns: &[
            one("book", "dull", "clever"),
            one("novel", "dull", "moving"),
            one("story", "clumsy", "moving"),
            one("prose", "clumsy", "elegant"),
            one("argument", "weak", "sharp"),
            one("narrator", "dull", "clever"),
            one("opening", "slow", "clever"),
            many("characters", "dull", "vivid"),
            many("chapters", "slow", "vivid"),
            many("illustrations", "ugly", "vivid"),
        ],
        facts: &[
            "I read it on the train",
            "it has nearly four hundred pages",
            "I borrowed it from the library",
            "it was printed in two volumes",
            "I finished it within a week",
        ],
        endings: &[
            "on a second reading",
            "in the last part",
            "on the whole",
            "until the last page",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_polarities_have_as_many_words_and_share_none() {
        assert_eq!(ADJECTIVES.negative.len(), ADJECTIVES.positive.len());
        assert_eq!(EFFECTS.negative.len(), EFFECTS.positive.len());
        assert_eq!(ATTITUDES.negative.len(), ATTITUDES.positive.len());
        let side = |polarity| -> Vec<&str> {
            let nouns = DOMAINS.iter().flat_map(|domain| domain.nouns);
            ADJECTIVES
                .of(polarity)
                .iter()
                .copied()
                .chain(nouns.map(|noun| noun.adjective(polarity)))
                .collect()
        };
        let positive = side(Polarity::Positive);
        assert!(side(Polarity::Negative).iter().all(|word| !positive.contains(word)));
    }
}
