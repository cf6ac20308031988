// Starts the page: signing in, the views, and the gateway's events.

import { ApiError, follow, get, setToken, takeToken } from "./api.js";
import { announce, el, field, fill } from "./dom.js";
import * as approvals from "./approvals.js";
import * as decisions from "./decisions.js";
import * as policies from "./policies.js";
import * as usage from "./usage.js";
import * as workbench from "./workbench.js";

const VIEWS = { approvals, usage, decisions, policies, workbench };
const nav = document.getElementById("nav");
const connection = document.getElementById("connection");
const section = (name) => document.getElementById(`view-${name}`);
let isRunning = false;

/** Shows the view that the address names, and the first one otherwise. */
function route({ focus = true } = {}) {
  if (!isRunning) return;
  const wanted = location.hash.slice(1);
  const name = Object.hasOwn(VIEWS, wanted) ? wanted : "approvals";
  for (const view of document.querySelectorAll(".view")) view.hidden = view.id !== `view-${name}`;
  for (const link of nav.children) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = section(name).querySelector("h1");
  document.title = `${title?.textContent ?? name} · toolgate operator`;
  VIEWS[name].show?.();
  if (focus) title?.focus();
}

function setConnection(isLive, text) {
  connection.className = `connection ${isLive ? "live" : "lost"}`;
  connection.textContent = text;
}

function run() {
  isRunning = true;
  nav.hidden = false;
  const open = (name) => {
    if (location.hash === `#${name}`) route();
    else location.hash = name;
  };
  for (const [name, view] of Object.entries(VIEWS))
    view.mount(section(name), { open, editPolicy: workbench.edit });
  route({ focus: false });
  const onEvent = (event, data) => {
    for (const view of Object.values(VIEWS)) view.event?.(event, data);
  };
  const onState = (isLive) => {
    setConnection(isLive, isLive ? "Live" : "Connection lost, trying again");
    if (isLive) for (const view of Object.values(VIEWS)) view.connected?.();
  };
  follow(onEvent, onState);
}

function signIn(message) {
  isRunning = false;
  nav.hidden = true;
  setConnection(false, "Signed out");
  for (const view of document.querySelectorAll(".view")) view.hidden = view.id !== "view-sign-in";
  const token = el("input", { type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const error = el("p", { class: "note deny", role: "alert" }, message);
  error.hidden = !message;
  const submit = async (event) => {
    event.preventDefault();
    setToken(token.value.trim());
    await start("The gateway does not accept this token.");
  };
  fill(
    section("sign-in"),
    el("h1", { id: "sign-in-title", tabindex: "-1" }, "Sign in"),
    el(
      "form",
      { class: "card narrow", onsubmit: submit },
      error,
      field("Operator token", token, "The gateway prints an address with its token when it starts."),
      el("button", { class: "primary" }, "Sign in"),
    ),
  );
  document.title = "Sign in · toolgate operator";
  token.focus();
}

async function start(refusal) {
  try {
    await get("/api/session");
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    setToken(null);
    signIn(error.status === 401 ? refusal : error.message);
    return;
  }
  section("sign-in").hidden = true;
  run();
  announce("Signed in");
}

addEventListener("hashchange", () => {
  if (new URLSearchParams(location.hash.slice(1)).has("token")) location.reload();
  else route();
});
document.addEventListener("signed-out", () => {
  // The views keep state of a gateway that may have been replaced: a new page starts without any.
  if (!isRunning) return;
  setToken(null);
  location.reload();
});

takeToken();
start("");
