//! Aligned columns of text.

/// Rows under a head. Columns whose title starts with `>` are set flush right, as numbers want it.
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    pub fn new(titles: &[&str]) -> Self {
        let bare = |title: &&str| title.trim_start_matches('>').to_owned();
        Self {
            rows: vec![titles.iter().map(bare).collect()],
            right: titles.iter().map(|title| title.starts_with('>')).collect(),
        }
    }

    /// Cells beyond the head's are left out, missing ones are blank.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<_> = cells.into_iter().take(self.right.len()).collect();
        cells.resize(self.right.len(), String::new());
        self.rows.push(cells);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |column: usize| {
            let widths = self.rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.right.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                let pad = " ".repeat(width - cell.chars().count());
                let (before, after) = if *right {
                    (pad, String::new())
                } else {
                    (String::new(), pad)
                };
                line.push_str(&before);
                line.push_str(cell);
                line.push_str(&after);
                line.push_str("  ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_flush_left_and_numbers_right() {
        let mut table = Table::new(&["step", ">ms", "got"]);
        table.row(["sign up", "9", "200"].map(Into::into));
        table.row(["größer", "1,200", "é"].map(Into::into));

        let expected = "\
step        ms  got
sign up      9  200
größer   1,200  é
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_short_row_is_filled() {
        let mut table = Table::new(&["a", "b"]);
        assert!(table.is_empty());
        table.row(["x".to_owned()]);
        assert_eq!(table.to_string(), "a  b\nx\n");
        assert!(!table.is_empty());
    }
}
