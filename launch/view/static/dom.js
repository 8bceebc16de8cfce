// Elements from data. Text becomes text nodes only, so nothing that a run stores is read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; null and undefined ones are left out, and anything else is text. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for a part of a picture. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** A number with a fixed number of decimals; "" where it is not known. */
export function number(value, decimals = 3) {
  return value === null || value === undefined ? "" : value.toFixed(decimals).replace(/^-(0\.?0*)$/, "$1");
}

/** A price or a reward, without needless zeros; "" where it is not known. */
export function amount(value) {
  return value === null || value === undefined ? "" : String(Math.round(value * 1000) / 1000);
}

/** A share in percent; "" where it is not known. */
export function percent(value) {
  return value === null || value === undefined ? "" : `${(100 * value).toFixed(1)} %`;
}

/** A number of things: "1 session", "1,200 sessions". */
export function count(value, noun) {
  return `${value.toLocaleString("en")} ${noun}${value === 1 ? "" : "s"}`;
}
