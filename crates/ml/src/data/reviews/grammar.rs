//! The rules of the review grammar: how one opinion becomes a sentence.
//!
//! Every choice but the opinion words is drawn without regard to the opinion, so that connectives and negators are as
//! frequent under one label as under the other. Derivations are at most three rules deep: a connective over a negator
//! over a word. Rules of meaning:
//!
//! - a negator turns its own clause, and no other; two of them cancel;
//! - after "but" and "yet" the last clause decides; with "although" and "despite" the main clause does;
//! - what others said or expected does not count beside what the reviewer says;
//! - "not only … but also" negates nothing.

use orchestrate_kernels::RandomStream;

use super::lexicon::{ADJECTIVES, ATTITUDES, DEGREES, DOMAINS, Domain, EFFECTS, Noun, OPENERS, Polarity, REPORTERS};

/// The outermost rule of a sentence, drawn by weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Negated,
    DoublyNegated,
    But,
    Although,
    Reported,
    Scope,
    NotOnly,
}

/// Weights in percent. Forms in which an opinion word keeps its own side (plain, double negation, "not only") slightly
/// outweigh those that turn it: a linear model has something to learn, yet far too little to finish.
const FORMS: [(Form, usize); 8] = [
    (Form::Plain, 32),
    (Form::Negated, 13),
    (Form::DoublyNegated, 6),
    (Form::But, 15),
    (Form::Although, 12),
    (Form::Reported, 9),
    (Form::Scope, 6),
    (Form::NotOnly, 7),
];

/// Writes one sentence of the given polarity: capitalised, ended by a full stop.
pub(super) fn write(random: &mut RandomStream, polarity: Polarity) -> String {
    let domain = pick(random, DOMAINS);
    let mut writer = Writer {
        random,
        domain,
        mentioned: Vec::new(),
    };
    let body = writer.sentence(polarity);
    finish(&body)
}

fn finish(body: &str) -> String {
    let mut chars = body.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).chain(['.']).collect()
}

fn pick<T>(random: &mut RandomStream, items: &'static [T]) -> &'static T {
    &items[random.below(items.len())]
}

/// One sentence in the making.
struct Writer<'a> {
    random: &'a mut RandomStream,
    domain: &'static Domain,
    /// Nouns and adjectives already used, which the sentence does not use again.
    mentioned: Vec<&'static str>,
}

impl Writer<'_> {
    fn sentence(&mut self, polarity: Polarity) -> String {
        let form = self.form();
        match form {
            Form::Plain => self.plain(polarity),
            Form::Negated => self.negated(polarity),
            Form::DoublyNegated => self.doubly_negated(polarity),
            Form::But => self.but(polarity),
            Form::Although => self.although(polarity),
            Form::Reported => self.reported(polarity),
            Form::Scope => self.scope(polarity),
            Form::NotOnly => self.not_only(polarity),
        }
    }

    fn form(&mut self) -> Form {
        let total = FORMS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.random.below(total);
        for (form, weight) in FORMS {
            if drawn < weight {
                return form;
            }
            drawn -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }

    /// True in `percent` of a hundred draws.
    fn chance(&mut self, percent: usize) -> bool {
        self.random.below(100) < percent
    }

    fn one_of<T>(&mut self, items: &'static [T]) -> &'static T {
        pick(self.random, items)
    }

    // Sentences.

    fn plain(&mut self, polarity: Polarity) -> String {
        let first = self.plain_clause(polarity);
        if self.chance(30) {
            let second = self.plain_clause(polarity);
            return format!("{first} and {second}");
        }
        self.padded(first)
    }

    fn negated(&mut self, polarity: Polarity) -> String {
        let clause = if self.chance(40) {
            let outer = self.outer_negator();
            format!("{outer} {}", self.plain_clause(polarity.opposite()))
        } else {
            self.negated_clause(polarity)
        };
        self.padded(clause)
    }

    fn doubly_negated(&mut self, polarity: Polarity) -> String {
        let clause = if self.chance(30) {
            let outer = self.outer_negator();
            format!("{outer} {}", self.negated_clause(polarity.opposite()))
        } else {
            let subject = self.noun().text;
            let verb = self.one_of(EFFECTS.of(polarity)).base;
            let negator = *self.one_of(&["never failed to", "did not fail to"]);
            format!("the {subject} {negator} {verb} me")
        };
        self.padded(clause)
    }

    fn but(&mut self, polarity: Polarity) -> String {
        let first = if self.chance(15) {
            String::from(*self.one_of(self.domain.facts))
        } else {
            self.clause(polarity.opposite())
        };
        let connective = *self.one_of(&["but", "yet", "but still", "but in the end"]);
        let second = self.clause(polarity);
        format!("{first}, {connective} {second}")
    }

    fn although(&mut self, polarity: Polarity) -> String {
        let concession = if self.chance(30) {
            let (noun, adjective) = self.judged(polarity.opposite());
            format!("despite the {adjective} {}", noun.text)
        } else {
            let connective = *self.one_of(&["although", "though", "even though", "while"]);
            format!("{connective} {}", self.clause(polarity.opposite()))
        };
        let main = self.clause(polarity);
        if self.chance(50) {
            format!("{concession}, {main}")
        } else {
            format!("{main}, {concession}")
        }
    }

    fn reported(&mut self, polarity: Polarity) -> String {
        let hearsay = self.hearsay(polarity.opposite());
        let own = self.clause(polarity);
        if self.chance(70) {
            let connective = *self.one_of(&["but", "yet", "but for me"]);
            format!("{hearsay}, {connective} {own}")
        } else {
            let connective = *self.one_of(&["although", "though", "even though"]);
            format!("{own}, {connective} {hearsay}")
        }
    }

    /// An opinion that is not the reviewer's own present one.
    fn hearsay(&mut self, polarity: Polarity) -> String {
        let (noun, adjective) = self.judged(polarity);
        let reporter = *self.one_of(REPORTERS);
        match self.random.below(3) {
            0 => format!("{reporter} called the {} {adjective}", noun.text),
            1 => format!("I expected the {} to be {adjective}", noun.text),
            _ => format!("{reporter} found the {} {adjective}", noun.text),
        }
    }

    /// Two clauses of one polarity, of which one is negated: the negator must not reach the other.
    fn scope(&mut self, polarity: Polarity) -> String {
        if self.chance(25) {
            let (noun, kept) = self.judged(polarity);
            let denied = self.adjective(noun, polarity.opposite());
            return self.padded(format!(
                "the {} {} {kept} without being {denied}",
                noun.text,
                copula(noun)
            ));
        }
        let negated = self.negated_clause(polarity);
        let plain = self.plain_clause(polarity);
        if self.chance(50) {
            format!("{negated}, and {plain}")
        } else {
            format!("{plain}, and {negated}")
        }
    }

    fn not_only(&mut self, polarity: Polarity) -> String {
        let (noun, first) = self.judged(polarity);
        let second = self.adjective(noun, polarity);
        self.padded(format!(
            "the {} {} not only {first} but also {second}",
            noun.text,
            copula(noun)
        ))
    }

    /// A clause with neutral words before or after it.
    fn padded(&mut self, clause: String) -> String {
        let opener = *self.one_of(OPENERS);
        let ending = *self.one_of(self.domain.endings);
        let fact = *self.one_of(self.domain.facts);
        match self.random.below(4) {
            0 => format!("{opener}, {clause}"),
            1 => format!("{clause} {ending}"),
            2 => format!("{fact}, and {clause}"),
            _ => format!("{opener}, {clause} {ending}"),
        }
    }

    // Clauses.

    fn clause(&mut self, polarity: Polarity) -> String {
        if self.chance(20) {
            self.negated_clause(polarity)
        } else {
            self.plain_clause(polarity)
        }
    }

    fn plain_clause(&mut self, polarity: Polarity) -> String {
        match self.random.below(10) {
            0 | 1 => {
                let verb = self.one_of(EFFECTS.of(polarity)).past;
                format!("the {} {verb} me", self.noun().text)
            }
            2 | 3 => {
                let verb = self.one_of(ATTITUDES.of(polarity)).past;
                format!("I {verb} the {}", self.noun().text)
            }
            _ => {
                let (noun, adjective) = self.judged(polarity);
                let (text, be) = (noun.text, copula(noun));
                if self.chance(50) {
                    format!("the {text} {be} {} {adjective}", self.one_of(DEGREES))
                } else {
                    format!("the {text} {be} {adjective}")
                }
            }
        }
    }

    fn negated_clause(&mut self, polarity: Polarity) -> String {
        let denied = polarity.opposite();
        match self.random.below(10) {
            0 | 1 => {
                let verb = self.one_of(EFFECTS.of(denied));
                let subject = self.noun().text;
                match self.random.below(3) {
                    0 => format!("the {subject} did not {} me", verb.base),
                    1 => format!("the {subject} never {} me", verb.past),
                    _ => format!("the {subject} hardly {} me", verb.past),
                }
            }
            2 | 3 => {
                let verb = self.one_of(ATTITUDES.of(denied));
                let object = self.noun().text;
                match self.random.below(3) {
                    0 => format!("I did not {} the {object}", verb.base),
                    1 => format!("I never {} the {object}", verb.past),
                    _ => format!("I hardly {} the {object}", verb.past),
                }
            }
            _ => self.negated_judgement(denied),
        }
    }

    fn negated_judgement(&mut self, denied: Polarity) -> String {
        let (noun, adjective) = self.judged(denied);
        let (text, be) = (noun.text, copula(noun));
        match self.random.below(10) {
            0 => format!("nobody could call the {text} {adjective}"),
            1 => format!("I would not call the {text} {adjective}"),
            2 => format!(
                "the {text} {be} neither {adjective} nor {}",
                self.adjective(noun, denied)
            ),
            _ => {
                let negator = *self.one_of(&["not", "not", "never", "hardly", "far from", "anything but"]);
                format!("the {text} {be} {negator} {adjective}")
            }
        }
    }

    fn outer_negator(&mut self) -> &'static &'static str {
        self.one_of(&[
            "nobody could say that",
            "it is not true that",
            "I would never claim that",
        ])
    }

    // Words.

    fn noun(&mut self) -> &'static Noun {
        loop {
            let noun = self.one_of(self.domain.nouns);
            if !self.mentioned.contains(&noun.text) {
                self.mentioned.push(noun.text);
                return noun;
            }
        }
    }

    /// A noun and what is said of it.
    fn judged(&mut self, polarity: Polarity) -> (&'static Noun, &'static str) {
        let noun = self.noun();
        (noun, self.adjective(noun, polarity))
    }

    /// An adjective that the sentence has not used, general or particular to the noun.
    fn adjective(&mut self, noun: &'static Noun, polarity: Polarity) -> &'static str {
        loop {
            let general = self.chance(70);
            let word = if general {
                *self.one_of(ADJECTIVES.of(polarity))
            } else {
                noun.adjective(polarity)
            };
            if !self.mentioned.contains(&word) {
                self.mentioned.push(word);
                return word;
            }
        }
    }
}

fn copula(noun: &Noun) -> &'static str {
    if noun.plural { "were" } else { "was" }
}
