//! Texts that operators look for: needles, directories, hosts.

use regex::{Regex, RegexBuilder};
use url::{Host, Url};

/// The end of a text at which a needle is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Affix {
    Start,
    End,
}

/// A text to look for.
#[derive(Debug)]
pub(crate) enum Needle {
    Plain(Box<str>),
    /// Compared without regard to case, by Unicode's simple folding, which keeps the number of
    /// characters.
    Folded {
        regex: Regex,
        characters: usize,
    },
}

/// The compiled regular expression of a text from the call has at most this many bytes.
const CALL_REGEX_SIZE: usize = 1 << 20;

/// The texts from the call that a condition compares without regard to case have at most this many
/// characters together.
const MAX_FOLDED: usize = 1_000;

impl Needle {
    /// Makes a needle of a text and the regular expression of it, escaped and without regard to
    /// case.
    pub(crate) fn folded(regex: Regex, text: &str) -> Self {
        Self::Folded { regex, characters: text.chars().count() }
    }

    /// Makes needles of texts from the call, without regard to case. `None` if they are too long:
    /// the agent may control both the needles and the text that is searched, an expression takes a
    /// thousand times its length, and a search takes the product of both.
    pub(crate) fn of_call(texts: &[&str]) -> Option<Vec<Self>> {
        let mut left = MAX_FOLDED;
        let needle = |text: &&str| {
            left = left.checked_sub(text.chars().take(left + 1).count())?;
            let escaped = regex::escape(text);
            let regex = RegexBuilder::new(&escaped).case_insensitive(true).size_limit(CALL_REGEX_SIZE).build();
            Some(Self::folded(regex.ok()?, text))
        };
        texts.iter().map(needle).collect()
    }

    pub(crate) fn is_within(&self, text: &str) -> bool {
        match self {
            Self::Plain(needle) => text.contains(&**needle),
            Self::Folded { regex, .. } => regex.is_match(text),
        }
    }

    /// Returns `true` if `text` equals the needle.
    pub(crate) fn is_whole(&self, text: &str) -> bool {
        match self {
            Self::Plain(needle) => **needle == *text,
            // All matches have the same number of characters, so one that spans the text is found
            // first.
            Self::Folded { regex, .. } => regex.find(text).is_some_and(|found| found.range() == (0..text.len())),
        }
    }

    pub(crate) fn is_affix(&self, affix: Affix, text: &str) -> bool {
        match (self, affix) {
            (Self::Plain(needle), Affix::Start) => text.starts_with(&**needle),
            (Self::Plain(needle), Affix::End) => text.ends_with(&**needle),
            (Self::Folded { characters, .. }, _) => {
                let cut = match affix {
                    Affix::Start => text.char_indices().nth(*characters).map_or(Some(text.len()), |(at, _)| Some(at)),
                    Affix::End if *characters == 0 => Some(text.len()),
                    Affix::End => text.char_indices().nth_back(*characters - 1).map(|(at, _)| at),
                };
                let part = cut.and_then(|cut| if affix == Affix::Start { text.get(..cut) } else { text.get(cut..) });
                part.is_some_and(|part| self.is_whole(part))
            }
        }
    }
}

/// The directories of `path_within`, as the segments of their resolved paths.
#[derive(Debug)]
pub(crate) struct Directories(Box<[Box<[Box<str>]>]>);

impl Directories {
    /// # Errors
    /// Returns the index of an entry that is not an absolute directory.
    pub(crate) fn new<'d>(directories: impl IntoIterator<Item = &'d str>) -> Result<Self, usize> {
        let resolve = |(index, directory): (usize, &str)| {
            let mut resolved: Vec<Box<str>> = Vec::new();
            // A server may read two slashes as the name of another machine. In a policy, more than
            // one is a mistake.
            if directory.starts_with("//") {
                return Err(index);
            }
            for segment in segments(directory).ok_or(index)? {
                if segment == ".." {
                    resolved.pop();
                } else {
                    resolved.push(segment.into());
                }
            }
            Ok(resolved.into())
        };
        directories.into_iter().enumerate().map(resolve).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether an absolute path is inside one of the directories; `None` if that is
    /// ambiguous. `.` and `..` are resolved by the text alone. Linear in the path for each
    /// directory, without an allocation.
    pub(crate) fn within(&self, path: &str) -> Option<bool> {
        let segments = segments(path)?;
        Some(self.0.iter().any(|directory| {
            // The depth of the path so far, and how many of its first segments match the
            // directory's.
            let (mut depth, mut common) = (0usize, 0usize);
            for segment in segments.clone() {
                if segment == ".." {
                    depth = depth.saturating_sub(1);
                    common = common.min(depth);
                } else {
                    if common == depth && directory.get(depth).is_some_and(|name| **name == *segment) {
                        common += 1;
                    }
                    depth += 1;
                }
            }
            common == directory.len()
        }))
    }
}

/// The segments of an absolute path without `.` and the empty ones. `None` for a path that a server
/// might read otherwise: a relative one, one that begins with exactly two slashes, or one with a
/// NUL, a backslash, a percent-encoded separator, dot or NUL, or a segment of dots and blanks other
/// than `.` and `..`, which some systems trim.
fn segments(path: &str) -> Option<impl Iterator<Item = &str> + Clone> {
    let encoded = |escape: &[u8]| match escape {
        [b'%', a, b] => matches!((a, b.to_ascii_lowercase()), (b'2', b'e' | b'f') | (b'5', b'c') | (b'0', b'0')),
        _ => false,
    };
    if !path.starts_with('/') || path.contains(['\0', '\\']) || path.as_bytes().windows(3).any(encoded) {
        return None;
    }
    let is_trimmed =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(|byte| matches!(byte, b'.' | b' '));
    if (path.starts_with("//") && !path.starts_with("///")) || path.split('/').any(is_trimmed) {
        return None;
    }
    Some(path.split('/').filter(|segment| !segment.is_empty() && *segment != "."))
}

/// The hosts of `host_in`.
#[derive(Debug)]
pub(crate) struct Hosts {
    exact: Box<[Box<str>]>,
    /// For `*.example.com`: `.example.com`.
    below: Box<[Box<str>]>,
}

impl Hosts {
    /// # Errors
    /// Returns the index of an entry that is not a host.
    pub(crate) fn new<'h>(hosts: impl IntoIterator<Item = &'h str>) -> Result<Self, usize> {
        let (mut exact, mut below) = (Vec::new(), Vec::new());
        for (index, entry) in hosts.into_iter().enumerate() {
            match entry.strip_prefix("*.") {
                Some(domain) => below.push(format!(".{}", normal_host(domain, true).ok_or(index)?).into()),
                None => exact.push(normal_host(entry, false).ok_or(index)?.into()),
            }
        }
        Ok(Self { exact: exact.into(), below: below.into() })
    }

    pub(crate) fn len(&self) -> usize {
        self.exact.len() + self.below.len()
    }

    /// Returns whether the host of an absolute http or https URL is listed; `None` if that is
    /// ambiguous. A plain URL needs no allocation.
    pub(crate) fn lists(&self, url: &str) -> Option<bool> {
        if let Some(host) = plain_host(url) {
            let ends_with = |domain: &str| {
                host.len()
                    .checked_sub(domain.len())
                    .filter(|at| *at > 0)
                    .and_then(|at| host.get(at..))
                    .is_some_and(|end| end.eq_ignore_ascii_case(domain))
            };
            return Some(
                self.exact.iter().any(|known| known.eq_ignore_ascii_case(host))
                    || self.below.iter().any(|domain| ends_with(domain)),
            );
        }
        let host = any_host(url)?;
        let listed = |known: &str| known == host;
        let is_below = |domain: &str| host.len() > domain.len() && host.ends_with(domain);
        Some(self.exact.iter().any(|known| listed(known)) || self.below.iter().any(|domain| is_below(domain)))
    }
}

/// The host of a URL in the one form that needs no parser: `http` or `https`, `://`, labels of
/// letters, digits and dashes, and at most a port before the path. No label is punycode, and the
/// last one does not begin with a digit (that could be an IPv4 address). For these, the URL
/// standard of the WHATWG only lower-cases the host.
fn plain_host(url: &str) -> Option<&str> {
    let after =
        |scheme: &str| url.get(..scheme.len()).filter(|s| s.eq_ignore_ascii_case(scheme)).and(url.get(scheme.len()..));
    let rest = after("https://").or_else(|| after("http://"))?;
    // Leave anything unusual to the full parser.
    if url.bytes().any(|byte| !(0x21..0x7f).contains(&byte) || byte == b'\\') {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port),
        None => (authority, ""),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() < 64
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"))
    };
    let last_begins = host.rsplit('.').next()?.bytes().next()?;
    let plain = host.split('.').all(label) && last_begins.is_ascii_alphabetic();
    let port_fits = port.is_empty() || (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    (plain && port_fits).then_some(host)
}

/// The host of a URL by the rules of the WHATWG, normalised; `None` if it is ambiguous.
fn any_host(url: &str) -> Option<String> {
    let outer_blank = |c: Option<char>| c.is_none_or(|c| c <= ' ');
    if url.contains(['\\', '\t', '\n', '\r']) || outer_blank(url.chars().next()) || outer_blank(url.chars().next_back())
    {
        return None;
    }
    // The parser drops empty user information, so look at the text.
    let (scheme, rest) = url.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    // With another number of slashes, a server that has a base reads a relative reference.
    let authority = rest.strip_prefix("//")?.split(['/', '?', '#']).next()?;
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    let parsed = Url::parse(url).ok()?;
    Some(host_text(&parsed.host()?.to_owned()))
}

/// The text by which hosts are compared. An IPv4-mapped IPv6 address is its IPv4 address.
fn host_text(host: &Host) -> String {
    match host {
        Host::Domain(domain) => without_last_dot(domain).to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => mapped.to_string(),
            None => host.to_string(),
        },
    }
}

/// A listed host in the form in which hosts of URLs are compared. An address cannot be a `domain`
/// with subdomains.
fn normal_host(entry: &str, domain: bool) -> Option<String> {
    if entry.contains(['*', '/', '?', '#', '@', '\\']) || entry.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return None;
    }
    // A colon is valid only in an address in brackets, so a port is refused.
    let host = Host::parse(entry).ok()?;
    if domain && !matches!(host, Host::Domain(_)) {
        return None;
    }
    Some(host_text(&host)).filter(|host| !host.is_empty())
}

fn without_last_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn needle(text: &str) -> Needle {
        Needle::of_call(&[text]).unwrap().remove(0)
    }

    #[test]
    fn folding_is_simple() {
        for (text, sought, within) in [
            ("KELVIN", "kelvin", true),
            ("\u{212a}elvin", "kelvin", true),
            ("STRASSE", "straße", false),
            ("STRAẞE", "straße", true),
            ("ſafe", "SAFE", true),
            ("ΣΑΣ", "σας", true),
            ("a.c", "A.C", true),
            ("abc", "A.C", false),
            ("x", "", true),
        ] {
            assert_eq!(needle(sought).is_within(text), within, "{text} {sought}");
        }
    }

    #[test]
    fn folded_affixes_may_overlap() {
        assert!(needle("ABA").is_affix(Affix::End, "xababa"));
        assert!(needle("aBa").is_affix(Affix::Start, "ABAB"));
        assert!(!needle("ab").is_affix(Affix::Start, "xab"));
        assert!(!needle("ab").is_affix(Affix::End, "b"));
        assert!(needle("").is_affix(Affix::End, "") && needle("").is_affix(Affix::Start, "x"));
        assert!(needle("É").is_affix(Affix::End, "café"));
        assert!(needle("ab").is_whole("AB") && !needle("ab").is_whole("ABAB") && !needle("ab").is_whole("xAB"));
    }

    #[test]
    fn directories() {
        let directories = Directories::new(["/workspace", "/tmp//out/./x/..", "/"]).unwrap();
        assert_eq!(directories.within("/etc"), Some(true), "everything lies in the root");
        let directories = Directories::new(["/workspace", "/tmp//out/./x/.."]).unwrap();
        for (path, want) in [
            ("/workspace", Some(true)),
            ("/workspace/", Some(true)),
            ("/workspace/a/../b", Some(true)),
            ("/workspace/..", Some(false)),
            ("/workspace/a/../../etc", Some(false)),
            ("/workspace/a/../../workspace/b", Some(true)),
            ("/../workspace", Some(true)),
            ("//workspace//a", None),
            ("//", None),
            ("///workspace//a", Some(true)),
            ("/workspace//a", Some(true)),
            ("/workspace/.../x", None),
            ("/workspace/.. /x", None),
            ("/workspace/ ./x", None),
            ("/workspace/ ", None),
            ("/workspace/..a/ b/c.", Some(true)),
            ("/workspace/..\t/x", Some(true)),
            ("/workspace-secrets", Some(false)),
            ("/tmp/out/y", Some(true)),
            ("/tmp", Some(false)),
            ("/tmp/out/../x", Some(false)),
            ("/x/../tmp/y/../out/.", Some(true)),
            ("/workspace/%20", Some(true)),
            ("/workspace/%2", Some(true)),
            ("workspace", None),
            ("", None),
            ("/workspace/%2e%2e/etc", None),
            ("/workspace/%2F", None),
            ("/workspace/%5c", None),
            ("/workspace/%00", None),
            ("/workspace\\..", None),
            ("/workspace/\0", None),
        ] {
            assert_eq!(directories.within(path), want, "{path}");
        }
        assert_eq!(Directories::new(["/ok", "no"]).err(), Some(1));
        assert_eq!(Directories::new(["/a%2fb"]).err(), Some(0));
        for directory in ["//a", "///a", "/a/.../b", "/a /. "] {
            assert_eq!(Directories::new([directory]).err(), Some(0), "{directory}");
        }
    }

    #[test]
    fn hosts() {
        let hosts =
            Hosts::new(["GOOD.io.", "*.ok.io", "Bücher.example", "127.0.0.1", "[::1]", "[::ffff:10.0.0.1]"]).unwrap();
        for (url, want) in [
            ("https://good.io", Some(true)),
            ("HTTP://GOOD.IO:8080/a?b#c", Some(true)),
            ("https://good.io./", Some(true)),
            ("https://good.io../", Some(false)),
            ("https://a.ok.io/", Some(true)),
            ("https://a.b.ok.io/", Some(true)),
            ("https://ok.io/", Some(false)),
            ("https://xok.io/", Some(false)),
            ("https://good.io.evil.io/", Some(false)),
            ("https://evil.io/?x=https://good.io", Some(false)),
            ("https://evil.io/@good.io", Some(false)),
            ("https://bücher.example/", Some(true)),
            ("https://xn--bcher-kva.example/", Some(true)),
            ("https://ｇｏｏｄ.io/", Some(true)),
            ("https://127.1/", Some(true)),
            ("https://0x7f000001/", Some(true)),
            ("http://2130706433/", Some(true)),
            ("https://[0:0::1]:99/", Some(true)),
            ("https:good.io", None),
            ("https:/good.io", None),
            ("https:///good.io", None),
            ("https:?good.io", None),
            ("http://[::ffff:127.0.0.1]/", Some(true)),
            ("http://[::ffff:7f00:1]:80/", Some(true)),
            ("http://[::ffff:10.0.0.1]/", Some(true)),
            ("http://10.0.0.1/", Some(true)),
            ("http://[::127.0.0.1]/", Some(false)),
            ("http://[64:ff9b::127.0.0.1]/", Some(false)),
            ("https://good.io@evil.io/", None),
            ("https://@evil.io/", None),
            ("https://u:p@good.io/", None),
            ("https:@good.io", None),
            ("ftp://good.io/", None),
            ("good.io", None),
            ("//good.io/", None),
            ("https://", None),
            ("", None),
            (" https://good.io/", None),
            ("https://good.io/ ", None),
            ("https://good.io/\n", None),
            ("https://go\tod.io/", None),
            ("https:\\\\good.io/", None),
            ("https://good.io/?q=a\\b", None),
            ("https://good.io:99999/", None),
            ("https://good.io:x/", None),
            ("https://good io/", None),
        ] {
            assert_eq!(hosts.lists(url), want, "{url}");
        }
        for entry in
            ["https://a.io", "a.io/", "a.io:80", "*.*.a.io", "a*.io", "", ".", "u@a.io", "*.127.0.0.1", "a b", "*."]
        {
            assert_eq!(Hosts::new(["a.io", entry]).err(), Some(1), "{entry}");
        }
    }

    proptest! {
        /// The short way agrees with the parser.
        #[test]
        fn a_plain_host_is_what_the_parser_finds(
            url in "(http|https|HTTPS|Http)://[a-zA-Z0-9.-]{1,12}(:[0-9]{0,6})?[/?#@:%a-z.-]{0,6}"
        ) {
            if let Some(host) = plain_host(&url) {
                let parsed = Url::parse(&url).unwrap();
                prop_assert_eq!(without_last_dot(parsed.host_str().unwrap()), host.to_ascii_lowercase());
                prop_assert_eq!(parsed.username(), "");
                prop_assert_eq!(any_host(&url), Some(host.to_ascii_lowercase()));
            }
        }

        #[test]
        fn no_url_panics(url in ".{0,40}") {
            let hosts = Hosts::new(["example.com", "*.example.org"]).unwrap();
            let _ = hosts.lists(&url);
            let _ = hosts.lists(&format!("https://{url}"));
        }

        #[test]
        fn paths_lie_where_their_resolution_lies(path in "(/(a|b|\\.|\\.\\.|)){0,8}", directory in "(/(a|b)){0,3}") {
            let directory = if directory.is_empty() { "/" } else { &directory };
            let mut resolved: Vec<&str> = Vec::new();
            for segment in path.split('/') {
                match segment {
                    "" | "." => {}
                    ".." => drop(resolved.pop()),
                    name => resolved.push(name),
                }
            }
            let inside: Vec<&str> = directory.split('/').filter(|segment| !segment.is_empty()).collect();
            let is_clear = path.starts_with('/') && (!path.starts_with("//") || path.starts_with("///"));
            let want = is_clear.then(|| resolved.starts_with(&inside));
            prop_assert_eq!(Directories::new([directory]).unwrap().within(&path), want);
        }
    }
}
