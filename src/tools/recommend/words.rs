//! The words that indicate the class of a tool. Each row has a class, the place where its words
//! count, and a reason.
//!
//! A word that fits two classes is listed under the stricter one. An ambiguous word (`manage`,
//! `process`, `handle`) is not listed: a tool without any other known word is classed as other.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::RiskClass;
use super::RiskClass::{Destructive, Execute, Financial, Read, Write};

/// Words with the same meaning.
pub(super) struct Row {
    pub(super) class: RiskClass,
    pub(super) place: Place,
    pub(super) why: &'static str,
    words: &'static [&'static str],
}

/// The place where a word counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A verb, wherever it appears in a name.
    Anywhere,
    /// A noun too: it counts only if no other verb precedes it. `run_job` runs, `get_run`
    /// reads.
    Leading,
    /// Counts at the beginning of a sentence, but not in a name: `return_order` and
    /// `capture_payment` do more than read.
    Sentence,
}

use Place::{Anywhere, Leading, Sentence};

const fn row(class: RiskClass, place: Place, why: &'static str, words: &'static [&'static str]) -> Row {
    Row { class, place, why, words }
}

pub(super) static VERBS: [Row; 21] = [
    row(
        Read,
        Anywhere,
        "looks something up",
        &[
            "browse", "describe", "display", "download", "fetch", "find", "get", "grep", "head", "inspect", "list",
            "lookup", "peek", "query", "read", "retrieve", "search", "show", "stat", "tail", "view",
        ],
    ),
    row(
        Read,
        Anywhere,
        "computes a result from its input",
        &[
            "analyse",
            "analyze",
            "calculate",
            "check",
            "compare",
            "compute",
            "convert",
            "count",
            "echo",
            "estimate",
            "explain",
            "ping",
            "preview",
            "summarise",
            "summarize",
            "translate",
            "validate",
            "verify",
            "wait",
        ],
    ),
    row(
        Read,
        Leading,
        "reports a state",
        &["diff", "help", "info", "status", "screenshot", "version", "watch", "whoami"],
    ),
    row(Read, Sentence, "returns something", &["capture", "return"]),
    row(
        Write,
        Anywhere,
        "creates something",
        &["add", "append", "clone", "copy", "create", "generate", "insert", "make", "upload", "upsert", "write"],
    ),
    row(
        Write,
        Anywhere,
        "changes something",
        &[
            "apply",
            "archive",
            "compress",
            "configure",
            "disable",
            "edit",
            "enable",
            "finalise",
            "finalize",
            "gzip",
            "modify",
            "move",
            "put",
            "rename",
            "reorder",
            "replace",
            "restore",
            "save",
            "set",
            "store",
            "toggle",
            "update",
            "zip",
        ],
    ),
    row(
        Write,
        Anywhere,
        "notifies others or gives them access",
        &["assign", "invite", "notify", "publish", "reply", "send", "submit", "subscribe", "unsubscribe"],
    ),
    row(
        Write,
        Anywhere,
        "operates a page or an application",
        &["click", "drag", "fill", "hover", "navigate", "press", "resize", "scroll"],
    ),
    row(
        Write,
        Leading,
        "changes something",
        &[
            "accept",
            "approve",
            "attach",
            "change",
            "checkout",
            "close",
            "comment",
            "commit",
            "connect",
            "detach",
            "fork",
            "forward",
            "grant",
            "import",
            "mark",
            "merge",
            "open",
            "patch",
            "pause",
            "post",
            "pull",
            "push",
            "rebase",
            "reconnect",
            "register",
            "reject",
            "resume",
            "rollout",
            "scale",
            "schedule",
            "select",
            "share",
            "stage",
            "stop",
            "sync",
            "tag",
            "type",
        ],
    ),
    row(
        Execute,
        Anywhere,
        "runs code or a command",
        &["eval", "evaluate", "exec", "execute", "invoke", "launch", "spawn", "ssh", "sudo"],
    ),
    row(
        Execute,
        Leading,
        "starts work with an unknown outcome",
        &[
            "bash",
            "build",
            "call",
            "command",
            "compile",
            "deploy",
            "dispatch",
            "install",
            "powershell",
            "reboot",
            "restart",
            "run",
            "script",
            "shell",
            "start",
            "terminal",
            "trigger",
            "upgrade",
        ],
    ),
    row(Financial, Anywhere, "moves money", &["buy", "donate", "pay", "reimburse", "remit", "sell", "withdraw"]),
    row(
        Financial,
        Leading,
        "moves money",
        &["bill", "charge", "deposit", "invoice", "payout", "purchase", "refund", "trade", "transfer", "wire"],
    ),
    row(
        Destructive,
        Anywhere,
        "removes something",
        &[
            "del",
            "delete",
            "destroy",
            "discard",
            "erase",
            "expunge",
            "nuke",
            "obliterate",
            "purge",
            "remove",
            "rm",
            "rmdir",
            "shred",
            "unlink",
            "wipe",
        ],
    ),
    row(Destructive, Anywhere, "overwrites something", &["overwrite", "rollback", "truncate"]),
    row(
        Destructive,
        Anywhere,
        "ends something permanently",
        &["decommission", "deprovision", "deregister", "evict", "kill", "revoke", "terminate", "uninstall"],
    ),
    row(
        Destructive,
        Leading,
        "removes something",
        &["clean", "cleanup", "clear", "drain", "drop", "empty", "flush", "prune", "trash"],
    ),
    row(Destructive, Leading, "undoes what was done", &["reset", "revert", "undo"]),
    row(Destructive, Leading, "ends something permanently", &["abort", "cancel", "deactivate", "shutdown", "teardown"]),
    row(Destructive, Leading, "locks somebody out", &["ban", "expel", "kick"]),
    // `format_disk` and `format_text` share a word with two meanings.
    row(Destructive, Leading, "may overwrite a whole device", &["format", "reformat"]),
];

/// Nouns about money. A tool that writes or executes and has one of them in its name is classed as
/// financial.
pub(super) static MONEY: &[&str] = &[
    "balance",
    "bank",
    "billing",
    "charge",
    "charges",
    "coupon",
    "coupons",
    "credit",
    "credits",
    "debit",
    "deposit",
    "dispute",
    "disputes",
    "funds",
    "iban",
    "invoice",
    "invoices",
    "loan",
    "money",
    "order",
    "orders",
    "payment",
    "payments",
    "payout",
    "payouts",
    "payroll",
    "price",
    "prices",
    "pricing",
    "purchase",
    "purchases",
    "refund",
    "refunds",
    "salary",
    "subscription",
    "subscriptions",
    "trade",
    "trades",
    "transfer",
    "transfers",
    "wallet",
];
pub(super) const MONEY_WHY: &str = "changes something about money";

/// Arguments that indicate the same. The list is shorter, because a filter of a list may name an
/// invoice.
pub(super) static MONEY_ARGUMENTS: &[&str] = &["amount", "currency", "iban", "price"];
pub(super) const MONEY_ARGUMENT_WHY: &str = "is an amount of money";

/// Arguments that hold code.
pub(super) static CODE_ARGUMENTS: &[&str] =
    &["bash", "cmd", "command", "commands", "javascript", "powershell", "python", "script", "shell", "sql"];
pub(super) const CODE_WHY: &str = "is code or a command";

/// Last words of arguments that only refer to code: `command_id`.
pub(super) static ABOUT: &[&str] =
    &["at", "count", "format", "id", "ids", "language", "limit", "name", "status", "timeout", "type", "url", "version"];

/// Arguments that can make a call destructive.
pub(super) static DESTROYING_ARGUMENTS: &[&str] = &["delete", "destroy", "erase", "overwrite", "purge", "wipe"];
pub(super) const DESTROYING_WHY: &str = "can make it destroy something";

/// Arguments that select one of several operations of a tool.
pub(super) static CHOICES: &[&str] =
    &["action", "command", "method", "mode", "op", "operation", "subcommand", "task", "verb"];
pub(super) const CHOICE_WHY: &str = "can be chosen";

/// One word or two in a row, the class, and the reason.
pub(super) type Phrase = (&'static str, RiskClass, &'static str);

/// Words, or two words in a row, that count wherever they appear in a description.
static PHRASES: [Phrase; 20] = [
    ("arbitrary code", Execute, "runs code or a command"),
    ("arbitrary command", Execute, "runs code or a command"),
    ("arbitrary commands", Execute, "runs code or a command"),
    ("arbitrary javascript", Execute, "runs code or a command"),
    ("arbitrary sql", Execute, "runs code or a command"),
    ("be executed", Execute, "runs code or a command"),
    ("shell command", Execute, "runs code or a command"),
    ("shell commands", Execute, "runs code or a command"),
    ("sql query", Execute, "runs code or a command"),
    ("sql statement", Execute, "runs code or a command"),
    ("to execute", Execute, "runs code or a command"),
    ("to run", Execute, "runs code or a command"),
    ("to delete", Destructive, "removes something"),
    ("to erase", Destructive, "removes something"),
    ("be undone", Destructive, "cannot be undone"),
    ("data loss", Destructive, "removes something"),
    ("destructive", Destructive, "is stated"),
    ("irreversible", Destructive, "cannot be undone"),
    ("irreversibly", Destructive, "cannot be undone"),
    ("permanently", Destructive, "cannot be undone"),
];

/// Words at the beginning of a sentence that precede its verb.
pub(super) static LEADS: &[&str] = &[
    "allows",
    "also",
    "batch",
    "bulk",
    "can",
    "could",
    "for",
    "force",
    "function",
    "helps",
    "it",
    "lets",
    "may",
    "must",
    "optionally",
    "please",
    "should",
    "then",
    "this",
    "to",
    "tool",
    "use",
    "used",
    "will",
    "you",
];

/// Nouns for secrets: reading them is more severe.
pub(super) static SECRETS: &[&str] =
    &["apikey", "credential", "credentials", "env", "environ", "passwd", "password", "passwords", "secret", "secrets"];
pub(super) const SECRETS_WHY: &str = "shows secrets";

/// Words for many items at once: changing them is more severe.
pub(super) static BULK: &[&str] = &["all", "bulk", "everything", "recursive", "wildcard"];
pub(super) const BULK_WHY: &str = "affects many items at once";

static BY_WORD: LazyLock<HashMap<&'static str, &'static Row>> =
    LazyLock::new(|| VERBS.iter().flat_map(|row| row.words.iter().map(move |word| (*word, row))).collect());

static BY_LAST_WORD: LazyLock<HashMap<&'static str, Vec<Phrase>>> = LazyLock::new(|| {
    let mut phrases: HashMap<_, Vec<_>> = HashMap::new();
    for phrase in PHRASES {
        let last = phrase.0.split_once(' ').map_or(phrase.0, |(_, last)| last);
        phrases.entry(last).or_default().push(phrase);
    }
    phrases
});

/// Returns the phrases that end with this word.
pub(super) fn phrases_ending(word: &str) -> &'static [Phrase] {
    BY_LAST_WORD.get(word).map_or(&[], Vec::as_slice)
}

/// Looks up a verb as it appears in a name, with its row.
pub(super) fn verb(word: &str) -> Option<(&'static str, &'static Row)> {
    known(word).filter(|(_, row)| row.place != Sentence)
}

fn known(word: &str) -> Option<(&'static str, &'static Row)> {
    BY_WORD.get_key_value(word).map(|(word, row)| (*word, *row))
}

/// Looks up a verb as it appears in a sentence: `deletes`, `copies`, `removing`.
pub(super) fn inflected(word: &str) -> Option<(&'static str, &'static Row)> {
    let with = |stem: &str, end: &str| known(&format!("{stem}{end}"));
    known(word)
        .or_else(|| known(word.strip_suffix('s')?))
        .or_else(|| known(word.strip_suffix("es")?))
        .or_else(|| with(word.strip_suffix("ies")?, "y"))
        .or_else(|| {
            let stem = word.strip_suffix("ing")?;
            let single = stem.char_indices().next_back().and_then(|(at, _)| stem.get(..at));
            known(stem).or_else(|| with(stem, "e")).or_else(|| single.and_then(known))
        })
}

/// Returns the entry of a list that equals this word.
pub(super) fn among(list: &'static [&'static str], word: &str) -> Option<&'static str> {
    list.iter().copied().find(|known| *known == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_word_is_listed_once_and_in_split_form() {
        let mut seen = HashSet::new();
        for row in &VERBS {
            assert!(!row.why.is_empty());
            for word in row.words {
                assert!(seen.insert(word), "{word} is listed twice");
                assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
            }
        }
        assert!(seen.len() > 180, "{}", seen.len());
    }

    #[test]
    fn verbs_of_sentences_are_known() {
        for (word, want) in [
            ("deletes", Some("delete")),
            ("fetches", Some("fetch")),
            ("copies", Some("copy")),
            ("modifies", Some("modify")),
            ("removing", Some("remove")),
            ("running", Some("run")),
            ("reading", Some("read")),
            ("status", Some("status")),
            ("deleted", None),
            ("settings", None),
            ("s", None),
            ("ing", None),
            ("éing", None),
        ] {
            assert_eq!(inflected(word).map(|(word, _)| word), want, "{word}");
        }
    }
}
