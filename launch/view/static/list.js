// The table of sessions. Only the rows in view exist; pages of rows are asked for as they come into view.

import { changed, ofList } from "./address.js";
import { ask } from "./api.js";
import { amount, el, number } from "./dom.js";

const HEIGHT = 32; // pixels of a row, as in style.css
const PAGE = 200; // rows of one answer
const AROUND = 12; // rows drawn above and below what is in view

/** Name, title, text of a row; `when` says whether a column is there. */
const COLUMNS = [
  { name: "iteration", title: "iter.", when: (row) => row.iteration !== null },
  { name: "stream", title: "stream", left: true },
  { name: "position", title: "session" },
  { name: "kind", title: "kind", left: true },
  { name: "result", title: "result", left: true },
  { name: "asks", title: "asks", text: (row) => row.asks || "" },
  { name: "paid", title: "paid", text: (row) => (row.paid ? amount(row.paid) : "") },
  { name: "reward", title: "reward", text: (row) => amount(row.reward) },
  { name: "known", title: "known", left: true, text: (row) => (row.known ? "known" : "") },
  { name: "ask_probability", title: "P(ask)", text: (row) => number(row.ask_probability) },
  { name: "credit", title: "credit", text: (row) => number(row.credit), when: (row) => row.iteration !== null },
  { name: "memory", title: "memory" },
  { name: "readers", title: "readers", text: (row) => row.readers || "" },
  { name: "served", title: "served", text: (row) => row.served || "" },
  { name: "other_result", title: "other", left: true, when: (row) => "other_result" in row },
  { name: "other_asks", title: "its asks", text: (row) => row.other_asks || "", when: (row) => "other_asks" in row },
  { name: "answer", title: "answer", left: true },
];

const scroller = document.getElementById("scroller");
const body = document.getElementById("rows");
const table = document.getElementById("table");

let params = new URLSearchParams();
let pages = new Map();
let found = 0;
let columns = [];
let selected = 0;
let drawing = false;
let report = () => {};

/** Tell who is to hear of an error. */
export function start(onError) {
  report = onError;
  scroller.addEventListener("scroll", drawSoon);
  addEventListener("resize", drawSoon);
}

/** List the sessions that the address means; null if a later call came first. */
export async function load(address) {
  const wanted = ofList(address);
  const answer = await ask("sessions", page(wanted, 0), "list");
  if (answer === null) return null;
  if (`${wanted}` !== `${params}`) {
    scroller.scrollTop = 0;
    selected = 0;
  }
  params = wanted;
  pages = new Map([[0, answer.rows]]);
  found = answer.summary.sessions;
  selected = Math.min(selected, Math.max(found - 1, 0));
  const sample = answer.rows[0];
  if (sample) columns = COLUMNS.filter((column) => !column.when || column.when(sample));
  body.style.height = `${found * HEIGHT}px`;
  table.setAttribute("aria-rowcount", String(found + 1));
  table.classList.toggle("compared", columns.some(({ name }) => name === "other_result"));
  drawHead();
  draw();
  return answer;
}

/** Select a row, and bring it into view. */
export function select(index) {
  selected = Math.max(0, Math.min(index, found - 1));
  const top = selected * HEIGHT;
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  const below = top + HEIGHT - scroller.clientHeight;
  if (below > scroller.scrollTop) scroller.scrollTop = below;
  draw();
}

/** Draw again, with the selected row in view: links of rows and columns follow the address. */
export function redraw() {
  drawHead();
  select(selected);
}

export function move(step) {
  select(selected + step);
}

/** Key of the selected session; undefined if it is not loaded. */
export function selectedKey() {
  return rowAt(selected)?.key;
}

/** The columns by which the listed sessions can be ordered: name and title of each. */
export function sortable() {
  return columns.map(({ name, title }) => [name, title]);
}

function page(wanted, index) {
  const asked = new URLSearchParams(wanted);
  asked.set("offset", String(index * PAGE));
  asked.set("limit", String(PAGE));
  return asked;
}

function rowAt(index) {
  return pages.get(Math.floor(index / PAGE))?.[index % PAGE];
}

function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function draw() {
  const first = Math.max(0, Math.floor(scroller.scrollTop / HEIGHT) - AROUND);
  const end = Math.min(found, Math.ceil((scroller.scrollTop + scroller.clientHeight) / HEIGHT) + AROUND);
  const shown = [];
  for (let index = first; index < end; index += 1) shown.push(drawRow(index));
  body.style.paddingTop = `${first * HEIGHT}px`;
  body.replaceChildren(...shown);
  for (let index = Math.floor(first / PAGE); index * PAGE < end; index += 1) fetchPage(index);
}

async function fetchPage(index) {
  if (pages.has(index)) return;
  const into = pages;
  into.set(index, null); // asked for
  try {
    const answer = await ask("sessions", page(params, index), `page ${index}`);
    if (answer === null) into.delete(index);
    else into.set(index, answer.rows);
  } catch (error) {
    into.delete(index);
    report(error);
    return;
  }
  if (into === pages) drawSoon();
}

function drawRow(index) {
  const row = rowAt(index);
  const classes = ["row", index === selected ? "selected" : "", row ? kindOf(row.result) : ""];
  const cells = row ? columns.map((column) => drawCell(column, row)) : [];
  return el(
    "a",
    {
      class: classes.join(" "),
      role: "row",
      tabindex: -1,
      "aria-rowindex": index + 2,
      "aria-selected": index === selected,
      href: row && changed({ key: row.key }),
    },
    ...cells,
  );
}

function drawCell(column, row) {
  const text = column.text ? column.text(row) : (row[column.name] ?? "");
  const said = column.name === "stream" ? el("bdi", {}, text) : text; // cut at its start: streams differ at the end
  return el("span", { role: "gridcell", class: classesOf(column), title: column.left && text ? text : null }, said);
}

/** Of a cell: a narrow table leaves columns out, but never the one that orders it. */
function classesOf({ name, left }) {
  return ["cell", name, left ? "left" : "", params.get("sort") === name ? "sorted" : ""].join(" ");
}

function drawHead() {
  const sort = params.get("sort");
  const descending = params.get("descending") === "1";
  const cells = columns.map((column) => {
    const { name, title } = column;
    const own = sort === name;
    const next = own && descending ? { sort: null, descending: null } : { sort: name, descending: own ? 1 : null };
    const order = own ? (descending ? "descending" : "ascending") : "none";
    const sign = own ? (descending ? " ↓" : " ↑") : "";
    const link = el("a", { href: changed({ ...next, key: null }) }, title, sign);
    return el("span", { role: "columnheader", class: classesOf(column), "aria-sort": order }, link);
  });
  document.getElementById("head").replaceChildren(...cells);
}

function kindOf(result) {
  if (result === "right") return "right";
  return result === "failed" ? "broken" : "wrong";
}
