//! The findings of a lint, and the report that collects them.

use std::fmt;

use serde::Serialize;

use crate::policy::Policy;
use crate::tools::explain::{RuleEffect, Witness};

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "hosts may display each differently")]
pub enum Severity {
    /// It may be intended.
    Note,
    /// It is rarely intended.
    Warning,
    /// It cannot be intended.
    Error,
}

impl Severity {
    /// Returns `note`, `warning` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The claim that a finding makes about calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each makes a different promise")]
pub enum Claim {
    /// Every call that the entry (or `all_tools`) matches is denied.
    AlwaysDenied,
    /// The rule holds for no call.
    NeverHolds,
    /// No decision names the rule or limit.
    NeverDecides,
    /// The limit refuses no call because it is exhausted.
    NeverFull,
    /// The witness is a call that the rule or policy was probably intended to stop, and does not.
    SlipsThrough,
    /// No claim about calls: the finding is about the text of the policy, or about a catalogue.
    Nothing,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $severity:ident;)*) => {
        /// The kind of a finding. Its name is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum FindingCode {
            $($(#[$doc])* $name,)*
        }

        impl FindingCode {
            /// Returns the code as text, such as `never_holds`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Returns the severity of findings of this kind.
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)*
                }
            }
        }
    };
}

codes! {
    /// An entry that never applies, because `hide` covers it.
    EntryHidden = "entry_hidden", Warning;
    /// Another entry, or `all_tools`, denies every call that an entry matches.
    EntryShadowed = "entry_shadowed", Warning;
    /// `all_tools` denies every call.
    AllDenied = "all_denied", Error;
    /// The conditions of a rule never hold together, or one of them never holds.
    NeverHolds = "never_holds", Error;
    /// A rule that no decision names: another part always stops the call first.
    RuleNeverDecides = "rule_never_decides", Warning;
    /// A limit that no decision names.
    LimitNeverDecides = "limit_never_decides", Warning;
    /// A limit that calls cannot exceed.
    LimitNeverReached = "limit_never_reached", Warning;
    /// A limit whose scope has arguments but does not identify the caller: a caller can start a new
    /// count at any time.
    ScopeOfArguments = "scope_of_arguments", Error;
    /// A limit over a day or more that counts by an argument, without a limit by grant beside it: a
    /// caller can begin counters until it has its share of the store.
    ManyCounters = "many_counters", Note;
    /// A limit whose scope is the session alone, where no limit by another identity counts the same
    /// calls: who calls may begin a new session, and with it a new count.
    ScopeOfSession = "scope_of_session", Note;
    /// A regular expression of `require` that is not anchored at both ends: any text may precede or
    /// follow its match.
    RegexUnanchored = "regex_unanchored", Warning;
    /// A denial that a caller can evade by omitting an argument or sending an empty list.
    DenialLeftOut = "denial_left_out", Warning;
    /// A denial that a caller can evade by spelling a text differently.
    DenialRespelt = "denial_respelt", Note;
    /// A denial that a caller can evade by sending a value of another type.
    DenialRetyped = "denial_retyped", Note;
    /// An approval that a caller can evade by omitting an argument or sending an empty list.
    ApprovalLeftOut = "approval_left_out", Warning;
    /// An approval that a caller can evade by spelling a text differently.
    ApprovalRespelt = "approval_respelt", Note;
    /// An approval that a caller can evade by sending a value of another type.
    ApprovalRetyped = "approval_retyped", Note;
    /// A text that looks like a pattern where every character is literal: `/data/*` in
    /// `path_within`, `^get_` as the name of a tool.
    LiteralPattern = "literal_pattern", Warning;
    /// Two counters whose names differ only in case or in the separators between words.
    CountersAlike = "counters_alike", Warning;
    /// `default` is `allow`, and the policy has no limits.
    Unlimited = "unlimited", Warning;
    /// `bind` has an upper bound for all arguments, which are not a number.
    BoundOfArguments = "bound_of_arguments", Error;
    /// A window of more than a day whose windows are counted from 1970-01-01, so that it begins
    /// anew on days that no calendar names.
    AlignedToEpoch = "aligned_to_epoch", Note;
    /// A `utc_offset` that no place has.
    OffsetOfNoPlace = "offset_of_no_place", Note;
    /// `bind` is empty: one approval lets the call pass with any arguments.
    BoundToNothing = "bound_to_nothing", Warning;
    /// `min_approvers` exceeds the number of approvers: the approval can never be given.
    TooFewApprovers = "too_few_approvers", Error;
    /// An entry, or a name in `hide`, that matches no tool in the catalogue.
    NoSuchTool = "no_such_tool", Warning;
    /// A tool in the catalogue that no entry matches.
    ToolUnmentioned = "tool_unmentioned", Note;
    /// An argument that no matching tool declares, or a part of an argument that has no parts.
    NoSuchArgument = "no_such_argument", Warning;
    /// An argument that a matching tool declares as optional.
    ArgumentOptional = "argument_optional", Note;
    /// An argument whose declared type never fits: no value satisfies the comparison, or can be the
    /// amount, the part of a scope, the bound or the operand.
    NeverOfType = "never_of_type", Warning;
    /// The document or the catalogue is too large to be examined completely.
    CannotTell = "cannot_tell", Note;
}

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A finding whose place is still a byte offset, not a line and a column.
pub(super) struct UnplacedFinding {
    pub(super) code: FindingCode,
    pub(super) claim: Claim,
    pub(super) at: usize,
    pub(super) pointer: String,
    pub(super) message: String,
    pub(super) help: String,
    pub(super) witness: Option<(Witness, RuleEffect)>,
}

/// Returns a call together with the effect of a policy on it.
pub(super) fn with_effect(policy: &Policy, call: Witness) -> (Witness, RuleEffect) {
    let effect = RuleEffect::of(policy, &call);
    (call, effect)
}

impl UnplacedFinding {
    /// Creates a finding that makes no claim about calls. Its place is an offset and a pointer.
    pub(super) fn without_claim(
        code: FindingCode,
        (at, pointer): (usize, String),
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let (message, help) = (message.into(), help.into());
        Self { code, claim: Claim::Nothing, at, pointer, message, help, witness: None }
    }
}

/// A probable mistake in a policy: its place, its reason, and a help text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    code: FindingCode,
    severity: Severity,
    claim: Claim,
    pointer: String,
    line: usize,
    column: usize,
    message: String,
    help: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<Witness>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<RuleEffect>,
}

impl Finding {
    /// Returns the kind of the finding. Codes are stable.
    pub fn code(&self) -> FindingCode {
        self.code
    }

    /// Returns the severity.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Returns the claim that the finding makes about calls.
    pub fn claim(&self) -> Claim {
        self.claim
    }

    /// Returns the JSON Pointer of the place.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Returns the line in the source text, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns the column in the source text, in characters from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// Returns the message: the reason for the finding.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the help text: how to fix the policy.
    pub fn help(&self) -> &str {
        &self.help
    }

    /// Returns a call that demonstrates the finding, if it has one.
    pub fn witness(&self) -> Option<&Witness> {
        self.witness.as_ref()
    }

    /// Returns the effect of the policy on the witness, or that of a single rule if the finding is
    /// about one.
    pub fn effect(&self) -> Option<&RuleEffect> {
        self.effect.as_ref()
    }
}

/// Writes the finding, its place, its help and its witness, one line each.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let printable = |text: &str| -> String {
            text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
        };
        let Self { code, line, column, .. } = self;
        writeln!(f, "{line}:{column}: {}[{code}]: {}", self.severity.as_str(), printable(&self.message))?;
        let place = if self.pointer.is_empty() { "the document" } else { &self.pointer };
        writeln!(f, "  in {}", printable(place))?;
        write!(f, "  = help: {}", printable(&self.help))?;
        match (&self.witness, &self.effect) {
            (Some(witness), Some(effect)) => {
                write!(f, "\n  = witness: {} -> {}", printable(&witness.to_string()), printable(&effect.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// The findings of a lint.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[must_use = "the findings are only in the report"]
pub struct Report {
    findings: Vec<Finding>,
    omitted: usize,
    complete: bool,
}

/// Writes every finding, then their number.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        let count = self.findings.len() + self.omitted;
        let plural = if count == 1 { "" } else { "s" };
        writeln!(f, "{count} finding{plural}")
    }
}

impl Report {
    /// Returns the findings, in the order of their places.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns the number of findings beyond the first 10,000, which are not kept.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Returns `true` if everything was examined, `false` if the document or the catalogue is too
    /// large or nested too deeply.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Returns the highest severity, or `None` if there are no findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// The number of findings that a report keeps.
const MAX_FINDINGS: usize = 10_000;

/// Makes the report: sorts the findings and computes lines and columns in one pass over the text.
pub(super) fn report(mut findings: Vec<UnplacedFinding>, source: &str, complete: bool) -> Report {
    if !complete {
        let message = "not everything was checked: the document or the catalogue is too large";
        let help = "check parts of it separately";
        let place = (0, String::new());
        findings.push(UnplacedFinding::without_claim(FindingCode::CannotTell, place, message, help));
    }
    findings.sort_by(|a, b| (a.at, a.code, &a.pointer).cmp(&(b.at, b.code, &b.pointer)));
    let omitted = findings.len().saturating_sub(MAX_FINDINGS);
    findings.truncate(MAX_FINDINGS);
    let (mut line, mut column, mut seen) = (1, 1, 0);
    let place = |finding: UnplacedFinding| {
        let UnplacedFinding { code, claim, at, pointer, message, help, witness } = finding;
        for c in source.get(seen..at).unwrap_or_default().chars() {
            (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        seen = at.max(seen);
        let (witness, effect) = witness.unzip();
        Finding { code, severity: code.severity(), claim, pointer, line, column, message, help, witness, effect }
    };
    Report { findings: findings.into_iter().map(place).collect(), omitted, complete }
}
