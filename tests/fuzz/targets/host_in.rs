//! `host_in` against the `url` crate alone: no URL evades it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use toolgate_fuzz::tape::Tape;
use toolgate_fuzz::{policy_of, truth};
use url::{Host, Url};

/// Parts of hosts and URLs, so that they meet.
const HOST: [&str; 32] = [
    "a",
    "A",
    "b",
    ".",
    ".",
    "io",
    "a.io",
    "a.io",
    ".a.io",
    "x.a.io",
    "b.io",
    "-",
    "xn--",
    "xn--bcher-kva",
    "bücher",
    "ß",
    "0",
    "1",
    "127.1",
    "0x7f",
    "256",
    "[::ffff:7f00:1]",
    "[",
    "]",
    "ａ",
    "。",
    "%61",
    "\u{ad}",
    "_",
    "é",
    "K",
    "..",
];
const URL: [&str; 32] = [
    "http",
    "https",
    "HTTP",
    "ftp",
    "://",
    "://",
    ":",
    "/",
    "//",
    "@",
    ":80",
    ":65536",
    "?",
    "#",
    "\\",
    "\t",
    "\n",
    " ",
    "u",
    "a.io",
    "x.a.io",
    "b.io",
    "A.IO.",
    "evil.io",
    "127.0.0.1",
    "[::ffff:7f00:1]",
    "xn--bcher-kva.example",
    "bücher",
    "%2e",
    "%00",
    "\u{202e}",
    "*",
];

fuzz_target!(|bytes: &[u8]| {
    let mut tape = Tape(bytes);
    let mut hosts = Vec::new();
    for _ in 0..=tape.below(4) {
        let below = if tape.below(3) == 0 { "*." } else { "" };
        hosts.push(format!("{below}{}", tape.text(5, &HOST)));
    }
    let url = match tape.below(4) {
        0 => tape.text(12, &URL),
        1 => format!("https://{}{}", tape.text(6, &HOST), tape.text(4, &URL)),
        // The host of an entry, in disguise.
        2 => {
            let host = tape.pick(&hosts).trim_start_matches("*.").to_owned();
            format!(
                "{}{}{host}{}",
                tape.pick(&["http://", "https://", "HtTpS:"]),
                tape.text(3, &HOST),
                tape.text(4, &URL)
            )
        }
        _ => tape.line(),
    };
    let policy = policy_of(&json!({ "path": "args.x", "op": "host_in", "value": hosts }));
    let listed: Option<Vec<_>> = hosts.iter().map(|entry| normal(entry)).collect();
    assert_eq!(policy.is_some(), listed.is_some(), "{hosts:?}");
    let (Some(policy), Some(listed)) = (policy, listed) else { return };
    let want = host_of(&url).map(|host| {
        listed.iter().any(|(below, name)| match below {
            true => host.strip_suffix(name.as_str()).is_some_and(|before| before.len() > 1 && before.ends_with('.')),
            false => host == *name,
        })
    });
    assert_eq!(truth(&policy, &url), want, "{url:?} in {hosts:?}");
});

/// Returns the host of a URL as a browser does, or `None` if another reader may find another one.
fn host_of(url: &str) -> Option<String> {
    let blank = |c: char| c <= ' ';
    if url.contains(['\\', '\t', '\n', '\r']) || url.starts_with(blank) || url.ends_with(blank) {
        return None;
    }
    let parsed = Url::parse(url).ok().filter(|url| ["http", "https"].contains(&url.scheme()))?;
    let rest = url.split_once(':')?.1;
    let bare = rest.trim_start_matches('/');
    // With another number of slashes, it is relative to a server that has a base.
    if rest.len() - bare.len() != 2 {
        return None;
    }
    let authority = bare.split(['/', '?', '#']).next()?;
    if authority.contains('@') || !parsed.username().is_empty() || parsed.password().is_some() {
        return None;
    }
    Some(compared(&parsed.host()?.to_owned()))
}

/// The text of a host without a trailing dot; that of the IPv4 address that an IPv6 address maps.
fn compared(host: &Host) -> String {
    match host {
        Host::Ipv6(address) if address.to_ipv4_mapped().is_some() => {
            address.to_ipv4_mapped().expect("a mapped address").to_string()
        }
        host => {
            let text = host.to_string();
            text.strip_suffix('.').unwrap_or(&text).to_owned()
        }
    }
}

/// Returns a listed host as it is compared, and true if only its subdomains are meant. Returns
/// `None` if the entry is not a valid host.
fn normal(entry: &str) -> Option<(bool, String)> {
    let (below, name) = entry.strip_prefix("*.").map_or((false, entry), |name| (true, name));
    // A leading dot means nothing to a browser. Elsewhere it means the subdomains, for which this
    // language writes `*.`.
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || "*/?#@\\".contains(c);
    if entry.starts_with('.') || name.chars().any(is_odd) {
        return None;
    }
    let host = Host::parse(name).ok().filter(|host| !below || matches!(host, Host::Domain(_)))?;
    let host = compared(&host);
    (!host.is_empty()).then_some((below, host))
}
