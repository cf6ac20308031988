//! Splits names and sentences into words.

use super::words::{LEADS, Phrase, among, phrases_ending};

/// Returns the words of a name in lower case: `deleteAllFiles`, `delete-all.files` and
/// `DELETE_ALL_FILES` have three each.
pub(super) fn name_words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = name.chars().peekable();
    let mut before = None;
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        let begins = match before {
            Some(before) if is_letter(before) != is_letter(character) => true,
            Some(before) if !character.is_uppercase() || !is_letter(before) => false,
            // `getURL` has two words, and so has `URLGet`.
            Some(before) => !before.is_uppercase() || next.is_some_and(|next| is_letter(next) && !next.is_uppercase()),
            None => false,
        };
        if begins && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if character.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(character.to_lowercase());
        }
        before = Some(character);
    }
    words.retain(|word| !word.is_empty());
    words
}

fn is_letter(character: char) -> bool {
    character.is_alphabetic()
}

/// A word of a sentence.
pub(super) struct Word {
    /// In lower case, without the punctuation around it. A name with underscores or dashes is one
    /// word.
    pub(super) text: String,
    /// `true` if it follows a comma, a slash, `&`, `and`, `or` or `then`, with at most one word in
    /// between.
    pub(super) joined: bool,
}

/// Returns the sentences of a text, without the words that precede their verb.
pub(super) fn sentences(text: &str) -> Vec<Vec<Word>> {
    let mut all = Vec::new();
    let mut sentence = Vec::new();
    let mut is_item = false;
    for token in text.split_inclusive(char::is_whitespace) {
        let blank = token.contains(['\n', '\r']);
        let token = token.trim();
        let is_bullet = matches!(token, "-" | "–" | "—" | "*" | "•");
        let explains = token.starts_with('(');
        if is_bullet || explains {
            end(&mut all, &mut sentence, is_item && explains);
            is_item = is_bullet;
        }
        // `[ADMIN] Deletes` begins with its verb.
        if !token.starts_with('[') {
            for (index, part) in token.split(['/', ',', '&']).enumerate() {
                let joins = index > 0;
                push(&mut sentence, part, joins);
            }
        }
        let tail = token.trim_end_matches(['"', '\'', '`', '*', '_']);
        if blank || tail.ends_with(['.', '!', '?', ';', ':', ')']) {
            end(&mut all, &mut sentence, is_item && tail.ends_with(':'));
            is_item = false;
        }
    }
    all.push(sentence);
    let sentences = all.into_iter().map(|sentence| {
        let mut reach = 0;
        let mut words = Vec::new();
        let mut sentence = sentence.into_iter().peekable();
        while let Some((text, joins)) = sentence.next() {
            if joins || matches!(&*text, "and" | "or" | "then") {
                reach = 2;
            }
            if text.is_empty() || matches!(&*text, "and" | "or" | "then") {
                continue;
            }
            let is_lead = |text: &str| among(LEADS, text).is_some();
            // `The tool pays`, but not `the charge`.
            let leads_up = match &*text {
                "a" | "an" | "the" => sentence.peek().is_some_and(|(next, _)| is_lead(next)),
                text => is_lead(text) || text.ends_with("ly"),
            };
            let leads = words.is_empty() && leads_up;
            if !leads {
                words.push(Word { text, joined: reach > 0 });
            }
            reach = usize::saturating_sub(reach, 1);
        }
        words
    });
    sentences.filter(|words| !words.is_empty()).collect()
}

/// Ends a sentence. `- charge (string): the charge` is an item that explains an argument, so its
/// one word is not a verb.
fn end(all: &mut Vec<Vec<(String, bool)>>, sentence: &mut Vec<(String, bool)>, explained: bool) {
    let sentence = std::mem::take(sentence);
    if !(explained && sentence.len() < 2) {
        all.push(sentence);
    }
}

fn push(sentence: &mut Vec<(String, bool)>, part: &str, joins: bool) {
    let word = part.trim_matches(|character: char| !character.is_alphanumeric()).to_lowercase();
    if joins || !word.is_empty() {
        sentence.push((word, joins));
    }
}

/// Returns the phrases of a text that count wherever they appear.
pub(super) fn phrases(text: &str) -> Vec<Phrase> {
    let mut found = Vec::new();
    let (mut before, mut word) = (String::new(), String::new());
    for token in text.split_whitespace() {
        let trimmed = token.trim_matches(|character: char| !character.is_alphanumeric());
        if trimmed.is_empty() {
            continue;
        }
        std::mem::swap(&mut before, &mut word);
        word.clear();
        word.extend(trimmed.chars().flat_map(char::to_lowercase));
        for phrase in phrases_ending(&word) {
            let first = phrase.0.split_once(' ').map(|(first, _)| first);
            if first.is_none_or(|first| first == before) {
                found.push(*phrase);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_however_they_are_written() {
        for (name, want) in [
            ("delete_all_files", "delete all files"),
            ("deleteAllFiles", "delete all files"),
            ("delete-all.files", "delete all files"),
            ("DELETE_ALL_FILES", "delete all files"),
            ("DeleteAllFiles", "delete all files"),
            ("fs__deleteAll", "fs delete all"),
            ("getURLFor", "get url for"),
            ("HTTPGet", "http get"),
            ("delete2files", "delete 2 files"),
            ("s3/put", "s 3 put"),
            ("__", ""),
            ("", ""),
            ("größeLesen", "größe lesen"),
            ("del\u{200b}ete", "del ete"),
        ] {
            assert_eq!(name_words(name).join(" "), want, "{name}");
        }
    }

    #[test]
    fn sentences_begin_with_their_verbs() {
        let read = |text: &str| -> Vec<String> {
            let written = |words: Vec<Word>| {
                let mark = |word: Word| if word.joined { format!("+{}", word.text) } else { word.text };
                words.into_iter().map(mark).collect::<Vec<_>>().join(" ")
            };
            sentences(text).into_iter().map(written).collect()
        };
        for (text, want) in [
            ("This tool will delete a file. It takes none.", vec!["delete a file", "takes none"]),
            ("Create or completely overwrite x", vec!["create +completely +overwrite x"]),
            ("List, create,close or select", vec!["list +create +close +select"]),
            ("Get/set a value", vec!["get +set +a value"]),
            ("Unsafe: executes it", vec!["unsafe", "executes it"]),
            ("Reads a file (deletes it too)", vec!["reads a file", "deletes it too"]),
            ("[ADMIN] Permanently deletes", vec!["deletes"]),
            ("Use delete_file for node.js instead", vec!["delete_file for node.js instead"]),
            ("One\n- Two\n", vec!["one", "two"]),
            ("- charge (string): The charge. - refund: It - Delete", vec!["string", "the charge", "delete"]),
            ("The tool reads", vec!["reads"]),
            ("", vec![]),
        ] {
            assert_eq!(read(text), want, "{text}");
        }
    }
}
