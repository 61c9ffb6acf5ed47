//! Tokens of the text form of nests.

use super::ParseError;
use crate::tensor::DType;

/// One token of a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A word: a name, a keyword, an operation.
    Name(String),
    /// A number without its sign, and the type written behind it.
    Number(String, Option<DType>),
    /// Punctuation or an operator.
    Symbol(&'static str),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Name(name) => write!(f, "`{name}`"),
            Token::Number(text, None) => write!(f, "`{text}`"),
            Token::Number(text, Some(dtype)) => write!(f, "`{text}_{dtype}`"),
            Token::Symbol(symbol) => write!(f, "`{symbol}`"),
        }
    }
}

/// One line that is not blank.
#[derive(Debug)]
pub(super) struct Line {
    /// Counting from 1.
    pub(super) number: usize,
    /// Spaces before the first token.
    pub(super) indent: usize,
    /// The line without its end.
    pub(super) text: String,
    /// Tokens with their columns, which count from 1.
    pub(super) tokens: Vec<(usize, Token)>,
}

/// Longer ones first, so that the first that fits is the longest.
const SYMBOLS: [&str; 22] = [
    "//", "<=", ">=", "==", "!=", "+=", "*=", "(", ")", "[", "]", ",", ":", "+", "-", "*", "/", "%", "<",
    ">", "=", "!",
];

/// Whether `name` can stand in the text form as the name of a buffer, a loop or a block.
pub(super) fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && chars.all(is_name_char)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

/// The lines of `text` that are not blank, in tokens.
pub(super) fn lex(text: &str) -> Result<Vec<Line>, ParseError> {
    let mut lines = vec![];
    for (index, text) in text.lines().enumerate() {
        let text = text.trim_end();
        if !text.is_empty() {
            let indent = text.len() - text.trim_start_matches(' ').len();
            let mut line = Line { number: index + 1, indent, text: text.to_string(), tokens: vec![] };
            // The name of a nest is any text.
            if text[indent..].starts_with("nest ") {
                line.tokens.push((indent + 1, Token::Name("nest".into())));
            } else {
                line.tokens = lex_line(text, index + 1)?;
            }
            lines.push(line);
        }
    }
    Ok(lines)
}

fn lex_line(text: &str, number: usize) -> Result<Vec<(usize, Token)>, ParseError> {
    let mut tokens = vec![];
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if first == ' ' {
            at += 1;
            continue;
        }
        let (token, length) = if first.is_ascii_digit() {
            lex_number(rest)
                .ok_or_else(|| ParseError::new(number, at + 1, "a number", format!("`{rest}`")))?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let length = rest.find(|c| !is_name_char(c)).unwrap_or(rest.len());
            (Token::Name(rest[..length].to_string()), length)
        } else if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            (Token::Symbol(symbol), symbol.len())
        } else {
            return Err(ParseError::new(
                number,
                at + 1,
                "a name, a number or an operator",
                format!("`{first}`"),
            ));
        };
        tokens.push((at + 1, token));
        at += length;
    }
    Ok(tokens)
}

/// `digits[.digits][e[+-]digits][_dtype]` and its length.
fn lex_number(text: &str) -> Option<(Token, usize)> {
    let digits =
        |from: usize| from + text[from..].find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len() - from);
    let mut end = digits(0);
    if text[end..].starts_with('.') {
        let fraction = digits(end + 1);
        if fraction == end + 1 {
            return None;
        }
        end = fraction;
    }
    if text[end..].starts_with('e') {
        let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        if exponent == end + 1 + sign {
            return None;
        }
        end = exponent;
    }
    let suffix = end + text[end..].find(|c| !is_name_char(c)).unwrap_or(text.len() - end);
    let dtype = match &text[end..suffix] {
        "" => None,
        suffix => Some(DType::from_name(suffix.strip_prefix('_')?)?),
    };
    Some((Token::Number(text[..end].to_string(), dtype), suffix))
}
