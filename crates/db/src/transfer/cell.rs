//! A value, as SQLite would keep it: what both engines' values are turned into.
use super::{Columns, Sum};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Uuid,
    Time,
    Bool,
    Int,
    Real,
    Json,
    Bytes,
    Text,
}

impl Kind {
    /// By PostgreSQL's word for the type.
    pub fn of(ty: &str) -> Self {
        match ty {
            "uuid" => Self::Uuid,
            "timestamp with time zone" => Self::Time,
            "boolean" => Self::Bool,
            "bigint" | "integer" | "smallint" => Self::Int,
            "double precision" | "real" => Self::Real,
            "jsonb" | "json" => Self::Json,
            "bytea" => Self::Bytes,
            _ => Self::Text,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// Adds a table up, row by row.
pub struct Sums {
    table: String,
    kinds: Vec<Kind>,
    rows: u64,
    hash: u128,
}

impl Sums {
    pub fn of(table: &str, columns: &Columns) -> Self {
        Self {
            table: table.to_owned(),
            kinds: columns.iter().map(|(_, kind)| *kind).collect(),
            rows: 0,
            hash: 0,
        }
    }

    /// Hashes are added, so that engines may give rows in whatever order they like.
    pub fn add(&mut self, row: &[Cell]) {
        let mut hash = Sha256::new();
        let mut part = |tag: u8, bytes: &[u8]| {
            hash.update([tag]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for (cell, kind) in row.iter().zip(&self.kinds) {
            match cell {
                Cell::Null => part(0, &[]),
                Cell::Int(n) => part(1, &n.to_le_bytes()),
                Cell::Real(x) => part(2, &x.to_le_bytes()),
                Cell::Text(text) if *kind == Kind::Json => part(3, meaning(text).as_bytes()),
                Cell::Text(text) => part(3, text.as_bytes()),
                Cell::Bytes(bytes) => part(4, bytes),
            }
        }
        let mut first = [0; 16];
        first.copy_from_slice(&hash.finalize()[..16]);
        let first = u128::from_le_bytes(first);
        self.hash = self.hash.wrapping_add(first);
        self.rows += 1;
    }

    pub fn sum(self) -> Sum {
        Sum {
            table: self.table,
            rows: self.rows,
            hash: format!("{:032x}", self.hash),
        }
    }
}

/// A JSON text without what PostgreSQL does not keep of it: the order of members, blanks, how a number is written.
fn meaning(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(value) => sorted(&value),
        Err(_) => text.to_owned(),
    }
}

fn sorted(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members = members
                .into_iter()
                .map(|(name, value)| format!("{name:?}:{}", sorted(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            format!(
                "[{}]",
                items.iter().map(sorted).collect::<Vec<_>>().join(",")
            )
        }
        Value::Number(number) if !number.is_i64() && !number.is_u64() => {
            number.as_f64().unwrap_or_default().to_string()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_compared_by_what_it_means() {
        let same = r#"{"b": [1.0, 100, "x"], "a": {"d": null, "c": 1.50}}"#;
        assert_eq!(
            meaning(same),
            meaning(r#"{"a":{"c":1.5,"d":null},"b":[1,1e2,"x"]}"#)
        );
        assert_ne!(meaning(r#"{"a": 1}"#), meaning(r#"{"a": "1"}"#));
    }

    #[test]
    fn a_sum_sees_every_value_and_no_order() {
        let columns = vec![("a".to_owned(), Kind::Text), ("b".to_owned(), Kind::Text)];
        let sum = |rows: &[[Cell; 2]]| {
            let mut sums = Sums::of("t", &columns);
            rows.iter().for_each(|row| sums.add(row));
            sums.sum()
        };
        let text = |text: &str| Cell::Text(text.into());
        let (one, two) = ([text("ab"), text("c")], [Cell::Null, Cell::Int(7)]);
        assert_eq!(
            sum(&[one.clone(), two.clone()]),
            sum(&[two.clone(), one.clone()])
        );
        assert_ne!(
            sum(std::slice::from_ref(&one)),
            sum(&[[text("a"), text("bc")]])
        );
        assert_ne!(sum(&[one.clone(), one.clone()]), sum(&[one]));
        assert_ne!(sum(&[two]), sum(&[[Cell::Int(7), Cell::Null]]));
    }
}
