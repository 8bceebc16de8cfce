// The tokens of a session, by who wrote them, with what is stored of each.

import { el, number } from "./dom.js";

/** What tokens can be coloured by: title, and strength from -1 to 1; null colours nothing. */
export const COLOURS = {
  writer: { title: "who wrote it" },
  surprise: { title: "surprise: −logprob", of: (token) => scaled(-token.logprob, 3) },
  ask: { title: "P(ask), of the turn", of: (token, part) => scaled(part.ask_probability, 1) },
  value: { title: "value", of: (token) => scaled(token.value, 1) },
  write: { title: "P(write)", of: (token) => scaled(token.write_probability, 1) },
  advantage: { title: "advantage", of: (token) => scaled(token.advantage, 2) },
  drift: {
    title: "logprob: learner − engine",
    of: (token) => scaled(token.learner_logprob - token.logprob, 0.5),
  },
  reference: {
    title: "logprob: learner − imitation",
    of: (token) => scaled(token.learner_logprob - token.reference_logprob, 3),
  },
  version: { title: "version", of: (token, part, range) => scaled(token.version - range[0], range[1] - range[0]) },
};

const OF_TURN = [
  ["logprob", "logprob", 3],
  ["P(ask)", "ask_probability", 3],
  ["value", "value", 3],
  ["P(write)", "write_probability", 3],
  ["advantage", "advantage", 2],
];
const OF_TOKEN = [
  ["logprob", "logprob"],
  ["learner", "learner_logprob"],
  ["imitation", "reference_logprob"],
  ["value", "value"],
  ["P(write)", "write_probability"],
  ["advantage", "advantage"],
  ["reward", "reward"],
  ["version", "version"],
];

/**
 * The parts of a session.
 * @param detail the session
 * @param colour name of COLOURS
 * @param parted index of the first part in which another session differs; null: none does
 */
export function parts(detail, colour, parted) {
  const versions = detail.parts.flatMap((part) => part.versions ?? []);
  const range = versions.length ? [Math.min(...versions), Math.max(...versions)] : [0, 0];
  const card = el("dl", { class: "card", "aria-live": "polite", hidden: "" });
  const shown = detail.parts.map((part, index) => {
    const before = detail.parts[index - 1];
    const cut = before && before.segment !== part.segment;
    return [
      cut ? el("p", { class: "note" }, "Here the context was rewritten.") : null,
      index === parted ? el("p", { class: "parted" }, "Here the two part.") : null,
      onePart(part, detail, COLOURS[colour]?.of, range, card),
    ];
  });
  return el("div", { class: "parts" }, ...shown.flat(), card);
}

function onePart(part, detail, strength, range, card) {
  const tokens = part.tokens.map((token) => oneToken(token, part, strength, range, card));
  const credit = detail.row.credit;
  const lands = part.decides && credit !== null ? ` ← credit ${signed(credit)}` : "";
  return el(
    "div",
    { class: `part ${part.who}` },
    el("span", { class: "who" }, part.who),
    el("div", { class: "tokens" }, ...tokens),
    part.who === "policy" ? el("p", { class: "numbers" }, ofTurn(part), el("b", {}, lands)) : null,
  );
}

function oneToken(token, part, strength, range, card) {
  const text = token.text.replaceAll("\n", "⏎\n");
  const found = el("span", { class: "token" }, text);
  if (part.who !== "policy") return found;
  const value = strength?.(token, part, range) ?? null;
  if (strength) {
    found.classList.add("scaled", value !== null && value < 0 ? "negative" : "positive");
    found.style.setProperty("--strength", `${Math.round(100 * Math.abs(value ?? 0))}%`);
  }
  const numbers = OF_TOKEN.filter(([, name]) => token[name] !== undefined).map(([title, name]) => [
    title,
    name === "version" ? String(token[name]) : number(token[name]),
  ]);
  found.title = numbers.map(([title, value]) => `${title} ${value}`).join("\n");
  found.addEventListener("click", () => {
    const rows = [["token", JSON.stringify(token.text)], ...numbers, ["P(ask), turn", number(part.ask_probability)]];
    card.hidden = false;
    card.replaceChildren(...rows.filter(([, value]) => value).flatMap(([a, b]) => [el("dt", {}, a), el("dd", {}, b)]));
  });
  return found;
}

function ofTurn(part) {
  const found = OF_TURN.filter(([, name]) => part[name] !== null).map(
    ([title, name, decimals]) => `${title} ${number(part[name], decimals)}`,
  );
  if (part.reward) found.push(`reward ${signed(part.reward)}`);
  if (part.versions) found.push(`version ${[...new Set(part.versions)].join("–")}`);
  return found.join("  ");
}

/** A number with its sign. */
export function signed(value) {
  return `${value > 0 ? "+" : ""}${Math.round(value * 1000) / 1000}`;
}

/** value / whole, cut to [-1, 1]; null if it is not known. */
function scaled(value, whole) {
  if (value === null || value === undefined || Number.isNaN(value)) return null;
  return whole ? Math.max(-1, Math.min(1, value / whole)) : 0;
}
