//! What a key takes: said once by the reader that asks for it, used for its messages, its checks and the JSON schema.

use std::fmt;
use std::ops::{Bound, RangeBounds};

/// The values that a key takes, as far as one key alone decides it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// A whole number, both bounds inclusive.
    Whole { least: u64, most: u64 },
    /// A finite number.
    Real(Interval),
    /// `true` or `false`.
    Flag,
    /// A string that is not empty.
    Text,
    /// A string that names something: letters, digits, `_` and `-`.
    Name,
    /// One of these strings.
    Choice(Vec<&'static str>),
    /// A list of so many elements, both bounds inclusive.
    List { each: Box<Self>, least: usize, most: usize },
    /// A table of keys.
    Table,
    /// Tables under names that the user chose.
    Tables,
    /// A list of tables.
    Records,
}

/// A range of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    pub least: Bound<f64>,
    pub most: Bound<f64>,
}

impl Shape {
    /// What takes whatever `self` or `other` takes; nothing if they are of different sorts.
    pub fn widened(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Whole { least, most }, Self::Whole { least: a, most: b }) => Some(Self::Whole {
                least: least.min(a),
                most: most.max(b),
            }),
            (Self::Real(one), Self::Real(other)) => Some(Self::Real(one.widened(other))),
            (one, other) => (one == other).then_some(one),
        }
    }
}

impl Interval {
    /// All finite numbers.
    pub const ALL: Self = Self {
        least: Bound::Unbounded,
        most: Bound::Unbounded,
    };

    /// From `least` on.
    pub const fn from(least: f64) -> Self {
        Self {
            least: Bound::Included(least),
            ..Self::ALL
        }
    }

    /// Above `least`.
    pub const fn above(least: f64) -> Self {
        Self {
            least: Bound::Excluded(least),
            ..Self::ALL
        }
    }

    /// The same, up to `most`.
    pub const fn to(self, most: f64) -> Self {
        Self {
            most: Bound::Included(most),
            ..self
        }
    }

    /// The same, below `most`.
    pub const fn below(self, most: f64) -> Self {
        Self {
            most: Bound::Excluded(most),
            ..self
        }
    }

    /// Whether `value` lies within.
    pub fn contains(&self, value: f64) -> bool {
        (self.least, self.most).contains(&value)
    }

    /// The smallest interval that holds both.
    fn widened(self, other: Self) -> Self {
        let outer = |one: Bound<f64>, other: Bound<f64>, further: fn(f64, f64) -> bool| match (one, other) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => Bound::Unbounded,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
                let is_one = further(a, b) || a == b && matches!(one, Bound::Included(_));
                if is_one { one } else { other }
            }
        };
        Self {
            least: outer(self.least, other.least, |a, b| a < b),
            most: outer(self.most, other.most, |a, b| a > b),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")?;
        match (self.least, self.most) {
            (Bound::Unbounded, Bound::Unbounded) => Ok(()),
            (Bound::Unbounded, Bound::Included(most)) => write!(f, " up to {most}"),
            (Bound::Unbounded, Bound::Excluded(most)) => write!(f, " below {most}"),
            (Bound::Included(least), Bound::Unbounded) => write!(f, " not below {least}"),
            (Bound::Included(least), Bound::Included(most)) => write!(f, " from {least} to {most}"),
            (Bound::Included(least), Bound::Excluded(most)) => write!(f, " from {least} to below {most}"),
            (Bound::Excluded(least), Bound::Unbounded) => write!(f, " above {least}"),
            (Bound::Excluded(least), Bound::Included(most)) => write!(f, " above {least} and up to {most}"),
            (Bound::Excluded(least), Bound::Excluded(most)) => write!(f, " above {least} and below {most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_reads_as_it_checks() {
        let cases = [
            (Interval::ALL, "a number", -9.0, f64::INFINITY),
            (Interval::from(0.0), "a number not below 0", 0.0, -0.1),
            (Interval::from(0.0).to(1.0), "a number from 0 to 1", 1.0, 1.1),
            (Interval::from(0.0).below(1.0), "a number from 0 to below 1", 0.0, 1.0),
            (Interval::above(0.0), "a number above 0", 0.1, 0.0),
            (
                Interval::above(50.0).to(100.0),
                "a number above 50 and up to 100",
                100.0,
                50.0,
            ),
            (
                Interval::above(0.0).below(1.0),
                "a number above 0 and below 1",
                0.5,
                1.0,
            ),
            (Interval::ALL.to(1.0), "a number up to 1", 1.0, 2.0),
            (Interval::ALL.below(1.0), "a number below 1", 0.0, 1.0),
        ];
        for (interval, words, inside, outside) in cases {
            assert_eq!(interval.to_string(), words);
            assert!(interval.contains(inside), "{words}");
            assert!(!interval.contains(outside) || outside.is_infinite(), "{words}");
        }
    }

    #[test]
    fn the_wider_of_two_shapes_takes_what_either_takes() {
        let real = |interval| Shape::Real(interval);
        let one = real(Interval::above(0.0).below(1.0));
        let other = real(Interval::from(0.0).to(0.5));
        assert_eq!(one.clone().widened(other), Some(real(Interval::from(0.0).below(1.0))));
        assert_eq!(one.clone().widened(real(Interval::ALL)), Some(real(Interval::ALL)));
        let whole = |least, most| Shape::Whole { least, most };
        assert_eq!(whole(1, 8).widened(whole(0, 4)), Some(whole(0, 8)));
        assert_eq!(one.widened(Shape::Flag), None);
    }
}
