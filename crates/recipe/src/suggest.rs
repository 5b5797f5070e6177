//! "Did you mean", and lists of names for messages.

/// Longer words are not compared: the comparison takes time in the product of the lengths.
const LONGEST: usize = 64;
/// Longer lists are cut.
const SHOWN: usize = 40;

/// The name most like `word`, if one is like it at all: few typing errors apart, or one part of the other.
pub(crate) fn closest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let folded = fold(word);
    let allowed = (word.chars().count() / 3).max(1);
    names
        .into_iter()
        .filter(|name| name.len() <= LONGEST)
        .filter_map(|name| {
            let name_folded = fold(name);
            let distance = strsim::damerau_levenshtein(&folded, &name_folded);
            let part = folded.len() >= 3 && name_folded.contains(&folded)
                || name_folded.len() >= 3 && folded.contains(&name_folded);
            (distance <= allowed || part).then_some((distance, name))
        })
        .min()
        .map(|(_, name)| name)
}

fn fold(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

/// `` `a`, `b` and `c` ``.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut all: Vec<String> = names.into_iter().map(quoted).collect();
    if all.len() > SHOWN {
        let more = all.len() - SHOWN;
        all.truncate(SHOWN);
        return format!("{} and {more} more", all.join(", "));
    }
    match all.pop() {
        None => "none".to_owned(),
        Some(last) if all.is_empty() => last,
        Some(last) => format!("{} and {last}", all.join(", ")),
    }
}

/// The start of a help: `` did you mean `a`?  ``, or nothing.
pub(crate) fn did_you_mean<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    closest(word, names).map_or_else(String::new, |name| format!("did you mean `{name}`? "))
}

/// A name from the recipe in backticks: escaped, and cut if it is long.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", shortened(name))
}

/// `text` with control characters escaped, cut to a length that a message can bear.
pub(crate) fn shortened(text: &str) -> String {
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(LONGEST).collect();
    let mut start = escaped(&start);
    if characters.next().is_some() {
        start.push('…');
    }
    start
}

/// `text` with control characters escaped.
pub(crate) fn escaped(text: &str) -> String {
    let mut result = String::new();
    for c in text.chars() {
        if c.is_control() {
            result.extend(c.escape_default());
        } else {
            result.push(c);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_finds_its_name() {
        let names = ["epochs", "learning_rate", "momentum", "max_steps"];
        let find = |word| closest(word, names);
        assert_eq!(find("epoch"), Some("epochs"));
        assert_eq!(find("Learning-Rate"), Some("learning_rate"));
        assert_eq!(find("rate"), Some("learning_rate"));
        assert_eq!(find("monemtum"), Some("momentum"));
        assert_eq!(find("colour"), None);
        assert_eq!(find(&"x".repeat(1000)), None);
    }

    #[test]
    fn lists_read_as_text_and_end() {
        assert_eq!(listed(["a"]), "`a`");
        assert_eq!(listed(["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(listed([]), "none");
        let many: Vec<String> = (0..100).map(|i| i.to_string()).collect();
        assert!(listed(many.iter().map(String::as_str)).ends_with("`39` and 60 more"));
        assert_eq!(quoted("a\u{1b}b"), "`a\\u{1b}b`");
    }
}
