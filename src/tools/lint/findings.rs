//! What a lint has found.

use std::fmt;

use serde::Serialize;

use crate::policy::Policy;
use crate::tools::explain::{RuleEffect, Witness};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a host may show each in its own way")]
pub enum Severity {
    /// It can be meant so.
    Note,
    /// It is rarely meant so.
    Warning,
    /// It cannot be meant so.
    Error,
}

impl Severity {
    /// `note`, `warning` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What a finding claims of all calls, or of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "each is a promise of its own")]
pub enum Claim {
    /// Every call that the entry (or `all_tools`) matches is denied.
    AlwaysDenied,
    /// The rule is true of no call.
    NeverHolds,
    /// No decision ever names the rule or limit.
    NeverDecides,
    /// The limit refuses no call for lack of room.
    NeverFull,
    /// The witness is a call that the place does not stop, and that it was likely meant to.
    SlipsThrough,
    /// Nothing of calls: it is how the policy is written, or what a catalogue says.
    Nothing,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $severity:ident;)*) => {
        /// The kind of a finding. Its text is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum FindingCode {
            $($(#[$doc])* $name,)*
        }

        impl FindingCode {
            /// The code as text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// How bad a finding of this kind is.
            pub fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)*
                }
            }
        }
    };
}

codes! {
    /// `hide` covers an entry: it never applies.
    EntryHidden = "entry_hidden", Warning;
    /// Another entry, or `all_tools`, denies every call of this one.
    EntryShadowed = "entry_shadowed", Warning;
    /// `all_tools` denies every call.
    AllDenied = "all_denied", Error;
    /// The conditions of a rule never hold together, or one of them never holds.
    NeverHolds = "never_holds", Error;
    /// A rule that no decision ever names: another one always stops the call before it.
    RuleNeverDecides = "rule_never_decides", Warning;
    /// A limit that no decision ever names.
    LimitNeverDecides = "limit_never_decides", Warning;
    /// A limit that nothing can exceed.
    LimitNeverReached = "limit_never_reached", Warning;
    /// A limit whose scope is made of arguments, and of nothing that is a caller's own: a caller begins a new count whenever it
    /// wants.
    ScopeOfArguments = "scope_of_arguments", Error;
    /// An expression of `require` that is not tied to both ends: anything may stand before or after what it matches.
    RegexUnanchored = "regex_unanchored", Warning;
    /// A denial that a caller leaves by leaving an argument out, or where it says what becomes of that, by an empty list.
    DenialLeftOut = "denial_left_out", Warning;
    /// A denial that a caller leaves by another spelling.
    DenialRespelt = "denial_respelt", Note;
    /// A denial that a caller leaves by another type of value.
    DenialRetyped = "denial_retyped", Note;
    /// An approval that a caller need not ask for if it leaves an argument out, or sends an empty list.
    ApprovalLeftOut = "approval_left_out", Warning;
    /// An approval that a caller need not ask for in another spelling.
    ApprovalRespelt = "approval_respelt", Note;
    /// An approval that a caller need not ask for with another type of value.
    ApprovalRetyped = "approval_retyped", Note;
    /// A text that looks like a pattern where it is taken as it stands: `/data/*` in `path_within`, `^get_` as a tool's name.
    LiteralPattern = "literal_pattern", Warning;
    /// Two counters whose names differ in spelling alone: in case, or in what parts their words.
    CountersAlike = "counters_alike", Warning;
    /// `default` is `allow`, and there is no limit at all.
    Unlimited = "unlimited", Warning;
    /// `bind` bounds all arguments as if they were a number.
    BoundOfArguments = "bound_of_arguments", Error;
    /// `min_approvers` is above the number of approvers: nobody can give the approval.
    TooFewApprovers = "too_few_approvers", Error;
    /// An entry, or a name in `hide`, that is no tool of the catalogue.
    NoSuchTool = "no_such_tool", Warning;
    /// A tool of the catalogue that no entry matches.
    ToolUnmentioned = "tool_unmentioned", Note;
    /// An argument that no matching tool declares, or a part of one that has no parts.
    NoSuchArgument = "no_such_argument", Warning;
    /// An argument that a matching tool declares optional.
    ArgumentOptional = "argument_optional", Note;
    /// A comparison that no value of the declared type satisfies; or an amount, a part of a scope or a bound that none can be.
    NeverOfType = "never_of_type", Warning;
    /// The document or the catalogue is too large to be looked at whole.
    CannotTell = "cannot_tell", Note;
}

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A finding in the making: where it stands is a byte offset yet.
pub(super) struct Found {
    pub(super) code: FindingCode,
    pub(super) claim: Claim,
    pub(super) at: usize,
    pub(super) pointer: String,
    pub(super) message: String,
    pub(super) help: String,
    pub(super) witness: Option<(Witness, RuleEffect)>,
}

/// A call, with the effect of a policy on it.
pub(super) fn shown(policy: &Policy, call: Witness) -> (Witness, RuleEffect) {
    let effect = RuleEffect::of(policy, &call);
    (call, effect)
}

impl Found {
    /// One that claims nothing of calls.
    pub(super) fn remark(
        code: FindingCode,
        (at, pointer): (usize, String),
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let (message, help) = (message.into(), help.into());
        Self { code, claim: Claim::Nothing, at, pointer, message, help, witness: None }
    }
}

/// One thing that is odd in a policy: where, why, and how to fix it.
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
    /// What kind of finding it is; stable.
    pub fn code(&self) -> FindingCode {
        self.code
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What it claims.
    pub fn claim(&self) -> Claim {
        self.claim
    }

    /// The JSON Pointer of the place.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The line in the source text, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in the source text, in characters from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What is odd.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How to fix it.
    pub fn help(&self) -> &str {
        &self.help
    }

    /// A call that shows it.
    pub fn witness(&self) -> Option<&Witness> {
        self.witness.as_ref()
    }

    /// The effect of the policy on the witness; where the finding is about one rule, that of the rule alone.
    pub fn effect(&self) -> Option<&RuleEffect> {
        self.effect.as_ref()
    }
}

/// The finding, its help and its witness, a line each.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: &str| -> String {
            text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
        };
        let Self { code, line, column, .. } = self;
        writeln!(f, "{line}:{column}: {}[{code}]: {}", self.severity.as_str(), plain(&self.message))?;
        writeln!(f, "  in {}", if self.pointer.is_empty() { "the document".to_owned() } else { plain(&self.pointer) })?;
        write!(f, "  = help: {}", plain(&self.help))?;
        match (&self.witness, &self.effect) {
            (Some(witness), Some(effect)) => {
                write!(f, "\n  = witness: {} -> {}", plain(&witness.to_string()), plain(&effect.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// The findings of a lint.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[must_use = "a report is for somebody to read"]
pub struct Report {
    findings: Vec<Finding>,
    omitted: usize,
    complete: bool,
}

/// For a person: each finding as it is shown, and how many there are.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        let count = self.findings.len() + self.omitted;
        let plural = if count == 1 { "" } else { "s" };
        writeln!(f, "{count} finding{plural}")
    }
}

impl Report {
    /// The findings, in the order of their places.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many findings there are beyond the first 10,000, which are all that is kept.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Whether everything was looked at. It is not where the document or the catalogue is too large, or too deep.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The worst severity; none without findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// How many findings are kept.
const KEPT: usize = 10_000;

/// The report, with lines and columns. Linear in the text, but for the sorting of findings.
pub(super) fn report(mut found: Vec<Found>, source: &str, complete: bool) -> Report {
    if !complete {
        let message = "not everything was looked at: there is more here than a lint takes time for";
        let help = "look at parts of it alone";
        found.push(Found::remark(FindingCode::CannotTell, (0, String::new()), message, help));
    }
    found.sort_by(|a, b| (a.at, a.code, &a.pointer).cmp(&(b.at, b.code, &b.pointer)));
    let omitted = found.len().saturating_sub(KEPT);
    found.truncate(KEPT);
    let (mut line, mut column, mut seen) = (1, 1, 0);
    let finding = |found: Found| {
        let Found { code, claim, at, pointer, message, help, witness } = found;
        for c in source.get(seen..at).unwrap_or_default().chars() {
            (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        seen = at.max(seen);
        let (witness, effect) = witness.unzip();
        Finding { code, severity: code.severity(), claim, pointer, line, column, message, help, witness, effect }
    };
    Report { findings: found.into_iter().map(finding).collect(), omitted, complete }
}
