// One session, or two side by side: what was asked, read, written, paid, and who read it later.

import { changed, go } from "./address.js";
import { ask, stop } from "./api.js";
import { amount, count, el, number } from "./dom.js";
import { COLOURS, parts, signed } from "./parts.js";

/** What a session did with what memory held. */
const USES = {
  read: ", and the session read it",
  other: ", but the session read other entries",
  nothing: ", but the session read nothing",
};

const panel = document.getElementById("session");

/** Show the session that the address names; null if a later call came first, or none is named. */
export async function load(params) {
  panel.hidden = !params.has("key");
  if (panel.hidden) {
    stop("session");
    panel.replaceChildren();
    return null;
  }
  panel.setAttribute("aria-busy", "true");
  const answer = await ask("session", params, "session");
  if (answer === null) return null;
  panel.removeAttribute("aria-busy");
  draw(answer, params);
  return answer;
}

export function clear() {
  panel.removeAttribute("aria-busy");
  panel.replaceChildren(bar({ index: null, before: null, after: null, found: 0 }, "writer"));
}

function draw(answer, params) {
  const colour = params.get("colour") ?? "writer";
  const parted = answer.parted?.part ?? null;
  const two = answer.other !== null;
  const own = one(answer.session, colour, parted, two ? name(params, "") : null);
  const beside = two ? one(answer.other, colour, parted, name(params, "other_")) : null;
  const missing = answer.other_lacks ? el("p", { class: "lacks" }, `Not there to compare: ${answer.other_lacks}`) : null;
  const same = two && parted === null && answer.session.parts.length && answer.other.parts.length;
  panel.replaceChildren(
    bar(answer.neighbours, colour),
    el("h1", {}, heading(answer.session)),
    ...(missing ? [missing] : []),
    ...(same ? [el("p", {}, "The two sessions are equal, word by word.")] : []),
    el("div", { class: two ? "sides two" : "sides" }, own, beside),
  );
  panel.scrollTop = 0;
}

function bar({ index, before, after, found }, colour) {
  const step = (key, text) =>
    key ? el("a", { class: "button", href: changed({ key }) }, text) : el("span", { class: "button off" }, text);
  const options = Object.entries(COLOURS).map(([value, { title }]) =>
    el("option", { value, selected: value === colour ? "" : null }, title),
  );
  const chosen = el("select", { name: "colour" }, ...options);
  chosen.addEventListener("change", () => go(changed({ colour: chosen.value === "writer" ? null : chosen.value })));
  return el(
    "nav",
    { class: "bar" },
    el("a", { class: "button", href: changed({ key: null }), title: "Escape" }, "close"),
    step(before, "previous"),
    step(after, "next"),
    el("span", { class: "note" }, index === null ? "not among the listed" : `${index + 1} of ${found.toLocaleString("en")}`),
    el("label", {}, "colour ", chosen),
  );
}

function name(params, prefix) {
  return `${params.get(`${prefix}run`) ?? params.get("run") ?? ""} ${params.get(`${prefix}source`) ?? ""}`.trim();
}

function heading({ row, facts }) {
  const iteration = row.iteration === null ? "" : `iteration ${row.iteration}, `;
  return `${iteration}${row.stream}, session ${row.position} of ${facts.stream_length}, question ${row.question_id} (${row.kind})`;
}

function one(detail, colour, parted, title) {
  const { row, facts } = detail;
  return el(
    "article",
    {},
    title ? el("h2", {}, title) : null,
    el(
      "p",
      { class: `outcome ${row.result === "right" ? "right" : "wrong"}` },
      [row.result, row.error, row.answer === null ? "no answer" : `answered “${row.answer}”`].filter(Boolean).join(": "),
    ),
    known(detail),
    ...detail.lacks.map((sentence) => el("p", { class: "lacks" }, `Not stored: ${sentence}`)),
    parts(detail, colour, parted),
    receipts(detail),
    reads(detail),
    readers(detail),
    el("p", {}, el("a", { href: changed({ stream: row.stream, sort: null, descending: null }) }, "memory along this stream")),
    el("details", {}, el("summary", {}, "all that is stored"), el("pre", {}, JSON.stringify({ ...row, ...facts }, null, 1))),
  );
}

/** What memory held, in one sentence: why an answer is wrong begins here. */
function known({ row, facts, memory_use: use }) {
  const held = row.known ? "Memory held an entry on the question's item" : "Memory held no entry on the question's item";
  const then = use === null ? "" : USES[use];
  const times = row.asks === 1 ? "once" : `${row.asks} times`;
  const paid = row.asks ? `; it asked ${times} and paid ${amount(row.paid)} in all` : "; it did not ask";
  const credit = row.credit === null ? "" : `, credit ${number(row.credit)}`;
  const remarks = facts.remarks.length ? ` Remarks: ${facts.remarks.join(", ")}.` : "";
  return el(
    "p",
    {},
    `${held} (${count(row.memory, "session")} remembered)${then}${paid}; reward ${amount(row.reward)}${credit}, price ${amount(row.price)}.${remarks}`,
  );
}

function receipts({ receipts: found }) {
  if (!found.length) return null;
  const lines = found.map((receipt) =>
    el(
      "li",
      {},
      `asked ${receipt.source}${receipt.words ? ` “${receipt.words}”` : ""}, paid ${amount(receipt.price / 1000)}, waited ${receipt.latency_s.toFixed(2)} s: ${told(receipt)}`,
    ),
  );
  return el("section", {}, el("h3", {}, "Asked"), el("ul", {}, ...lines));
}

/** What was said, or why nothing was. */
function told({ outcome, advice }) {
  return outcome === "answered" ? `“${advice}”` : `no advice (${outcome})`;
}

function reads({ reads: found }) {
  if (!found.length) return null;
  const lines = found.map(({ use, given, writer }) =>
    el("li", {}, `${use.kind}, similarity ${number(use.similarity)}, `, ...(writer ? wrote(writer) : [nobody(use, given)])),
  );
  return el("section", {}, el("h3", {}, "Read from memory"), el("ul", { class: "reads" }, ...lines));
}

function wrote(writer) {
  const paid = writer.asks ? `asked and paid ${amount(writer.paid)}, told “${writer.advice}”` : "did not ask";
  return ["of ", sessionLink(writer), `: ${writer.result}, ${paid}; read by ${count(writer.readers, "session")}`];
}

function nobody(use, given) {
  return given ? "in memory before the first session" : `of session ${use.writer}, which is not stored`;
}

function readers({ row, writes, readers: found, unshared }) {
  if (!writes.length && !found.length) return null;
  const kinds = [...new Set(writes.map((use) => use.kind))].join(", ");
  const head = `Wrote ${kinds || "nothing"}; read by ${count(found.length, "later session")}, of which ${row.served} answered right without asking`;
  const lines = found.map(({ row: reader, similarity, credit }) =>
    el(
      "li",
      {},
      sessionLink(reader),
      `: ${reader.result}, reward ${amount(reader.reward)}`,
      similarity === null ? "" : `, similarity ${number(similarity)}`,
      credit === null ? null : el("b", {}, `, gives credit ${signed(credit)}`),
    ),
  );
  if (row.credit && unshared !== null) {
    lines.push(el("li", {}, `credit that no single reader gives: ${signed(unshared)}`));
  }
  return el("section", {}, el("h3", {}, head), el("ul", { class: "readers" }, ...lines));
}

function sessionLink(row) {
  const iteration = row.iteration === null ? "" : ` of iteration ${row.iteration}`;
  return el("a", { href: changed({ key: row.key }) }, `session ${row.position}${iteration}`);
}
