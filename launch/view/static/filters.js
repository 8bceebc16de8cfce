// The form at the top: it shows what the address says, and a change of it changes the address.

import { changed, go, read } from "./address.js";
import { el } from "./dom.js";

const TYPING_MS = 100; // after the last key; with the answer and the drawing, below 300
const form = document.getElementById("filters");

/** Fill the form once the runs are known. */
export function start(runs) {
  const names = runs.map((run) => run.name);
  choices("run", names);
  choices("other_run", names, "the same run");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => apply(event.target));
  let waiting = 0;
  form.addEventListener("input", (event) => {
    if (event.target.tagName !== "INPUT") return;
    clearTimeout(waiting);
    waiting = setTimeout(() => apply(event.target, { replace: true }), TYPING_MS);
  });
  document.getElementById("more").open = matchMedia("(min-width: 900px)").matches;
}

function apply(field, options) {
  const changes = { [field.name]: field.value.trim() };
  if (!field.name.startsWith("other_")) changes.key = null;
  if (field.name === "run") Object.assign(changes, { source: null, kind: null, stream: null, iteration: null });
  if (field.name === "source") Object.assign(changes, { kind: null, stream: null, iteration: null });
  if (field.name === "other_run") changes.other_source = null;
  if (field.name === "other_source" && !field.value) {
    changes.parted = null;
    if (read().get("sort")?.startsWith("other_")) Object.assign(changes, { sort: null, descending: null });
  }
  if (changed(changes) !== `#${read()}`) go(changed(changes), options);
}

/** The run and the source that the address names, or the first ones. */
export function named(params, runs) {
  const run = params.get("run") || runs[0].name;
  return { run, source: params.get("source") || sourcesOf(runs, run)[0] };
}

/** Show what the address says. */
export function show(params, runs) {
  const sources = sourcesOf(runs, params.get("run"));
  choices("source", sources);
  choices("other_source", sourcesOf(runs, params.get("other_run") || params.get("run")), "nothing");
  for (const field of form.elements) {
    const typed = field.tagName === "INPUT" && field === document.activeElement;
    if (field.name && !typed) field.value = params.get(field.name) ?? first(field);
  }
  const kept = {};
  for (const name of ["run", "source"]) kept[name] = params.get(name);
  document.getElementById("clear").setAttribute("href", changed(kept, new URLSearchParams()));
  form.elements.parted.disabled = !params.get("other_source");
}

/** Offer the kinds of question and the columns, as [name, title], that the listed source has. */
export function showFound(kinds, columns, params) {
  choices("kind", kinds, "any");
  choices("sort", columns, "time of play");
  for (const name of ["kind", "sort"]) form.elements[name].value = params.get(name) ?? "";
}

export function focusSearch() {
  form.elements.text.focus();
  form.elements.text.select();
}

function sourcesOf(runs, name) {
  return (runs.find((run) => run.name === name) ?? runs[0]).sources;
}

function first(field) {
  return ["run", "source"].includes(field.name) ? (field.options[0]?.value ?? "") : "";
}

/** Offer values, or pairs of a value and its title. */
function choices(name, values, none) {
  const options = values.map((one) => [one].flat()).map(([value, title]) => el("option", { value }, title ?? value));
  if (none !== undefined) options.unshift(el("option", { value: "" }, none));
  form.elements[name].replaceChildren(...options);
}
