//! The last lines of a log, as many as fit.

use std::collections::VecDeque;

/// Bytes that are kept.
const LIMIT: usize = 16 << 10;

/// Keeps the last lines that it is given.
#[derive(Debug, Default)]
pub(crate) struct LogTail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl LogTail {
    /// Adds a line; the oldest go if there are too many, and the line's own end if it is too long by itself.
    pub(crate) fn push(&mut self, line: &str) {
        let end = (0..=LIMIT.min(line.len()))
            .rev()
            .find(|at| line.is_char_boundary(*at))
            .unwrap_or(0);
        let line = &line[..end];
        self.bytes += line.len() + 1;
        self.lines.push_back(line.to_owned());
        while self.bytes > LIMIT + 1 {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len() + 1;
        }
    }

    /// The lines that are kept.
    pub(crate) fn text(&self) -> String {
        self.lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_within_the_limit() {
        let mut tail = LogTail::default();
        for line in 0..10_000 {
            tail.push(&line.to_string());
        }
        let text = tail.text();
        assert!(text.ends_with("9998\n9999") && text.len() <= LIMIT && text.len() > LIMIT - 10);
        tail.push(&"é".repeat(LIMIT));
        assert_eq!(tail.text(), "é".repeat(LIMIT / 2));
    }
}
