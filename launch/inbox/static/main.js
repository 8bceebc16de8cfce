// The page: the list of open asks follows the server, and one of them is open.

import { hasToken, request, setToken } from "./api.js";
import { el, percent } from "./dom.js";

const PAUSE_MS = 2000; // after a failed request
const RENEW_MS = 40000; // the server holds an ask for two minutes
const who = crypto.getRandomValues(new Uint32Array(4)).join("-"); // names this tab
const $ = (id) => document.getElementById(id);

let listed = []; // asks that wait
let at = 0; // the selected one
let key = null; // of the open ask
let past = []; // similar answers of the open ask
let linked = null; // the ask to open at first
let failing = false; // the list could not be read

async function follow() {
  if (!hasToken()) {
    login();
    return;
  }
  let seen = "";
  for (;;) {
    try {
      const found = await request(`asks?seen=${seen}`);
      seen = found.version;
      if (failing) fail(null);
      failing = false;
      $("login").hidden = true;
      for (const id of ["inbox", "keys"]) $(id).hidden = false;
      show(found);
      if (linked) open(linked);
      linked = null;
    } catch (error) {
      if (error.status === 401) {
        login();
        return;
      }
      failing = true;
      fail(`${error.message}; trying again`);
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
  }
}

function login() {
  if (hasToken()) fail("This is not the token.");
  for (const id of ["inbox", "keys"]) $(id).hidden = true;
  $("login").hidden = false;
  $("token").focus();
}

function show({ open, counts, now_s: now, webhook_failures: failures }) {
  const selected = listed[at]?.ask.key;
  listed = open;
  at = Math.max(listed.findIndex((one) => one.ask.key === selected), 0);
  const parts = [`${counts.open} waiting`, `${counts.answered} answered`, `${counts.late} late`];
  if (failures) parts.push(`${failures} failed notifications`);
  $("summary").textContent = parts.join(", ");
  document.title = counts.open ? `(${counts.open}) agile-ray inbox` : "agile-ray inbox";
  $("empty").hidden = listed.length > 0;
  $("asks").replaceChildren(...listed.map((one) => line(one, now)));
  mark();
  if (key !== null && !listed.some((one) => one.ask.key === key) && counts.open <= listed.length) {
    fail("This ask is closed: somebody answered it, or its deadline passed.");
    close();
  }
}

function line(one, now) {
  const other = one.holder && one.holder !== who;
  const button = el(
    "button",
    { type: "button", class: other ? "ask held" : "ask", "data-key": one.ask.key },
    el("span", { class: "words" }, one.ask.text),
    el("span", { class: "note" }, other ? "being answered" : `${one.ask.kind}, ${left(one.due_s - now)}`),
  );
  button.addEventListener("click", () => open(one.ask.key));
  return el("li", {}, button);
}

function left(seconds) {
  if (seconds < 90) return `${Math.max(Math.round(seconds), 0)} s left`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min left`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h left` : `${Math.round(seconds / 86400)} days left`;
}

function mark() {
  [...$("asks").querySelectorAll("button")].forEach((button, index) => {
    button.classList.toggle("selected", index === at);
    if (button.dataset.key === key) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  });
}

async function open(wanted) {
  if (wanted === key) return;
  if (key !== null) close();
  try {
    const { waiting, similar } = await request("claim", { key: wanted, who });
    key = wanted;
    past = similar;
    fail(null);
    present(waiting);
  } catch (error) {
    fail(error.message);
  }
}

function present({ ask }) {
  at = Math.max(listed.findIndex((one) => one.ask.key === key), 0);
  $("question").textContent = ask.text;
  $("wants").hidden = !ask.words;
  $("words").textContent = ask.words;
  const asked = ask.ask_probability;
  $("facts").textContent = asked === null ? ask.key : `${ask.key}, asked with probability ${percent(asked)}`;
  $("seen").hidden = !ask.context;
  $("context").textContent = ask.context;
  $("past").hidden = past.length === 0;
  $("similar").replaceChildren(...past.map(pastLine));
  $("answer").value = "";
  $("text").value = "";
  document.body.classList.add("open");
  $("ask").hidden = false;
  $("answer").focus();
  mark();
}

function pastLine(one, index) {
  const button = el("button", { type: "button" }, "take", el("kbd", {}, `Alt ${index + 1}`));
  button.addEventListener("click", () => take(index));
  const said = one.text === one.answer ? null : el("p", { class: "note" }, one.text);
  return el("li", {}, el("p", {}, one.question), el("p", {}, el("b", {}, one.answer), " ", button), said);
}

function take(index) {
  if (!past[index]) return;
  $("answer").value = past[index].answer;
  $("text").value = past[index].text === past[index].answer ? "" : past[index].text;
  $("answer").focus();
}

/** Show the list; the ask waits for somebody. */
function close() {
  const left = key;
  key = null;
  past = [];
  document.body.classList.remove("open");
  $("ask").hidden = true;
  mark();
  if (left !== null) request("release", { key: left, who }).catch(() => {}); // else the lease ends by itself
}

async function finish(state) {
  if (key === null) return;
  const done = key;
  const body = { key: done, who, by: $("name").value, state, answer: $("answer").value, text: $("text").value };
  try {
    await request("finish", body);
  } catch (error) {
    fail(error.message);
    return;
  }
  fail(null);
  const index = listed.findIndex((one) => one.ask.key === done);
  listed = listed.filter((one) => one.ask.key !== done);
  key = null;
  document.body.classList.remove("open");
  $("ask").hidden = true;
  const next = [...listed.slice(Math.max(index, 0)), ...listed].find((one) => !one.holder || one.holder === who);
  if (next) await open(next.ask.key);
}

function press(event) {
  if (event.ctrlKey || event.metaKey) return;
  if (event.altKey && key !== null) {
    const digit = /^Digit([1-5])$/.exec(event.code);
    if (digit) take(Number(digit[1]) - 1);
    else if (event.code === "KeyD") finish("unknown");
    else if (event.code === "KeyR") finish("refused");
    else return;
    event.preventDefault();
  } else if (event.key === "Escape" && key !== null) {
    close();
  } else if (!event.altKey && !event.target.matches("input, textarea")) {
    if (event.key === "j" || event.key === "k") {
      at = Math.min(Math.max(at + (event.key === "j" ? 1 : -1), 0), Math.max(listed.length - 1, 0));
      mark();
      $("asks").children[at]?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" && listed[at] && !event.target.closest("button, a")) {
      event.preventDefault();
      open(listed[at].ask.key);
    }
  }
}

function fail(message) {
  $("error").textContent = message ?? "";
  $("error").hidden = !message;
}

function start() {
  const given = new URLSearchParams(location.hash.slice(1));
  const named = given.get("token");
  linked = given.get("ask"); // a link to one ask
  if (named) {
    setToken(named);
    history.replaceState(null, "", location.pathname); // so that it is neither seen nor kept
  }
  $("name").value = localStorage.getItem("agile-ray inbox name") ?? "";
  $("name").addEventListener("change", () => localStorage.setItem("agile-ray inbox name", $("name").value));
  $("login").addEventListener("submit", (event) => {
    event.preventDefault();
    setToken($("token").value);
    $("token").value = "";
    fail(null);
    follow();
  });
  $("reply").addEventListener("submit", (event) => {
    event.preventDefault();
    finish("answered");
  });
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      finish("answered");
    }
  });
  $("back").addEventListener("click", close);
  $("unknown").addEventListener("click", () => finish("unknown"));
  $("refuse").addEventListener("click", () => finish("refused"));
  document.addEventListener("keydown", press);
  setInterval(() => {
    if (key !== null) request("claim", { key, who }).catch((error) => fail(error.message));
  }, RENEW_MS);
  follow();
}

start();
