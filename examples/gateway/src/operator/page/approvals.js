// The requests that wait for a person. Deciding happens in a dialog that holds still while the list
// behind it changes, and that shows everything that the approval is bound to.

import * as api from "./api.js";
import { announce, duration, el, field, fill, newId, time } from "./dom.js";
import { jsonBox, name, prose } from "./visible.js";

const CALLER = ["grant", "session", "agent", "user"];
// Requests of other gateways that share the store make no event here.
const EVERY = 10_000;

let list;
let status;
let more;
let pending = new Map();
let isFirst = true;
let person = "";
let timer;

export function mount(root) {
  list = el("div", { class: "cards" });
  status = el("p", { class: "note", role: "status" });
  status.hidden = true;
  more = el("p", { class: "note warn" });
  more.hidden = true;
  fill(
    root,
    el("h1", { id: "approvals-title", tabindex: "-1" }, "Approvals"),
    el(
      "p",
      { class: "lead" },
      "Calls that a policy lets pass only if a person agrees. The oldest comes first.",
    ),
    status,
    more,
    list,
  );
  setInterval(refresh, EVERY);
  setInterval(tick, 1000);
  refresh();
}

export function connected() {
  refresh();
}

export function event(kind, record) {
  if (kind !== "record") return;
  const isAbout = record.approval !== undefined || ["approve", "refuse"].includes(record.event);
  if (!isAbout) return;
  clearTimeout(timer);
  timer = setTimeout(refresh, 150);
}

export function show() {
  refresh();
}

async function refresh() {
  let answer;
  let total;
  try {
    [answer, total] = await api.pending();
  } catch (error) {
    say("deny", `Pending approvals cannot be read. ${error.message}`);
    return;
  }
  if (status.dataset.kind === "deny") status.hidden = true;
  const next = new Map(
    answer.map((request) => [request.id, { ...request, ends: Date.now() + request.expires_in_ms }]),
  );
  const added = [...next.keys()].filter((id) => !pending.has(id)).length;
  if (added > 0 && !isFirst) announce(`${added} new ${added === 1 ? "request" : "requests"} for approval`);
  isFirst = false;
  draw(next, total);
}

/** Keeps the elements of requests that are still there, so that focus and selections stay. */
function draw(next, total) {
  const kept = new Map([...list.querySelectorAll("article")].map((card) => [card.dataset.id, card]));
  const cards = [...next.values()].map((request) => {
    const former = kept.get(request.id);
    const isSame =
      former && JSON.stringify(pending.get(request.id)?.approved_by) === JSON.stringify(request.approved_by);
    return isSame ? former : card(request);
  });
  pending = next;
  if (cards.length === 0) fill(list, el("p", { class: "empty" }, "No call waits for an approval."));
  else if (cards.length !== list.children.length || cards.some((one, at) => list.children[at] !== one)) {
    const focused = document.activeElement;
    fill(list, cards);
    if (focused?.isConnected) focused.focus();
  }
  const count = document.getElementById("pending-count");
  count.hidden = total === 0;
  count.textContent = String(total);
  more.hidden = total <= next.size;
  more.textContent = `${total - next.size} more requests wait. The oldest ${next.size} are shown.`;
  tick();
}

function tick() {
  for (const left of list.querySelectorAll("[data-expires]")) {
    const millis = Number(left.dataset.expires) - Date.now();
    left.textContent = millis > 0 ? `expires in ${duration(millis)}` : "expired";
  }
}

function say(kind, ...children) {
  status.className = `note ${kind}`;
  status.dataset.kind = kind;
  status.hidden = false;
  fill(status, ...children);
}

function card(request) {
  const id = newId("request");
  const decide = (verdict) => () => ask(request, verdict);
  const approvers =
    request.approved_by.length > 0 &&
    el(
      "p",
      { class: "note" },
      `${request.approved_by.length} of ${request.min_approvers} have approved: `,
      request.approved_by.map((by, at) => [at > 0 && ", ", name(by)]),
    );
  return el(
    "article",
    { class: "card", "data-id": request.id, "aria-labelledby": id },
    el(
      "div",
      { class: "card-head" },
      el("h2", { id }, name(request.tool)),
      el("span", { class: "muted", "data-expires": request.ends }),
    ),
    request.reason && el("p", { class: "reason" }, prose(request.reason)),
    callerLine(request),
    argumentsOf(request),
    approvers,
    el(
      "div",
      { class: "actions" },
      request.is_shown &&
        el("button", { class: "primary", onclick: decide("approve"), "aria-describedby": id }, "Approve…"),
      el("button", { class: "danger", onclick: decide("refuse"), "aria-describedby": id }, "Refuse…"),
    ),
  );
}

function callerLine(request) {
  const parts = [...CALLER, "server"].filter((part) => request.caller[part] !== undefined);
  if (parts.length === 0) return el("p", { class: "caller" }, "The caller has no identity.");
  return el(
    "p",
    { class: "caller" },
    parts.map((part) => el("span", {}, `${part} `, name(request.caller[part]))),
  );
}

function argumentsOf(request) {
  if (request.details !== null) return jsonBox(request.details, "Arguments");
  const hidden = ({ hidden_bytes: bytes }) =>
    bytes > 0 && el("span", { class: "muted" }, ` ${bytes} more bytes are not shown`);
  const left = request.arguments_left_out;
  return el(
    "div",
    {},
    el(
      "p",
      { class: "note warn" },
      `The arguments (${request.details_bytes} bytes) are too long to be kept, or the store keeps none. `,
      "What cannot be read here cannot be approved here.",
    ),
    el(
      "dl",
      { class: "facts" },
      request.arguments.map((argument) => [
        el("dt", {}, name(argument.name)),
        el("dd", {}, prose(argument.value), hidden(argument)),
      ]),
    ),
    left > 0 && el("p", { class: "muted" }, `${left} more arguments are not shown`),
  );
}

/** What the digest covers, in full. */
function covered(request) {
  const row = (term, value) => [el("dt", {}, term), el("dd", {}, value)];
  const none = () => el("span", { class: "muted" }, "none");
  const identities = ["server", ...CALLER].map((part) =>
    row(part, request.caller[part] === undefined ? none() : name(request.caller[part])),
  );
  const bound =
    request.binds === "some"
      ? "The approval covers the arguments below and no others: the agent may change every other argument."
      : "The approval covers all arguments, exactly as they are below.";
  return [
    el(
      "dl",
      { class: "facts" },
      row("tool", name(request.tool)),
      identities,
      row("policy", "the policy in force; another one ends the request"),
      row("asked", time(request.made_at)),
      row("expires", time(request.expires_at)),
      row(
        "approvers",
        request.min_approvers === 1 ? "one person" : `${request.min_approvers} different people`,
      ),
      row("serves", request.uses === 1 ? "one call" : `up to ${request.uses} calls`),
      row("digest", el("code", { class: "digest" }, request.digest)),
    ),
    request.details !== null && el("p", {}, bound),
    argumentsOf(request),
  ];
}

function ask(request, verdict) {
  const isApproval = verdict === "approve";
  const title = newId("dialog");
  const who = el("input", {
    value: person,
    required: true,
    maxlength: 200,
    autocomplete: "name",
    spellcheck: "false",
  });
  const error = el("p", { class: "note deny", role: "alert" });
  error.hidden = true;
  const confirm = el(
    "button",
    { class: isApproval ? "primary" : "danger" },
    isApproval ? "Approve this call" : "Refuse this call",
  );
  const dialog = el("dialog", { "aria-labelledby": title });
  const submit = async (event) => {
    event.preventDefault();
    confirm.disabled = true;
    try {
      const answer = await api.post(`/api/approvals/${request.id}/${verdict}`, { by: who.value });
      person = who.value;
      dialog.close();
      done(request, verdict, answer);
    } catch (failure) {
      error.hidden = false;
      error.textContent = failure.message;
      who.focus();
    } finally {
      confirm.disabled = false;
    }
  };
  fill(
    dialog,
    el(
      "form",
      { onsubmit: submit },
      el("h2", { id: title, tabindex: "-1" }, isApproval ? "Approve this call?" : "Refuse this call?"),
      request.reason && el("p", { class: "reason" }, prose(request.reason)),
      covered(request),
      error,
      field("Your name", who, "The audit log records it. A policy can list who may approve."),
      el(
        "div",
        { class: "actions" },
        confirm,
        el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      ),
    ),
  );
  const opener = document.activeElement;
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (opener?.isConnected) opener.focus();
    else document.getElementById("approvals-title").focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  // The dialog begins with what is asked. The field for the name is at its end.
  dialog.querySelector("h2").focus();
}

/** A button that takes the refusal back, so that the agent can ask again. */
function lift(request) {
  const press = async () => {
    try {
      await api.post(`/api/approvals/${request.id}/lift`, { by: person });
      say("ok", "Lifted the refusal of ", name(request.tool), ". The agent can ask again.");
    } catch (failure) {
      say("deny", `The refusal stays. ${failure.message}`);
    }
  };
  return el("button", { onclick: press }, "Let the agent ask again");
}

function done(request, verdict, answer) {
  const by = [" by ", name(person), "."];
  if (verdict === "refuse") say("ok", "Refused ", name(request.tool), by, " ", lift(request));
  else if (answer.state === "approved")
    say("ok", "Approved ", name(request.tool), by, " The agent can repeat its call.");
  else {
    const missing = answer.min_approvers - answer.approvals;
    say(
      "warn",
      "Recorded for ",
      name(request.tool),
      by,
      ` ${missing} more ${missing === 1 ? "person" : "people"} must approve.`,
    );
  }
  refresh();
}
