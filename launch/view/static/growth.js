// Memory along a stream: how many earlier sessions it held, where the policy asked, and where it was wrong.

import { changed } from "./address.js";
import { ask, stop } from "./api.js";
import { el, svg } from "./dom.js";

const WIDEST = 960; // pixels, as in style.css
const HEIGHT = 120;
const LEFT = 34;
const BOTTOM = 18;
const place = document.getElementById("growth");

let shown = null; // what the server answered, and the key of the open session

/** Draw again when the window's width changes, so that a pixel of the picture stays a pixel. */
export function start() {
  addEventListener("resize", () => shown && place.replaceChildren(draw(...shown)));
}

/** Draw it if the address names a stream. */
export async function load(params) {
  const stream = params.get("stream");
  if (!stream) {
    stop("growth");
    clear();
    return;
  }
  const answer = await ask("stream", params, "growth");
  if (answer === null) return;
  shown = [answer, params.get("key")];
  place.replaceChildren(draw(...shown));
}

export function clear() {
  shown = null;
  place.replaceChildren();
}

function draw({ stream, sessions }, key) {
  const width = Math.min(place.clientWidth, WIDEST);
  const most = Math.max(1, ...sessions.map((one) => one.memory));
  const x = (index) => LEFT + ((width - LEFT - 8) * index) / Math.max(1, sessions.length - 1);
  const y = (memory) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - 10) * memory) / most;
  const line = sessions.map((one, index) => `${x(index).toFixed(1)},${y(one.memory).toFixed(1)}`).join(" ");
  const marked = sessions.map((one, index) => mark(one, x(index), y(one.memory), key));
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `memory along ${stream}, up to ${most} sessions` },
    svg("text", { x: 2, y: y(most) + 4 }, most),
    svg("text", { x: 2, y: y(0) + 4 }, 0),
    svg("text", { x: LEFT, y: HEIGHT - 3 }, "first session"),
    svg("text", { x: width - 4, y: HEIGHT - 3, "text-anchor": "end" }, `${sessions.length}th`),
    svg("polyline", { points: line }),
    ...marked,
  );
  const caption = el(
    "figcaption",
    {},
    `Sessions that memory held along ${stream}. Filled: asked; red: wrong or failed; ringed: this one.`,
  );
  return el("figure", {}, caption, picture);
}

function mark(one, x, y, key) {
  const classes = [one.asks ? "asked" : "", one.result === "right" ? "" : "wrong", one.key === key ? "own" : ""];
  const said = `session ${one.position}: ${one.result}, memory ${one.memory}${one.asks ? ", asked" : ""}`;
  const circle = svg("circle", { cx: x, cy: y, r: one.key === key ? 5 : 3, class: classes.join(" ").trim() });
  return svg("a", { href: changed({ key: one.key }) }, svg("title", {}, said), circle);
}
