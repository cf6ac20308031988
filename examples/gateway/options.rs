//! The options that all gateways have.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use toolgate::mcp::{OnChange, RefusalFormat};

use super::caller::Caller;

/// The longest message that is passed on, unless `--max-message` says otherwise.
const MAX_MESSAGE: usize = 16 << 20;
/// How long a request may be under way: as long as a unit in flight is held, unless the policy says otherwise.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What the common options say.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) policy: PathBuf,
    pub(crate) caller: Caller,
    /// Where the admin socket is to be.
    pub(crate) admin: Option<PathBuf>,
    /// Where the audit log is.
    pub(crate) audit: Option<PathBuf>,
    /// Whether what cannot be recorded is denied.
    pub(crate) require_audit: bool,
    /// Where the pins of tools are kept.
    pub(crate) pins: Option<PathBuf>,
    /// What becomes of tools whose definition has changed; none, if nobody looks.
    pub(crate) on_changed_tool: Option<OnChange>,
    /// How long a request may be under way; none is without end.
    pub(crate) timeout: Option<Duration>,
    /// The most bytes that a message may have.
    pub(crate) max_message: usize,
    /// How refusals are written; none goes by the version of the protocol.
    pub(crate) form: Option<RefusalFormat>,
}

/// The words of a command line, from the left.
pub(crate) struct Words(std::vec::IntoIter<OsString>);

impl Words {
    pub(crate) fn new(words: Vec<OsString>) -> Self {
        Self(words.into_iter())
    }

    fn next(&mut self) -> Result<Option<String>, String> {
        let text = |word: OsString| word.into_string().map_err(|word| format!("not UTF-8: {}", word.display()));
        self.0.next().map(text).transpose()
    }

    /// The value of an option.
    pub(crate) fn value(&mut self, option: &str) -> Result<String, String> {
        self.next()?.ok_or_else(|| format!("{option} needs a value"))
    }

    /// The value of an option, as a whole number.
    pub(crate) fn number(&mut self, option: &str) -> Result<u64, String> {
        let value = self.value(option)?;
        value.parse().map_err(|_| format!("{option} needs a whole number, not `{value}`"))
    }
}

impl Options {
    /// Reads the options up to the end or to `--`, after which they give back what follows. An option that is none of the common
    /// ones is offered to `own`, which says whether it knows it.
    pub(crate) fn read(
        words: Vec<OsString>,
        mut own: impl FnMut(&str, &mut Words) -> Result<bool, String>,
    ) -> Result<(Self, Vec<OsString>), String> {
        let mut words = Words::new(words);
        let mut policy = None;
        let mut options = Self {
            policy: PathBuf::new(),
            caller: Caller::default(),
            admin: None,
            audit: None,
            require_audit: false,
            pins: None,
            on_changed_tool: None,
            timeout: Some(TIMEOUT),
            max_message: MAX_MESSAGE,
            form: None,
        };
        while let Some(option) = words.next()? {
            if option == "--" {
                break;
            }
            if let Some(name) = options.caller.by_option(&option) {
                *name = Some(words.value(&option)?);
                continue;
            }
            match option.as_str() {
                "--policy" => policy = Some(words.value(&option)?.into()),
                "--admin" => options.admin = Some(words.value(&option)?.into()),
                "--audit" => options.audit = Some(words.value(&option)?.into()),
                "--require-audit" => options.require_audit = true,
                "--pins" => options.pins = Some(words.value(&option)?.into()),
                "--on-changed-tool" => {
                    options.on_changed_tool = Some(match words.value(&option)?.as_str() {
                        "deny" => OnChange::Drop,
                        "report" => OnChange::Keep,
                        other => return Err(format!("--on-changed-tool is `deny` or `report`, not `{other}`")),
                    });
                }
                "--timeout" => {
                    let seconds = words.number(&option)?;
                    options.timeout = (seconds > 0).then(|| Duration::from_secs(seconds.min(u64::from(u32::MAX))));
                }
                "--max-message" => {
                    let bytes = words.number(&option)?;
                    options.max_message = usize::try_from(bytes)
                        .ok()
                        .filter(|bytes| *bytes > 0)
                        .ok_or("--max-message is too small or large")?;
                }
                "--errors" => options.form = Some(RefusalFormat::Error),
                _ if own(&option, &mut words)? => {}
                _ => return Err(format!("no such option: {option}; --help lists them")),
            }
        }
        options.policy = policy.ok_or("--policy POLICY.json is missing; --help lists all options")?;
        if options.require_audit && options.audit.is_none() {
            return Err("--require-audit needs --audit LOG.jsonl".into());
        }
        if options.pins.is_some() && options.on_changed_tool.is_none() {
            options.on_changed_tool = Some(OnChange::Drop);
        }
        Ok((options, words.0.collect()))
    }
}
