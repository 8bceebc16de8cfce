// The page: what the address says is shown, and keys change the address.

import { changed, go, ofList, read } from "./address.js";
import { ask } from "./api.js";
import { el, percent } from "./dom.js";
import * as filters from "./filters.js";
import * as growth from "./growth.js";
import * as list from "./list.js";
import * as session from "./session.js";

let runs = [];
let listed = null; // the parameters whose sessions the table shows
let open = null; // what is shown of the open session

async function start() {
  list.start(fail);
  growth.start();
  try {
    runs = await ask("runs", "", "runs");
  } catch (error) {
    fail(error);
    return;
  }
  filters.start(runs);
  addEventListener("hashchange", show);
  document.addEventListener("keydown", press);
  await show();
}

async function show() {
  const params = read();
  const named = filters.named(params, runs);
  if (changed(named) !== changed({})) {
    go(changed(named), { replace: true }); // so that a kept address means the same in another viewer
    return;
  }
  document.getElementById("error").hidden = true;
  document.body.classList.toggle("open", params.has("key"));
  document.title = `${params.get("key") ?? params.get("source") ?? ""} agile-ray view`.trim();
  filters.show(params, runs);
  await Promise.all([showList(params), showSession(params), showGrowth(params)]);
  const index = open?.neighbours.index ?? null;
  if (index !== null && listed === `${ofList(read())}`) list.select(index);
}

async function showList(params) {
  const wanted = `${ofList(params)}`;
  if (wanted === listed) {
    list.redraw();
    return;
  }
  try {
    const answer = await list.load(params);
    if (answer === null) return;
    listed = wanted;
    filters.showFound(answer.kinds, list.sortable(), params);
    summarize(answer);
  } catch (error) {
    listed = null;
    fail(error);
  }
}

async function showSession(params) {
  try {
    open = await session.load(params);
  } catch (error) {
    session.clear();
    fail(error);
  }
}

async function showGrowth(params) {
  try {
    await growth.load(params);
  } catch {
    growth.clear(); // a stream that is being typed
  }
}

function summarize({ total, summary, by_kind: kinds, lacks }) {
  const text = (found) =>
    found.right === null
      ? ""
      : `: ${percent(found.right)} right, ${percent(found.asked)} asked, reward ${found.reward.toFixed(3)}`;
  const failed = summary.failed ? `, ${summary.failed.toLocaleString("en")} failed` : "";
  const lines = Object.entries(kinds).map(([kind, found]) =>
    el("li", {}, `${kind}, ${found.sessions.toLocaleString("en")}${text(found)}`),
  );
  document
    .getElementById("summary")
    .replaceChildren(
      `${summary.sessions.toLocaleString("en")} of ${total.toLocaleString("en")} sessions${failed}${text(summary)}`,
      ...(lines.length > 1 ? [el("details", {}, el("summary", {}, "by kind"), el("ul", {}, ...lines))] : []),
      ...lacks.map((sentence) => el("span", { class: "note" }, ` Not stored: ${sentence}.`)),
    );
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "/") {
    event.preventDefault();
    filters.focusSearch();
  } else if (event.key === "j" || event.key === "k") {
    step(event.key === "j" ? 1 : -1);
  } else if (event.key === "Enter" && !event.target.closest("a, button, summary")) {
    const key = list.selectedKey();
    if (key) go(changed({ key }));
  } else if (event.key === "Escape" && read().has("key")) {
    go(changed({ key: null }));
  }
}

/** The next or previous session: opened if one is open, else selected. */
function step(by) {
  if (!read().has("key")) {
    list.move(by);
    return;
  }
  const key = by > 0 ? open?.neighbours.after : open?.neighbours.before;
  if (key) go(changed({ key }), { replace: true });
}

function fail(error) {
  const place = document.getElementById("error");
  place.textContent = error.message;
  place.hidden = false;
}

start();
