// Owns how the page is made: elements, how a new tree is laid over the old one, and how times and numbers are written.
//
// Whatever comes from outside gets in as a text node or an attribute, never as markup. Handlers are not put on elements:
// a click is found by its `data-action`, so that a tree is plain data and what does not change is not touched. That is
// what keeps focus, selection, scrolling and open parts in place while the page refreshes.

const SAFE_ATTRIBUTE = /^(class|id|title|href|rel|target|datetime|colspan|scope|type|value|max|disabled|hidden|role|lang|tabindex|aria-[a-z]+|data-[a-z-]+)$/;

/** Make an element. Children that are null or false are left out; strings and numbers become text. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (!SAFE_ATTRIBUTE.test(name)) throw new Error(`an attribute that is not set here: ${name}`);
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
  return element;
}

/** Lay new children over those of an element; elements of one `data-key` stay the same element. */
export function show(parent, ...children) {
  const fresh = h("div", null, ...children);
  layChildren(parent, fresh);
}

function layChildren(parent, fresh) {
  const keyed = new Map();
  for (const child of parent.children) if (child.dataset.key) keyed.set(child.dataset.key, child);
  let place = parent.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const key = wanted.dataset?.key;
    let found = key ? keyed.get(key) : place;
    if (!found || found.nodeName !== wanted.nodeName || (!key && found.dataset?.key)) found = null;
    if (!found) {
      parent.insertBefore(wanted, place);
      continue;
    }
    if (found === place) place = place.nextSibling;
    else parent.insertBefore(found, place);
    layOver(found, wanted);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function layOver(old, wanted) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== wanted.nodeValue) old.nodeValue = wanted.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!wanted.hasAttribute(name) && name !== "open") old.removeAttribute(name); // what the reader opened stays open
  }
  for (const { name, value } of wanted.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  layChildren(old, wanted);
}

const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+/g;

/** Write the words of others so that nothing in them is unseen, or turns the words around it. */
export function visible(text) {
  return String(text ?? "").replace(UNSEEN, "\ufffd");
}

/** Write the words of others, folded after their beginning where they are long. */
export function folded(text, chars = 200) {
  const letters = [...visible(text)];
  if (letters.length <= chars) return letters.join("");
  return h("details", null, h("summary", null, `${letters.slice(0, chars).join("")}…`), letters.slice(chars).join(""));
}

/** Make a link of an address of the web; anything else is shown as the text it is. */
export function link(address) {
  let url = null;
  try {
    url = new URL(address);
  } catch {
    // shown as text
  }
  if (url === null || !["http:", "https:"].includes(url.protocol)) return h("span", { class: "address" }, address);
  return h("a", { class: "address", href: url.href, rel: "noopener noreferrer", target: "_blank" }, address);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const calendar = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

/** Write a time as the reader's clock shows it; the title has it in UTC. */
export function when(iso) {
  if (!iso) return h("span", { class: "none" }, "–");
  const date = new Date(iso);
  const utc = `${iso.slice(0, 10)} ${iso.slice(11, 23)} UTC`;
  return h("time", { datetime: iso, title: utc }, local(date));
}

/** Write a date: the time of day alone where it is today's. */
export function local(date) {
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock.format(date) : `${calendar.format(date)}, ${clock.format(date)}`;
}

/** Write how long something took. */
export function span(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (seconds === 0) return "0 s";
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** Write how many. */
export function count(number) {
  return (number ?? 0).toLocaleString();
}

/** Write how many of a noun. */
export function plural(number, noun, nouns = `${noun}s`) {
  return `${count(number)} ${number === 1 ? noun : nouns}`;
}

/** Make the mark of a status. */
export function mark(status, words = status) {
  return h("span", { class: `mark ${String(status).replace(/[^a-z]/g, "")}` }, words);
}
