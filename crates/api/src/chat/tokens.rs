//! How many tokens a text is, no less: counted without a tokenizer, whose tables would be most of what
//! an idle server keeps in memory, and which only some models' makers publish.

/// Letters of a token at least, in words of a language.
const LETTERS: usize = 3;
/// A longer run of letters is no word: a key, a hash, base64.
const LONGEST_WORD: usize = 24;
/// Digits that tokenizers take together at most.
const DIGITS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letters,
    Digits,
    /// The space before a word is part of it; what there is more of is not, nor that before a number.
    Space,
    Marks,
}

/// Tokens, rounded up piece by piece as tokenizers split: words, groups of digits, each mark by itself,
/// white space that is more than one space. Every byte of what is no letter of any language counts.
pub fn estimate(text: &str) -> i64 {
    let mut tokens = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let kind = kind(first);
        let end = rest.find(|c| self::kind(c) != kind).unwrap_or(rest.len());
        let run = &rest[..end];
        let before_a_digit = rest[end..].starts_with(|c: char| c.is_ascii_digit());
        tokens += match kind {
            Kind::Letters if run.len() > LONGEST_WORD && run.is_ascii() => run.len().div_ceil(2),
            Kind::Letters => run.len().div_ceil(LETTERS),
            Kind::Digits => run.len().div_ceil(DIGITS),
            Kind::Space if run == " " && !before_a_digit => 0,
            Kind::Space => 1 + run.len() / 16,
            Kind::Marks => run.len(),
        };
        rest = &rest[end..];
    }
    tokens as i64
}

fn kind(c: char) -> Kind {
    match c {
        c if c.is_alphabetic() => Kind::Letters,
        c if c.is_ascii_digit() => Kind::Digits,
        c if c.is_whitespace() => Kind::Space,
        _ => Kind::Marks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of `o200k_base` and `cl100k_base`, the larger of the two.
    #[test]
    fn an_estimate_is_not_less_than_what_tokenizers_count() {
        for (text, counted) in [
            ("", 0),
            ("hello world", 2),
            ("a b c d e f g", 7),
            ("a,b,c,d", 7),
            ("tiktoken is great!", 6),
            ("antidisestablishmentarianism", 6),
            ("2 + 2 = 4", 7),
        ] {
            assert!(
                estimate(text) >= counted,
                "{text}: {} < {counted}",
                estimate(text)
            );
        }
    }

    #[test]
    fn an_estimate_of_prose_is_not_far_off() {
        let prose = "The quick brown fox jumps over the lazy dog, and nobody in the village minds it at all.";
        assert!((20..=40).contains(&estimate(prose)), "{}", estimate(prose));
    }
}
