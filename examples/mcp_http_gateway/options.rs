//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use toolgate::mcp::RefusalFormat;

pub(crate) const USAGE: &str = "\
usage: mcp_http_gateway --listen ADDRESS:PORT --upstream http://HOST:PORT/PATH --grants GRANTS.json
           [--server NAME] [--redis URL] [--admin SOCKET] [--audit LOG.jsonl] [--require-audit]
           [--upstream-token FILE] [--allow-origin ORIGIN]... [--timeout SECONDS] [--max-message BYTES]
           [--session-idle SECONDS] [--sessions-per-grant N] [--errors]
       mcp_http_gateway digest < TOKEN
       mcp_http_gateway admin SOCKET COMMAND...";

/// The longest message that is passed on, unless `--max-message` says otherwise.
const MAX_MESSAGE: usize = 16 << 20;
/// How long a request may be under way: as long as a unit in flight is held, unless the policy says otherwise.
const TIMEOUT: Duration = Duration::from_secs(300);
const SESSION_IDLE: Duration = Duration::from_secs(1800);
const SESSIONS_PER_GRANT: usize = 1000;

pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: Uri,
    pub(crate) grants: PathBuf,
    /// What policies and grants know the server by.
    pub(crate) server: String,
    pub(crate) redis: Option<String>,
    pub(crate) admin: Option<PathBuf>,
    pub(crate) audit: Option<PathBuf>,
    pub(crate) require_audit: bool,
    pub(crate) upstream_token: Option<PathBuf>,
    allow_origin: Vec<String>,
    /// How long a request may be under way; none is without end.
    pub(crate) timeout: Option<Duration>,
    /// The most bytes that a message may have, either way.
    pub(crate) max_message: usize,
    pub(crate) session_idle: Duration,
    pub(crate) sessions_per_grant: usize,
    /// How refusals are written; none goes by the version of the protocol.
    pub(crate) form: Option<RefusalFormat>,
    /// Nothing is judged: for measuring alone.
    pub(crate) ungated: bool,
}

impl Options {
    pub(crate) fn read(words: Vec<OsString>) -> Result<Self, String> {
        let text = |word: OsString| word.into_string().map_err(|word| format!("not UTF-8: {}", word.display()));
        let words = words.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let mut words = words.into_iter();
        let (mut listen, mut upstream, mut grants) = (None, None, None);
        let mut options = Self {
            listen: SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0),
            upstream: Uri::default(),
            grants: PathBuf::new(),
            server: "upstream".into(),
            redis: None,
            admin: None,
            audit: None,
            require_audit: false,
            upstream_token: None,
            allow_origin: Vec::new(),
            timeout: Some(TIMEOUT),
            max_message: MAX_MESSAGE,
            session_idle: SESSION_IDLE,
            sessions_per_grant: SESSIONS_PER_GRANT,
            form: None,
            ungated: false,
        };
        while let Some(option) = words.next() {
            match option.as_str() {
                "--require-audit" => options.require_audit = true,
                "--errors" => options.form = Some(RefusalFormat::Error),
                "--ungated" => options.ungated = true,
                _ => {
                    let value = words.next().ok_or_else(|| format!("{option} needs a value, or is no option"))?;
                    let number = || value.parse::<u64>().map_err(|_| format!("{option} needs a whole number"));
                    match option.as_str() {
                        "--listen" => {
                            let address = value.parse().map_err(|_| "--listen needs an address and a port")?;
                            listen = Some(address);
                        }
                        "--upstream" => upstream = Some(upstream_url(&value)?),
                        "--grants" => grants = Some(value.into()),
                        "--server" if !value.is_empty() => options.server = value,
                        "--redis" => options.redis = Some(value),
                        "--admin" => options.admin = Some(value.into()),
                        "--audit" => options.audit = Some(value.into()),
                        "--upstream-token" => options.upstream_token = Some(value.into()),
                        "--allow-origin" => options.allow_origin.push(value),
                        "--timeout" => {
                            let seconds = number()?.min(u64::from(u32::MAX));
                            options.timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
                        }
                        "--max-message" => options.max_message = positive(&option, number()?)?,
                        "--session-idle" => {
                            options.session_idle = Duration::from_secs(number()?.min(u64::from(u32::MAX)));
                        }
                        "--sessions-per-grant" => options.sessions_per_grant = positive(&option, number()?)?,
                        _ => return Err(format!("no such option: {option}")),
                    }
                }
            }
        }
        options.listen = listen.ok_or("--listen ADDRESS:PORT is missing")?;
        options.upstream = upstream.ok_or("--upstream URL is missing")?;
        options.grants = grants.ok_or("--grants GRANTS.json is missing")?;
        if options.require_audit && options.audit.is_none() {
            return Err("--require-audit needs --audit LOG.jsonl".into());
        }
        if options.ungated && !options.listen.ip().is_loopback() {
            return Err("--ungated is for measuring, and listens on a loopback address alone".into());
        }
        Ok(options)
    }

    /// Where the gateway answers: the same path as the server's.
    pub(crate) fn path(&self) -> &str {
        self.upstream.path()
    }

    /// Whether web pages of an origin may ask. Without this check any page that somebody opens could, by having its own name resolve
    /// to this machine.
    pub(crate) fn lets_in(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let is_loopback = || {
            let uri: Uri = origin.parse().ok()?;
            let (host, scheme) = (uri.host()?, uri.scheme_str()?);
            let plain = host.trim_start_matches('[').trim_end_matches(']');
            let is_local = host == "localhost" || plain.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            Some(is_local && matches!(scheme, "http" | "https"))
        };
        self.allow_origin.iter().any(|allowed| allowed == origin) || is_loopback().unwrap_or(false)
    }
}

fn positive(option: &str, number: u64) -> Result<usize, String> {
    usize::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| format!("{option} is too small or large"))
}

fn upstream_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_| "--upstream needs a URL".to_owned())?;
    if url.scheme_str() != Some("http") || url.host().is_none() || url.query().is_some() {
        return Err("--upstream needs a URL such as http://127.0.0.1:9000/mcp, without TLS and without a query".into());
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("--upstream takes no user information: use --upstream-token FILE".into());
    }
    Ok(url)
}
