//! Rust sources as text, with what is not code blanked out: enough to look for names, paths and braces.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file in four readings. All have the same lines, and the same characters at the same places.
pub(crate) struct Source {
    /// Relative to the repository, with `/` between folders.
    pub(crate) path: String,
    /// As it is.
    pub(crate) raw: String,
    /// Comments blanked.
    pub(crate) text: String,
    /// Comments and the insides of literals blanked.
    pub(crate) code: String,
    /// As `code`, items under `#[cfg(test)]` blanked too; empty for a file that is a test module as a whole.
    pub(crate) product: String,
}

impl Source {
    /// Reads `raw` as the file at `path`.
    pub(crate) fn new(path: &str, raw: String) -> Source {
        let (text, code) = blank(&raw);
        let product = if is_test_file(path) { String::new() } else { without_test_items(&code) };
        Source { path: path.to_string(), raw, text, code, product }
    }

    /// The first folder or file name below `src/`: the module that the table of layers knows.
    pub(crate) fn module(&self) -> Option<&str> {
        let inner = self.path.strip_prefix("src/")?;
        Some(inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs"))
    }

    /// `text` where `product` has code: literals included, tests not.
    pub(crate) fn product_text(&self) -> String {
        let lines = self.text.lines().zip(self.product.lines());
        lines.flat_map(|(text, product)| [if product.trim().is_empty() { "" } else { text }, "\n"]).collect()
    }
}

/// All files with one of `extensions` below the folders `roots` of the repository, sorted by path.
pub(crate) fn files(roots: &[&str], extensions: &[&str]) -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pending: Vec<PathBuf> = roots.iter().map(|root| top.join(root)).collect();
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder should be readable");
            pending.extend(entries.map(|entry| entry.expect("an entry should be readable").path()));
        } else if path.extension().is_some_and(|extension| extensions.iter().any(|e| extension == *e)) {
            let name = path.strip_prefix(top).expect("files should lie in the repository");
            let name = name.to_string_lossy().replace('\\', "/");
            found.push((name, fs::read_to_string(&path).expect("a source should be readable as UTF-8")));
        }
    }
    found.sort();
    found
}

/// The Rust sources below `roots`.
pub(crate) fn rust(roots: &[&str]) -> Vec<Source> {
    files(roots, &["rs"]).into_iter().map(|(path, raw)| Source::new(&path, raw)).collect()
}

/// The number, from 1, of the line that holds the byte `at`.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The places where `word` stands in `code` as a whole identifier.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part))
}

/// The names that follow `root::` in `code`, with their places: one for a path, one a branch for `root::{a, b::c}`.
pub(crate) fn names_after(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for at in words(code, root) {
        let Some(rest) = code[at + root.len()..].trim_start().strip_prefix("::") else { continue };
        let rest = rest.trim_start();
        match rest.strip_prefix('{') {
            None => names.push((at, identifier(rest))),
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (i, c) in group.char_indices() {
                    match c {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ if start && !c.is_whitespace() => {
                            names.push((at, identifier(&group[i..])));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// `raw` with comments blanked, and with comments and the insides of literals blanked.
fn blank(raw: &str) -> (String, String) {
    let chars: Vec<char> = raw.chars().collect();
    let (mut text, mut code) = (String::with_capacity(raw.len()), String::with_capacity(raw.len()));
    // What is blanked keeps its length in bytes, so that places mean the same in all readings.
    let push_blank = |out: &mut String, c: char| match c {
        '\n' => out.push('\n'),
        _ => (0..c.len_utf8()).for_each(|_| out.push(' ')),
    };
    let mut i = 0;
    while i < chars.len() {
        let rest = &chars[i..];
        let after_word = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_');
        let (end, is_comment) = if rest.starts_with(&['/', '/']) {
            (rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()), true)
        } else if rest.starts_with(&['/', '*']) {
            (end_of_block_comment(rest), true)
        } else if let Some(end) = end_of_literal(rest).filter(|_| !after_word || rest[0] == '"') {
            (end, false)
        } else {
            text.push(rest[0]);
            code.push(rest[0]);
            i += 1;
            continue;
        };
        let first_quote = rest[..end].iter().position(|c| matches!(c, '"' | '\''));
        for (k, &c) in rest[..end].iter().enumerate() {
            if is_comment {
                push_blank(&mut text, c);
                push_blank(&mut code, c);
            } else {
                text.push(c);
                // The opening quote stays, so that a literal is still seen to be one.
                if first_quote == Some(k) { code.push(c) } else { push_blank(&mut code, c) }
            }
        }
        i += end;
    }
    (text, code)
}

fn end_of_block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut i = 0;
    while i + 1 < rest.len() {
        match (rest[i], rest[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    rest.len()
}

/// The length of the string or character literal at the start of `rest`, if one is there.
fn end_of_literal(rest: &[char]) -> Option<usize> {
    if rest[0] == '\'' {
        // A lifetime is a quote without a second one behind the next character.
        return match rest.get(1)? {
            '\\' => Some(rest.iter().skip(3).position(|&c| c == '\'')? + 4),
            _ => (rest.get(2) == Some(&'\'')).then_some(3),
        };
    }
    let prefix = rest.iter().take_while(|c| matches!(c, 'b' | 'c' | 'r')).count();
    let hashes = rest[prefix..].iter().take_while(|&&c| c == '#').count();
    let open = prefix + hashes;
    let is_raw = rest[..prefix].contains(&'r');
    if prefix > 2 || rest.get(open) != Some(&'"') || (hashes > 0 && !is_raw) {
        return None;
    }
    let mut i = open + 1;
    while i < rest.len() {
        match rest[i] {
            '\\' if !is_raw => i += 1,
            '"' if rest[i + 1..].iter().take_while(|&&c| c == '#').count() >= hashes => {
                return Some(i + 1 + hashes);
            }
            _ => {}
        }
        i += 1;
    }
    Some(rest.len())
}

/// `code` with each item that follows `#[cfg(test)]` blanked.
fn without_test_items(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for (start, attribute) in code.match_indices("#[cfg(test)]") {
        let mut depth = 0;
        for (i, c) in code.bytes().enumerate().skip(start + attribute.len()) {
            match c {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            let is_end = depth == 0 && matches!(c, b'}' | b';');
            if c != b'\n' {
                bytes[i] = b' ';
            }
            if is_end {
                break;
            }
        }
    }
    String::from_utf8(bytes).expect("whole items should be blanked, thus whole characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let raw = "a // b.unwrap()\n/* c /* d */ */ e(\"f\\\"{\", '{', '\\'', r#\"g\"h\"#, &'static i, b\"j\") // ö\nk";
        let source = Source::new("src/x.rs", raw.to_string());
        assert_eq!(source.code.len(), raw.len());
        for word in ["a", "e", "static", "i", "k"] {
            assert_eq!(words(&source.code, word).count(), 1, "{word} in {}", source.code);
        }
        for word in ["b", "unwrap", "c", "d", "f", "g", "h", "j"] {
            assert_eq!(words(&source.code, word).count(), 0, "{word} in {}", source.code);
        }
        assert!(!source.code.contains('{'));
        assert!(source.text.contains("\"f\\\"{\"") && source.text.contains("r#\"g\"h\"#"));
    }

    #[test]
    fn test_items_are_not_product() {
        let raw = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { { } }\n}\nfn c() {}\n#[cfg(test)]\nmod d;\nfn e() {}";
        let source = Source::new("src/x.rs", raw.to_string());
        let seen: Vec<bool> =
            ["a", "b", "c", "d", "e"].map(|w| words(&source.product, w).count() == 1).into();
        assert_eq!(seen, [true, false, true, false, true]);
        assert!(Source::new("src/x/tests.rs", raw.to_string()).product.is_empty());
    }

    #[test]
    fn names_come_from_paths_and_groups() {
        let names = |code| names_after(code, "crate").into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names("use crate::a::b; pub(crate) fn f(x: &crate::c::D) { }"), ["a", "c"]);
        assert_eq!(names("use crate::{a::{b, c}, d, e::*};"), ["a", "d", "e"]);
    }
}
