//! The words that tell what a tool does. Data alone: each row is a class, where its words count, and why.
//!
//! A word that fits two classes stands under the stricter one. A word that says nothing for sure (`manage`, `process`, `handle`)
//! stands nowhere: a tool of which no other word is known is classed as other.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::RiskClass;
use super::RiskClass::{Destructive, Execute, Financial, Read, Write};

/// Words of one meaning.
pub(super) struct Row {
    pub(super) class: RiskClass,
    pub(super) place: Place,
    pub(super) why: &'static str,
    words: &'static [&'static str],
}

/// Where a word counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is a verb, wherever it stands in a name.
    Anywhere,
    /// It is a noun too: it counts where no other verb stands before it. `run_job` runs, `get_run` reads.
    Leading,
    /// It counts at the beginning of a sentence, and not in a name: `return_order` and `capture_payment` do more than look.
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
        "works out an answer from what it is given",
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
        "looks at how things are",
        &["diff", "help", "info", "status", "screenshot", "version", "watch", "whoami"],
    ),
    row(Read, Sentence, "gives something back", &["capture", "return"]),
    row(
        Write,
        Anywhere,
        "makes something new",
        &["add", "append", "clone", "copy", "create", "generate", "insert", "make", "upload", "upsert", "write"],
    ),
    row(
        Write,
        Anywhere,
        "changes what is there",
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
        "tells others or lets them in",
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
        "changes what is there",
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
        "has code or a command run",
        &["eval", "evaluate", "exec", "execute", "invoke", "launch", "spawn", "ssh", "sudo"],
    ),
    row(
        Execute,
        Leading,
        "sets work going whose end the name does not tell",
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
        "takes away what is there",
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
    row(Destructive, Anywhere, "writes over what is there", &["overwrite", "rollback", "truncate"]),
    row(
        Destructive,
        Anywhere,
        "ends something for good",
        &["decommission", "deprovision", "deregister", "evict", "kill", "revoke", "terminate", "uninstall"],
    ),
    row(
        Destructive,
        Leading,
        "takes away what is there",
        &["clean", "cleanup", "clear", "drain", "drop", "empty", "flush", "prune", "trash"],
    ),
    row(Destructive, Leading, "undoes what was done", &["reset", "revert", "undo"]),
    row(Destructive, Leading, "ends something for good", &["abort", "cancel", "deactivate", "shutdown", "teardown"]),
    row(Destructive, Leading, "shuts somebody out", &["ban", "expel", "kick"]),
    // `format_disk` and `format_text` have one word for two things.
    row(Destructive, Leading, "may write over a whole device", &["format", "reformat"]),
];

/// Names of what money is: a tool that changes or runs something and has one of them moves money.
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

/// Arguments that say the same. They are fewer: a filter of a list may name an invoice.
pub(super) static MONEY_ARGUMENTS: &[&str] = &["amount", "currency", "iban", "price"];
pub(super) const MONEY_ARGUMENT_WHY: &str = "tells an amount of money";

/// Arguments that are programs.
pub(super) static CODE_ARGUMENTS: &[&str] =
    &["bash", "cmd", "command", "commands", "javascript", "powershell", "python", "script", "shell", "sql"];
pub(super) const CODE_WHY: &str = "is code or a command";

/// Last words of arguments that only speak of a program: `command_id`.
pub(super) static ABOUT: &[&str] =
    &["at", "count", "format", "id", "ids", "language", "limit", "name", "status", "timeout", "type", "url", "version"];

/// Arguments that make a call destroy something.
pub(super) static DESTROYING_ARGUMENTS: &[&str] = &["delete", "destroy", "erase", "overwrite", "purge", "wipe"];
pub(super) const DESTROYING_WHY: &str = "can make it destroy something";

/// Arguments that choose among several things that a tool does.
pub(super) static CHOICES: &[&str] =
    &["action", "command", "method", "mode", "op", "operation", "subcommand", "task", "verb"];
pub(super) const CHOICE_WHY: &str = "can be chosen";

/// A word or two in a row, the class, and why.
pub(super) type Phrase = (&'static str, RiskClass, &'static str);

/// Words, or two words in a row, that count wherever they stand in a description.
static PHRASES: [Phrase; 20] = [
    ("arbitrary code", Execute, "has code or a command run"),
    ("arbitrary command", Execute, "has code or a command run"),
    ("arbitrary commands", Execute, "has code or a command run"),
    ("arbitrary javascript", Execute, "has code or a command run"),
    ("arbitrary sql", Execute, "has code or a command run"),
    ("be executed", Execute, "has code or a command run"),
    ("shell command", Execute, "has code or a command run"),
    ("shell commands", Execute, "has code or a command run"),
    ("sql query", Execute, "has code or a command run"),
    ("sql statement", Execute, "has code or a command run"),
    ("to execute", Execute, "has code or a command run"),
    ("to run", Execute, "has code or a command run"),
    ("to delete", Destructive, "takes away what is there"),
    ("to erase", Destructive, "takes away what is there"),
    ("be undone", Destructive, "cannot be undone"),
    ("data loss", Destructive, "takes away what is there"),
    ("destructive", Destructive, "is called so"),
    ("irreversible", Destructive, "cannot be undone"),
    ("irreversibly", Destructive, "cannot be undone"),
    ("permanently", Destructive, "cannot be undone"),
];

/// Words at the beginning of a sentence that lead up to its verb.
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

/// Names of what is kept from others: reading it weighs more.
pub(super) static SECRETS: &[&str] =
    &["apikey", "credential", "credentials", "env", "environ", "passwd", "password", "passwords", "secret", "secrets"];
pub(super) const SECRETS_WHY: &str = "shows what is kept secret";

/// Names of much at once: what changes something weighs more with them.
pub(super) static BULK: &[&str] = &["all", "bulk", "everything", "recursive", "wildcard"];
pub(super) const BULK_WHY: &str = "reaches much at once";

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

/// The phrases that end with a word.
pub(super) fn phrases_ending(word: &str) -> &'static [Phrase] {
    BY_LAST_WORD.get(word).map_or(&[], Vec::as_slice)
}

/// A verb as it stands in a name, with its row.
pub(super) fn verb(word: &str) -> Option<(&'static str, &'static Row)> {
    known(word).filter(|(_, row)| row.place != Sentence)
}

fn known(word: &str) -> Option<(&'static str, &'static Row)> {
    BY_WORD.get_key_value(word).map(|(word, row)| (*word, *row))
}

/// A verb as it stands in a sentence: `deletes`, `copies`, `removing`.
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

/// The entry of a list that is this word.
pub(super) fn among(list: &'static [&'static str], word: &str) -> Option<&'static str> {
    list.iter().copied().find(|known| *known == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_word_stands_once_and_as_names_are_split() {
        let mut seen = HashSet::new();
        for row in &VERBS {
            assert!(!row.why.is_empty());
            for word in row.words {
                assert!(seen.insert(word), "{word} stands twice");
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
