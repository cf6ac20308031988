//! JSON Pointers (RFC 6901).

use std::fmt::Write;

/// Adds a step into an object: `/` and the key, with `~0` for `~` and `~1` for `/`.
pub(crate) fn push_key(pointer: &mut String, key: &str) {
    pointer.push('/');
    if !key.bytes().any(|byte| matches!(byte, b'~' | b'/')) {
        return pointer.push_str(key);
    }
    for part in key.split_inclusive(['~', '/']) {
        match part.as_bytes().last() {
            Some(b'~') => pointer.extend([part.trim_end_matches('~'), "~0"]),
            Some(b'/') => pointer.extend([part.trim_end_matches('/'), "~1"]),
            _ => pointer.push_str(part),
        }
    }
}

/// Adds a step into an array.
pub(crate) fn push_index(pointer: &mut String, index: usize) {
    pointer.push('/');
    match char::from_digit(u32::try_from(index).unwrap_or(u32::MAX), 10) {
        Some(digit) => pointer.push(digit),
        // Writing to a `String` does not fail.
        None => drop(write!(pointer, "{index}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped() {
        for (key, want) in [
            ("a", "/a"),
            ("", "/"),
            ("a/b~c", "/a~1b~0c"),
            ("~1", "/~01"),
            ("//~~", "/~1~1~0~0"),
            ("über x", "/über x"),
            ("~", "/~0"),
        ] {
            let mut pointer = String::new();
            push_key(&mut pointer, key);
            assert_eq!(pointer, want);
            // The order of unescaping in the specification restores the key.
            assert_eq!(pointer.strip_prefix('/').unwrap().replace("~1", "/").replace("~0", "~"), key);
        }
        let mut pointer = String::from("/a");
        for index in [0, 9, 10, usize::MAX] {
            push_index(&mut pointer, index);
        }
        assert_eq!(pointer, format!("/a/0/9/10/{}", usize::MAX));
    }
}
