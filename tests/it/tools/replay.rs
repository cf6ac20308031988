//! Replays of histories: unchanged under the same policy, and under another with correct changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::ops::ControlFlow;

use proptest::prelude::*;
use serde_json::{Value, json};
use toolgate::audit::{AuditRecord, AuditSink, JsonLines};
use toolgate::replay::{self, Change, ChangeKind, Indeterminate, Replay, Report};
use toolgate::{Decision, Gate, ManualClock, Policy, Timestamp, ToolCall};

use crate::model::generate::{self, Document, Event};
use crate::model::recording_sink::RecordingSink;
use crate::model::world::{EventResult, World};

fn policy(tools: &Value) -> Policy {
    json!({ "version": "1", "default": "deny", "tools": tools }).to_string().parse().unwrap()
}

fn log(records: &[AuditRecord]) -> Vec<u8> {
    let log = JsonLines::new(Vec::new());
    records.iter().for_each(|record| log.record(record).unwrap());
    log.into_inner()
}

/// Returns the events of a replay, and its report.
fn run(replay: Replay, history: &[u8]) -> (Vec<replay::Event>, Report) {
    let mut events = Vec::new();
    let on_event = |one: &replay::Event| {
        events.push(one.clone());
        ControlFlow::Continue(())
    };
    let report = replay.run(history, on_event).unwrap();
    (events, report)
}

fn changes(events: &[replay::Event]) -> BTreeMap<u64, Change> {
    let change = |events: &replay::Event| {
        if let replay::Event::Change(change) = events { Some((change.line, change.clone())) } else { None }
    };
    events.iter().filter_map(change).collect()
}

fn indeterminate(events: &[replay::Event]) -> BTreeMap<u64, Indeterminate> {
    let one = |events: &replay::Event| {
        if let replay::Event::Indeterminate(indeterminate) = events {
            Some((indeterminate.line, indeterminate.clone()))
        } else {
            None
        }
    };
    events.iter().filter_map(one).collect()
}

fn findings(report: &Report) -> Vec<String> {
    report.findings().iter().map(ToString::to_string).collect()
}

/// Runs a history and returns its records, with arguments and without.
fn live(documents: &[Document; 2], history: &[Event]) -> [Vec<AuditRecord>; 2] {
    [true, false].map(|with_arguments| {
        let (mut world, kept) = (World::of(documents), RecordingSink::default());
        let builder = Gate::builder().policy(world.policies[0].clone()).store(std::sync::Arc::clone(&world.store));
        let builder = builder.clock(world.clock.clone()).audit(kept.clone());
        world.gate = if with_arguments { builder.audit_arguments().build() } else { builder.build() };
        for event in history.iter().filter(|event| !matches!(event, Event::Swap)) {
            // No log records that the end of a call failed at the store.
            if let Event::End(_) = event {
                world.store.set_down(false);
            }
            if let EventResult::Decided(decision) = world.apply(event) {
                world.keep(*decision);
            }
        }
        world.store.set_down(false);
        world.calls.clear();
        kept.take()
    })
}

/// Under its own policy nothing changes. Under another, a replay without arguments reports the
/// changes of a replay with them, or reports a call as indeterminate.
fn is_consistent(documents: &[Document; 2], history: &[Event]) -> Result<(), TestCaseError> {
    let [whole, bare] = live(documents, history);
    let [own, other] = documents.each_ref().map(|document| Policy::from_json(&document.to_json()).unwrap());
    let (whole, bare) = (log(&whole), log(&bare));
    let (events, report) = run(Replay::new(own.clone()), &whole);
    prop_assert!(report.is_same(), "{:?}\n{}", events, report);
    let (events, report) = run(Replay::new(own), &bare);
    prop_assert!(report.changed() + report.details() + report.found() == 0, "{:?}\n{}", events, report);
    let [(all, _), (some, report)] = [&whole, &bare].map(|log| run(Replay::new(other.clone()), log));
    let (all, some, cannot) = (changes(&all), changes(&some), indeterminate(&some));
    for (line, change) in &some {
        prop_assert_eq!(all.get(line), Some(change), "{}", report);
    }
    for line in all.keys() {
        prop_assert!(
            some.contains_key(line) || cannot.contains_key(line),
            "line {}: {:?}\n{}",
            line,
            all[line],
            report
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_replay_reports_correct_changes(
        documents in (generate::document(), generate::document()).prop_map(|(one, two)| [one, two]),
        history in generate::history(),
    ) {
        is_consistent(&documents, &history)?;
    }

    #[test]
    fn a_replay_counts_as_the_gate_did(documents in generate::counting_documents(),
        history in generate::counted_history()) {
        is_consistent(&documents, &history)?;
    }

    /// A damaged log is read to its end.
    #[test]
    fn a_damaged_log_does_not_stop_a_replay(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample_log();
        for (at, byte) in damage {
            *at.get_mut(&mut bytes) = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let report = run(Replay::new(sample_policy()), &bytes).1;
        prop_assert!(report.calls() <= 9);
    }
}

fn sample_policy() -> Policy {
    policy(&json!({
        "search": { "rate_limit": { "max": 2, "window": "minute", "scope": "grant" } },
        "pay": {
            "require_approval_if": [{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 10 }] }],
            "limits": [{ "counter": "spend", "window": "day", "max": 100, "scope": "grant",
                "amount_from": "args.amount" }],
        },
    }))
}

/// Returns the records of three searches, the last of which is limited, of a settled and a released
/// payment, and of one that a person approves.
fn sample_records(with_arguments: bool) -> Vec<AuditRecord> {
    let (kept, clock) = (RecordingSink::default(), ManualClock::new(Timestamp::UNIX_EPOCH));
    let builder = Gate::builder().policy(sample_policy()).clock(clock.clone()).audit(kept.clone());
    let gate = if with_arguments { builder.audit_arguments().build() } else { builder.build() };
    let nothing = json!({});
    let search = ToolCall::new("search", &nothing).grant("g-42");
    (0..3).for_each(|_| drop(gate.check(&search)));
    let pay = |amount: u32| json!({ "amount": amount });
    let (ten, five, thirty) = (pay(10), pay(5), pay(30));
    let call = |arguments| ToolCall::new("pay", arguments).grant("g-42").user("ann");
    let permit = |arguments| match gate.check(&call(arguments)) {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    };
    permit(&ten).settle("70".parse().unwrap()).unwrap();
    permit(&five).release();
    let Decision::RequireApproval(request) = gate.check(&call(&thirty)) else { panic!("the call needs approval") };
    drop(gate.check(&call(&ten)));
    clock.advance(std::time::Duration::from_secs(86_400));
    drop(request);
    let Decision::RequireApproval(request) = gate.check(&call(&thirty)) else { panic!("the call needs approval") };
    gate.approve(request.approval().unwrap().id(), "bob").unwrap();
    drop(permit(&thirty));
    kept.take()
}

fn sample_log() -> Vec<u8> {
    log(&sample_records(true))
}

#[test]
fn a_log_is_unchanged_under_the_same_policy() {
    let (events, report) = run(Replay::new(sample_policy()), &sample_log());
    assert!(report.is_same() && events.is_empty(), "{events:?}");
    assert_eq!((report.history(), report.calls(), report.unchanged()), ("log", 9, 9));
    let text = report.to_string();
    assert!(text.starts_with("9 calls in the log, under policy ") && text.contains("        9  unchanged"), "{text}");
    // Records without a log are accepted too.
    let lines =
        sample_records(true).iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect::<String>();
    let (_, bare) = run(Replay::new(sample_policy()), lines.as_bytes());
    assert_eq!((bare.history(), bare.unchanged(), bare.is_same()), ("records", 9, true));
}

#[test]
fn changes_are_counted_by_rule_tool_and_caller() {
    let strict = policy(&json!({
        "search": { "rate_limit": { "max": 1, "window": "minute", "scope": "grant" } },
        "pay": { "deny_if": [{ "conditions": [{ "path": "args.amount", "op": "gt", "value": 25 }] }] },
    }));
    let (events, report) = run(Replay::new(strict), &sample_log());
    let changes: Vec<_> =
        changes(&events).into_values().map(|it| (it.kind.as_str(), it.tool.clone(), it.rule().to_owned())).collect();
    let pay = "/tools/pay/deny_if/0";
    let want = [
        ("details", "search", ""),
        ("tightened", "search", "/tools/search/rate_limit"),
        ("details", "search", "/tools/search/rate_limit"),
        ("details", "pay", ""),
        ("details", "pay", ""),
        ("changed", "pay", pay),
        ("details", "pay", ""),
        ("changed", "pay", pay),
        ("tightened", "pay", pay),
    ];
    assert_eq!(changes, want.map(|(kind, tool, rule)| (kind, tool.to_owned(), rule.to_owned())));
    let count = |counts: &[toolgate::replay::Count], kind: ChangeKind| -> Vec<(String, u64)> {
        counts.iter().filter(|it| it.kind == Some(kind)).map(|it| (it.name.clone(), it.count)).collect()
    };
    assert_eq!(count(report.rules(), ChangeKind::Changed), [(pay.to_owned(), 2)]);
    assert_eq!(count(report.tools(), ChangeKind::Tightened), [("pay".to_owned(), 1), ("search".to_owned(), 1)]);
    assert_eq!(count(report.callers(), ChangeKind::Tightened), [("grant g-42".to_owned(), 2)]);
    assert_eq!(count(report.callers(), ChangeKind::Details), [], "other limits are not a change of a decision");
    let written = serde_json::to_value(&report).unwrap();
    assert_eq!(
        (&written["details"], &written["changed"], &written["rules"][0]["kind"]),
        (&json!(5), &json!(4), &json!("changed"))
    );
    // A policy that decided no call of the log has nothing to replay.
    let (_, report) = run(Replay::new(sample_policy()).only(&policy(&json!({}))), &sample_log());
    assert_eq!((report.calls(), report.other()), (9, 9));
}

/// A replay accepts the approval that a call has used.
#[test]
fn used_approvals_count_in_a_replay() {
    let asks = |approvers: Value| {
        policy(
            &json!({ "search": {}, "pay": { "action": "require_approval", "approval": { "approvers": approvers } } }),
        )
    };
    let (events, _) = run(Replay::new(asks(json!(["carl"]))), &sample_log());
    let last = changes(&events).into_values().next_back().unwrap();
    assert_eq!((last.kind, &*last.now.decision), (ChangeKind::Details, "allow"), "{last:?}");
    let asked = changes(&events).into_values().filter(|it| it.kind == ChangeKind::Tightened).count();
    assert_eq!(asked, 3, "these calls had no approval");
}

#[test]
fn rules_that_need_arguments_are_named() {
    let bare = log(&sample_records(false));
    let (events, report) = run(Replay::new(sample_policy()), &bare);
    // The searches have no arguments at all.
    assert_eq!(
        (report.unchanged(), report.indeterminate(), report.changed() + report.details()),
        (3, 6, 0),
        "{report}"
    );
    let first = indeterminate(&events).into_values().next().unwrap();
    assert_eq!(
        (first.rule.as_deref(), first.needs.as_slice()),
        (Some("/tools/pay/require_approval_if/0"), &["args.amount".to_owned()][..])
    );
    assert_eq!(report.indeterminate_reasons()[0].name, "/tools/pay/require_approval_if/0 needs args.amount");
    // The names of arguments are recorded, and some rules need no arguments.
    let other = policy(&json!({
        "search": { "limits": [{ "counter": "c", "window": "day", "max": 1, "scope": ["grant", "args.q"] }] },
        "pay": {
            "deny_if": [{ "conditions": [{ "path": "args.to", "op": "eq", "value": "x" }] },
                        { "conditions": [{ "any": [{ "path": "call.user", "op": "eq", "value": "ann" },
                                                   { "path": "args.amount", "op": "gt", "value": 1 }] }] }],
        },
    }));
    let (_, report) = run(Replay::new(other), &bare);
    assert_eq!((report.indeterminate(), report.changed() + report.details()), (0, 9), "{report}");
}

#[test]
fn a_counter_with_missing_calls_is_indeterminate() {
    let other = policy(&json!({
        "search": { "limits": [{ "counter": "shared", "window": "day", "max": 5, "scope": "grant" }] },
        "pay": { "limits": [{ "counter": "shared", "window": "day", "max": 5, "scope": "grant",
            "amount_from": "args.amount" }] },
    }));
    let mut records = sample_records(false);
    let search = records[1].clone();
    records.push(search);
    let (events, report) = run(Replay::new(other), &log(&records));
    let last = indeterminate(&events).into_values().next_back().unwrap();
    assert_eq!(last.to_string(), "/tools/search/limits/0 depends on the counter `shared`, which has missed calls");
    assert_eq!((report.indeterminate(), report.details(), report.changed()), (7, 2, 1), "{report}");
}

#[test]
fn a_replay_continues_after_a_broken_line() {
    let whole = sample_log();
    let lines: Vec<Vec<u8>> = whole.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let broken = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        let report = run(Replay::new(sample_policy()), &lines.concat()).1;
        (findings(&report), report.calls())
    };
    let changed =
        |line: &mut Vec<u8>| *line = String::from_utf8(line.clone()).unwrap().replace("search", "seerch").into_bytes();
    for (name, (findings, calls), want, left) in [
        ("changed", broken(&|lines| changed(&mut lines[1])), vec!["line 2: the record has been changed"], 8),
        ("no record", broken(&|lines| lines[1] = b"nothing\n".to_vec()), vec!["line 2: not a line of an audit log"], 8),
        (
            "missing",
            broken(&|lines| drop(lines.remove(1))),
            vec!["line 2: record 3 found where record 2 is expected: records are missing, moved or duplicated"],
            8,
        ),
        (
            "doubled",
            broken(&|lines| lines.insert(2, lines[1].clone())),
            vec!["line 3: record 2 found where record 3 is expected: records are missing, moved or duplicated"],
            9,
        ),
        ("inserted", broken(&|lines| lines.insert(2, b"{}\n".to_vec())), vec!["line 3: not a line of an audit log"], 9),
        (
            "cut",
            broken(&|lines| lines.last_mut().unwrap().truncate(40)),
            vec!["line 18: the log ends in the middle of the line"],
            9,
        ),
        ("empty", broken(&Vec::clear), vec![], 0),
    ] {
        assert_eq!((findings, calls), (want.into_iter().map(str::to_owned).collect(), left), "{name}");
    }
    let torn = [&lines[0][..], b"x\n", &lines[1..].concat()].concat();
    let (events, report) = run(Replay::new(sample_policy()).stop_at_finding(), &torn);
    assert_eq!((events.len(), report.calls(), report.found()), (1, 0, 1));
    let stopped = Replay::new(policy(&json!({}))).run(&whole[..], |_| ControlFlow::Break(())).unwrap();
    assert_eq!(stopped.calls(), 1);
}

#[test]
fn records_without_a_log_are_read_line_by_line() {
    let record = serde_json::to_string(&sample_records(true)[1]).unwrap();
    let text = format!("{record}\n\nnothing\n{record}");
    let report = run(Replay::new(sample_policy()), text.as_bytes()).1;
    assert_eq!((report.calls(), report.unchanged()), (2, 1), "{report}");
    assert!(findings(&report)[0].starts_with("line 3: not a valid record: "), "{report}");
    let binary = [record.as_bytes(), b"\n\xff\xfe\n"].concat();
    let report = run(Replay::new(sample_policy()), &binary).1;
    assert_eq!(findings(&report), ["line 2: not UTF-8, or longer than 16 MiB"]);
}

fn sample(name: &str) -> String {
    let folder = if name.starts_with("code-generator") { "tests/data/traces" } else { "examples/data" };
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn traces_are_compared_with_stored_answers() {
    for (name, broken) in [("read-only", 0), ("code-generator", 0), ("search-budget", 0), ("payments", 2)] {
        let own: Policy = sample(&format!("{name}.json")).parse().unwrap();
        let answers = sample(&format!("{name}.expected.jsonl"));
        let trace = sample(&format!("{name}.jsonl"));
        let replay = Replay::new(own.clone()).answers(Cursor::new(answers));
        let (events, report) = run(replay, trace.as_bytes());
        assert_eq!(
            (report.changed() + report.details() + report.steps(), report.uncompared(), report.found()),
            (0, 0, broken),
            "{name}: {events:?}"
        );
        assert!(report.unchanged() > 10 && report.history() == "trace");
        let (_, beside) = run(Replay::new(own.clone()).against(own), trace.as_bytes());
        assert_eq!((beside.unchanged(), beside.changed() + beside.details() + beside.steps()), (report.unchanged(), 0));
    }
}

#[test]
fn traces_are_compared_with_another_policy() {
    let [own, other] =
        ["code-generator.json", "code-generator.candidate.json"].map(|file| sample(file).parse::<Policy>().unwrap());
    let trace = sample("code-generator.jsonl");
    let (events, report) = run(Replay::new(other.clone()).against(own.clone()), trace.as_bytes());
    let [stops, passes] = [ChangeKind::Tightened, ChangeKind::Loosened]
        .map(|kind| report.rules().iter().filter(|it| it.kind == Some(kind)).map(|it| it.count).sum::<u64>());
    assert!(stops > 0, "{report}");
    assert!(changes(&events).values().all(|it| !it.tool.is_empty() || it.kind == ChangeKind::Details), "{events:?}");
    // In the other direction, the stopped calls pass.
    let (_, back) = run(Replay::new(own.clone()).against(other), trace.as_bytes());
    let passes_back: u64 =
        back.rules().iter().filter(|it| it.kind == Some(ChangeKind::Loosened)).map(|it| it.count).sum();
    assert_eq!((stops, back.changed()), (passes_back, report.changed()), "{passes}");
    // Without answers or another policy there is nothing to compare. Missing answers are reported.
    let (_, alone) = run(Replay::new(own.clone()), trace.as_bytes());
    assert!(alone.unchanged() == 0 && alone.uncompared() > 10, "{alone}");
    let (_, short) = run(Replay::new(own).answers(Cursor::new("")), trace.as_bytes());
    assert_eq!(short.found(), trace.lines().count() as u64, "{short}");
    let lines: BTreeSet<_> = short.findings().iter().map(|it| it.line).collect();
    assert_eq!(lines.len() as u64, short.found());
}

/// Returns the records of a caller that uses up a budget, is given it again, and uses it.
fn records_with_a_reset(policy: &Policy, caller: &ToolCall<'_>, with_arguments: bool) -> Vec<AuditRecord> {
    let kept = RecordingSink::default();
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    let builder = Gate::builder().policy(policy.clone()).clock(clock).audit(kept.clone());
    let gate = if with_arguments { builder.audit_arguments().build() } else { builder.build() };
    let arguments = json!({ "to": "x" });
    let call = ToolCall::new("pay", &arguments).grant("g");
    for allowed in [true, false] {
        assert_eq!(gate.check(&call).is_allowed(), allowed);
    }
    assert!(gate.reset_counter("spend", *caller, "ann").unwrap());
    assert!(gate.check(&call).is_allowed());
    kept.take()
}

#[test]
fn a_reset_is_replayed() {
    let by = |scope: Value| {
        policy(&json!({ "pay": { "limits": [{ "counter": "spend", "window": "day", "max": 1, "scope": scope }] } }))
    };
    let arguments = json!({ "to": "x" });
    let (of_grant, of_argument) = (by(json!("grant")), by(json!(["grant", "args.to"])));
    let caller = ToolCall::new("", None::<&Value>).grant("g");
    let call = ToolCall::new("pay", &arguments).grant("g");
    for (policy, caller, with_arguments) in
        [(&of_grant, caller, false), (&of_grant, call, true), (&of_argument, call, true)]
    {
        let records = records_with_a_reset(policy, &caller, with_arguments);
        let (_, report) = run(Replay::new(policy.clone()), &log(&records));
        assert_eq!((report.unchanged(), report.is_same()), (3, true), "{report}");
        let (_, report) = run(Replay::new(policy.clone()).only(policy), &log(&records));
        assert!(report.is_same(), "{report}");
        // Without the reset, the last call is refused.
        let without: Vec<_> = records.into_iter().filter(|record| record.counter().is_none()).collect();
        let (_, report) = run(Replay::new(policy.clone()), &log(&without));
        assert_eq!(report.changed(), 1, "{report}");
    }
    // Under a policy that counts by what the record lacks, the counter is uncertain.
    let records = records_with_a_reset(&of_grant, &caller, true);
    let (_, report) = run(Replay::new(of_argument), &log(&records));
    assert_eq!((report.unchanged() + report.details(), report.indeterminate()), (2, 1), "{report}");
}

#[test]
fn a_rotated_log_is_replayed_after_a_head() {
    let records = sample_records(true);
    let whole = log(&records);
    let at = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let head = toolgate::audit::verify(&whole[..at]).unwrap().head();
    let (_, report) = run(Replay::new(sample_policy()).after(head), &whole[at..]);
    assert!(report.is_same(), "{report}");
    let (_, report) = run(Replay::new(sample_policy()), &whole[at..]);
    let found = findings(&report);
    assert!(found.len() == 1 && found[0].starts_with("line 1: this log continues after record 1"), "{found:?}");
    assert_eq!(report.changed(), 0, "{report}");
}
