//! Rows of cells, one line each, their columns aligned by the widest cell.

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// The lines of `rows`; each row has as many cells as there are columns in `align`.
pub fn columns<const N: usize>(align: [Align; N], rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(widths)
            .zip(align)
            .map(|((cell, width), align)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
        let line = cells.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_where_they_should() {
        let rows = [["a", "größe"], ["name", "7"]].map(|row| row.map(str::to_owned));
        assert_eq!(
            columns([Align::Left, Align::Right], &rows),
            ["a     größe", "name      7"]
        );
    }
}
