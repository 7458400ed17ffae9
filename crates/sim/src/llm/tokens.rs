//! What a token is here: up to four characters of a word. Real tokenizers come out near it for
//! English; this one has no tables and never changes.

const CHARS_PER_TOKEN: usize = 4;
/// Of a piece; a multiple of a token's length, so that pieces add up to the whole.
const PIECE_CHARS: usize = 4 * CHARS_PER_TOKEN;

pub fn count(text: &str) -> usize {
    let words = text.split_whitespace();
    words
        .map(|word| word.chars().count().div_ceil(CHARS_PER_TOKEN))
        .sum()
}

/// The beginning of a text that is `max` tokens long, or all of it when it is shorter.
pub fn truncate(text: &str, max: usize) -> &str {
    let (mut tokens, mut in_word) = (0, 0);
    for (at, char) in text.char_indices() {
        if char.is_whitespace() {
            in_word = 0;
            continue;
        }
        tokens += usize::from(in_word % CHARS_PER_TOKEN == 0);
        if tokens > max {
            return text[..at].trim_end();
        }
        in_word += 1;
    }
    text
}

/// The text word by word, each with the space before it; a long word comes in parts.
pub fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut in_word = 0;
    let mut after_space = true;
    for char in text.chars() {
        let new_word = char.is_whitespace() && !after_space;
        if new_word || in_word == PIECE_CHARS {
            pieces.push(String::new());
            in_word = 0;
        }
        after_space = char.is_whitespace();
        in_word += usize::from(!after_space);
        if let Some(last) = pieces.last_mut() {
            last.push(char);
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}
