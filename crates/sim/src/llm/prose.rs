//! What the model says when nobody told it: friendly, a little wise, and the same every time for the
//! same message.

use super::prompt::Prompt;
use super::tokens;
use crate::dice::Dice;

/// Words for this prompt; `exactly` so many tokens when given.
pub fn answer(prompt: &Prompt, exactly: Option<usize>) -> String {
    let mut dice = Dice::of(&prompt.user);
    let mut text = if prompt.system.to_lowercase().contains("title") {
        title(&prompt.user)
    } else if let Some(answer) = &prompt.tool_answer {
        let answer = tokens::truncate(answer, 40);
        format!(
            "I looked it up, and this is what came back: {answer}. {}",
            dice.pick(CLOSERS)
        )
    } else {
        sentences(prompt, &mut dice).join(" ")
    };

    let Some(exactly) = exactly else { return text };
    let mut middles = Vec::new();
    while tokens::count(&text) < exactly {
        if middles.is_empty() {
            middles = dice.shuffled(MIDDLES);
        }
        text.push(' ');
        text.push_str(middles.pop().unwrap_or(MIDDLES[0]));
    }
    tokens::truncate(&text, exactly).to_owned()
}

fn sentences(prompt: &Prompt, dice: &mut Dice) -> Vec<String> {
    let quote = quote(&prompt.user);
    let mood = Mood::of(&prompt.user);
    let future = prompt.system.to_lowercase().contains("future self");

    let opener = match (&mood, &quote) {
        (Mood::Greeting, _) if future => {
            "Hello, you. It is good to hear my own voice from back then.".to_owned()
        }
        (Mood::Greeting, _) => dice.pick(GREETINGS).to_owned(),
        (Mood::Thanks, _) => dice.pick(WELCOMES).to_owned(),
        (Mood::Question, Some(quote)) => dice.pick(QUESTIONS).replace("{}", quote),
        (Mood::Statement, Some(quote)) => dice.pick(STATEMENTS).replace("{}", quote),
        (_, None) => "I am listening, even without many words.".to_owned(),
    };
    let mut said = vec![opener];
    if future {
        for (word, frame) in [("hope", HOPE), ("fear", FEAR)] {
            let words = after(&prompt.system, word);
            said.extend(words.map(|words| frame.replace("{}", &words)));
        }
    }
    let count = match mood {
        Mood::Greeting | Mood::Thanks => 1,
        Mood::Question | Mood::Statement => 2 + dice.below(2),
    };
    let middles = dice.shuffled(if future { WISDOM } else { MIDDLES });
    said.extend(middles.into_iter().take(count).map(String::from));
    said.push(dice.pick(CLOSERS).to_owned());
    said
}

enum Mood {
    Greeting,
    Thanks,
    Question,
    Statement,
}

impl Mood {
    fn of(text: &str) -> Self {
        let text = text.trim().to_lowercase();
        let words: Vec<_> = text
            .split(|char: char| !char.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        let first = words.first().copied().unwrap_or_default();
        match first {
            "thanks" | "thank" => Self::Thanks,
            _ if text.ends_with('?') => Self::Question,
            "hi" | "hello" | "hey" | "good" | "hallo" | "hola" | "salut" if words.len() <= 5 => {
                Self::Greeting
            }
            "how" | "what" | "why" | "when" | "where" | "who" | "which" | "can" | "could"
            | "should" | "is" | "are" | "do" | "does" => Self::Question,
            _ => Self::Statement,
        }
    }
}

/// A few words of a text that say what it is about, as they stand there.
pub fn quote(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().take(200).collect();
    let bare = |word: &str| {
        word.trim_matches(|char: char| !char.is_alphanumeric())
            .to_lowercase()
    };
    let first = words.iter().position(|word| {
        let word = bare(word);
        word.chars().count() > 2 && !SMALL_WORDS.contains(&word.as_str())
    })?;

    let mut quote = Vec::new();
    for word in words[first..].iter().take(4) {
        quote.push(word.trim_matches(|char: char| !char.is_alphanumeric()));
        if word.ends_with(['.', ',', ';', ':', '?', '!']) {
            break;
        }
    }
    while quote.len() > 1
        && quote
            .last()
            .is_some_and(|word| SMALL_WORDS.contains(&bare(word).as_str()))
    {
        quote.pop();
    }
    let quote = quote.join(" ");
    Some(quote.chars().take(60).collect())
}

fn title(text: &str) -> String {
    let quote = quote(text).unwrap_or_else(|| "a new conversation".to_owned());
    let mut chars = quote.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

/// What a system prompt lists behind a word: `Hopes: a house by the sea` or on the line below.
fn after(system: &str, word: &str) -> Option<String> {
    let mut lines = system.lines();
    let line = lines.find(|line| line.to_lowercase().contains(word) && line.contains(':'))?;
    let at = line.to_lowercase().find(word)?;
    let (_, listed) = line.get(at..)?.split_once(':')?;
    let listed = if listed.trim().is_empty() {
        lines.next()?
    } else {
        listed
    };

    let listed = listed.trim_matches(|char: char| !char.is_alphanumeric());
    let listed = listed
        .split(['.', ';', '\n'])
        .next()
        .unwrap_or(listed)
        .trim();
    let short: String = listed.chars().take(120).collect();
    (!short.is_empty()).then_some(short)
}

impl Dice {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn shuffled<'a>(&mut self, from: &[&'a str]) -> Vec<&'a str> {
        let mut shuffled = from.to_vec();
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, self.below(at + 1));
        }
        shuffled
    }
}

const GREETINGS: &[&str] = &[
    "Hello! It is good to hear from you.",
    "Hi there, I am glad you came by.",
    "Hey! What a nice moment to write.",
    "Hello, and welcome. Take your time.",
];

const WELCOMES: &[&str] = &[
    "You are very welcome.",
    "Gladly, any time.",
    "It was a pleasure to think about it with you.",
];

const QUESTIONS: &[&str] = &[
    "That is a good question about “{}”, and I like that you ask it.",
    "When you ask about “{}”, the honest answer is: it depends on what matters to you.",
    "Let us look at “{}” from the beginning.",
    "About “{}”: there is a short answer and a better one.",
    "People have asked about “{}” for a long time, and few of them regretted asking.",
];

const STATEMENTS: &[&str] = &[
    "I hear what you say about “{}”.",
    "“{}” – I would like to stay with that for a moment.",
    "Thank you for telling me about “{}”.",
    "There is more in “{}” than it seems at first.",
    "You mention “{}”, and that tells me a lot.",
];

const MIDDLES: &[&str] = &[
    "Start with the smallest step that would still count, and do it today.",
    "Write down what you know already; it is usually more than it feels like.",
    "The first version may be rough, as long as it is finished.",
    "Two things help here: a quiet hour, and someone who listens.",
    "If one part is difficult, name it, and the rest becomes lighter.",
    "You can change your mind later, and that makes the choice easier now.",
    "Look at what went well the last time, and keep exactly that.",
    "It helps to ask what you would tell a good friend in your place.",
    "Good plans leave some room for weather, visitors and luck.",
    "Most of the work is showing up again on an ordinary Tuesday.",
    "A short walk has solved more of these questions than any list.",
    "What looks like a wall from here is often a door seen from the side.",
];

const WISDOM: &[&str] = &[
    "Ten years on, I remember the mornings you began more than the days you finished.",
    "You were kinder to others than to yourself in those days; even that got better.",
    "The things you worried about at night mostly stayed in the night.",
    "What made the difference was never a single decision, it was coming back to it.",
    "You do not have to see the whole road; I can tell you that it goes on.",
    "Some of the people beside you now are still beside me.",
    "I am proud of the patience you are only just learning.",
    "You will laugh about part of this, and keep the other part close.",
];

const HOPE: &str = "I still know what you hoped for: “{}”. It began with less than you think.";
const FEAR: &str =
    "And the fear, “{}” – it came along for a while, and then it had nothing left to say.";

const CLOSERS: &[&str] = &[
    "What would you like to try first?",
    "Shall we go through it together?",
    "How does that sound to you?",
    "Which part of it is on your mind the most?",
    "Tell me more whenever you like.",
    "What would a good first day look like?",
];

const SMALL_WORDS: &[&str] = &[
    "a", "about", "am", "an", "and", "any", "are", "as", "at", "be", "but", "by", "can", "could",
    "did", "do", "does", "for", "from", "get", "give", "had", "has", "have", "hello", "hey", "how",
    "i'm", "if", "in", "is", "it", "its", "just", "let", "may", "me", "my", "not", "of", "on",
    "one", "or", "our", "out", "please", "say", "shall", "should", "so", "some", "tell", "that",
    "the", "their", "them", "then", "there", "they", "this", "to", "use", "want", "was", "we",
    "were", "what", "when", "where", "which", "who", "why", "will", "with", "would", "you", "your",
];
