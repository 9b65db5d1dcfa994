//! Columns that line up, whatever their colours and alphabets.

use console::measure_text_width;

/// Rows of cells; the first row is usually the heading.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns whose cells end on one line, such as sizes.
    right: Vec<usize>,
}

impl Table {
    pub fn new<const N: usize>(heading: [&str; N]) -> Table {
        let mut table = Table::default();
        table.row(heading.map(str::to_owned));
        table
    }

    /// A table without a heading.
    pub fn bare() -> Table {
        Table::default()
    }

    #[must_use]
    pub fn right<const N: usize>(mut self, columns: [usize; N]) -> Table {
        self.right = columns.into();
        self
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.rows.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Without the columns behind the first so many.
    #[must_use]
    pub fn first_columns(mut self, columns: usize) -> Table {
        self.rows.iter_mut().for_each(|row| row.truncate(columns));
        self
    }

    /// Lines, each begun with `indent`, without blanks at their ends.
    pub fn lines(&self, indent: &str) -> Vec<String> {
        let widths: Vec<usize> = (0..self.columns())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells
                    .map(|cell| measure_text_width(cell))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        self.rows
            .iter()
            .map(|row| {
                let cells: Vec<String> = row
                    .iter()
                    .enumerate()
                    .map(|(column, cell)| self.padded(column, cell, widths[column]))
                    .collect();
                format!("{indent}{}", cells.join("  "))
                    .trim_end()
                    .to_owned()
            })
            .collect()
    }

    fn padded(&self, column: usize, cell: &str, width: usize) -> String {
        let blanks = " ".repeat(width.saturating_sub(measure_text_width(cell)));
        if self.right.contains(&column) {
            format!("{blanks}{cell}")
        } else {
            format!("{cell}{blanks}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["POINT", "SIZE", "WHERE"]).right([1]);
        table.row(["1.42".into(), "1.2 GiB".into(), String::new()]);
        table.row(["1.4é".into(), "9 B".into(), "birch".into()]);
        assert_eq!(
            table.lines("  "),
            [
                "  POINT     SIZE  WHERE",
                "  1.42   1.2 GiB",
                "  1.4é       9 B  birch"
            ]
        );
    }
}
