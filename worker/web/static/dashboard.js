// Owns the page's course: what is looked at, the refresh, the reader's clicks. Draws by `fleet` and `job`.
//
// What the reader looks at is in the address behind the #, so that it survives a reload and can be sent to others.

import { act, read } from "./api.js";
import { h, local, mark, show } from "./dom.js";
import { showFleet, showModels, tally } from "./fleet.js";
import { actionsOf, jobRow, jobSheet } from "./job.js";

const EVERY_MS = 2500;
const MODELS_EVERY = 4; // refreshes
const PAGE = 25;
const STATUSES = ["queued", "submitting", "processing", "waiting", "completed", "failed", "canceled"];
const FILTERS = ["status", "kind", "model"];

const byId = (id) => document.getElementById(id);
const view = { status: "", kind: "", model: "", job: "" };
const seen = { fleet: null, models: [], jobs: [], held: null, next: null, detail: null, deliveries: null };
const trail = []; // cursors of the pages before this one
let cursor = "";
let unused = false;
let turn = 0; // an answer to a question that is no longer asked is dropped
let skewMs = 0;
let refreshedAt = null;
let rounds = 0;
let timer = 0;
let asking = null; // what is done if the reader says yes
let opener = null;

const now = () => new Date(Date.now() + skewMs);

// --- what is looked at

function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const before = { ...view };
  for (const name of [...FILTERS, "job"]) view[name] = said.get(name) ?? "";
  if (FILTERS.some((name) => view[name] !== before[name])) startOver();
  if (view.job !== before.job) {
    Object.assign(seen, { detail: null, deliveries: null });
    turn += 1;
  }
  byId("kind").value = view.kind;
  if (document.activeElement !== byId("model")) byId("model").value = view.model;
  drawTabs();
  drawSheet();
}

function writeAddress(changes, { remember = false } = {}) {
  const said = new URLSearchParams(Object.entries({ ...view, ...changes }).filter(([, value]) => value));
  const address = said.size ? `#${said}` : location.pathname;
  if (remember) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
  readAddress();
  refreshSoon();
}

function startOver() {
  trail.length = 0;
  cursor = "";
  turn += 1;
  Object.assign(seen, { held: null });
}

// --- refresh

async function refresh() {
  clearTimeout(timer);
  const mine = turn;
  const withModels = rounds % MODELS_EVERY === 0;
  rounds += 1;
  const filters = Object.fromEntries(FILTERS.map((name) => [name, view[name]]));
  const path = view.job && `v1/jobs/${encodeURIComponent(view.job)}`;
  const [fleet, models, page, detail, deliveries] = await Promise.allSettled([
    read("v1/queues"),
    withModels ? read("v1/models") : null,
    read("v1/jobs", { ...filters, cursor, limit: PAGE }),
    path ? read(path) : null,
    path ? read(`${path}/deliveries`) : null,
  ]);
  takeFleet(fleet, models);
  if (mine === turn) {
    takePage(page);
    takeDetail(detail, deliveries);
  }
  tellReach([fleet, models, page].filter((part) => part.status === "rejected").map((part) => part.reason));
  if (mine === turn && !document.hidden) timer = setTimeout(refresh, EVERY_MS); // else another has been set off
}

function refreshSoon() {
  turn += 1;
  clearTimeout(timer);
  timer = setTimeout(refresh, 0);
}

function takeFleet(fleet, models) {
  if (fleet.status === "fulfilled") {
    seen.fleet = fleet.value;
    skewMs = new Date(fleet.value.at) - Date.now();
    refreshedAt = new Date();
    showFleet(seen.fleet, now());
    drawTabs();
  }
  if (models.status === "rejected") rounds = 0;
  else if (models.value) {
    seen.models = models.value.models;
    drawModels();
  }
}

function takePage(page) {
  if (page.status === "rejected") {
    if (page.reason.kind === "refused") drawEmpty(page.reason.message, "Nothing can be listed so");
    return;
  }
  const { jobs, next_cursor: next } = page.value;
  const known = new Set(seen.jobs.map((job) => job.id));
  const fresh = jobs.filter((job) => !known.has(job.id)).length;
  if (fresh && !cursor && seen.jobs.length && seen.asked === question() && reading()) {
    // Rows are not moved under the reader's eyes: what is shown is brought up to date, what is new waits for a click.
    const latest = new Map(jobs.map((job) => [job.id, job]));
    seen.jobs = seen.jobs.map((job) => latest.get(job.id) ?? job);
    seen.held = { jobs, next, fresh };
  } else {
    Object.assign(seen, { jobs, next, held: null, asked: question() });
  }
  drawJobs();
}

const question = () => JSON.stringify([FILTERS.map((name) => view[name]), cursor]);

/** Tell whether the reader is at the list: has scrolled into it, points at it, or is in it with the keyboard. */
function reading() {
  const list = byId("list");
  return list.getBoundingClientRect().top < 0 || list.matches(":hover") || (list.contains(document.activeElement) && document.activeElement !== document.body);
}

function takeDetail(detail, deliveries) {
  if (!view.job) return;
  if (detail.status === "fulfilled") {
    Object.assign(seen, { detail: detail.value, missing: null });
    if (deliveries.status === "fulfilled") seen.deliveries = deliveries.value.deliveries;
  } else if (detail.reason.kind === "refused") {
    Object.assign(seen, { detail: null, missing: detail.reason.message });
  }
  drawSheet();
}

/** Say whether what is shown is still true, and keep saying since when it is not. */
function tellReach(errors) {
  const away = errors.find((error) => error.kind === "away");
  const out = errors.find((error) => error.kind === "signed-out");
  const failed = away ?? out;
  document.body.classList.toggle("stale", Boolean(failed));
  const since = refreshedAt ? `Last refreshed at ${local(refreshedAt)}.` : "Nothing has been loaded yet.";
  show(byId("reach"),
    out && h("p", { class: "reach" }, h("strong", null, "You are signed out. "), since, " ", h("a", { href: "./" }, "Sign in again")),
    away && !out && h("p", { class: "reach" }, h("strong", null, "Cannot reach the worker: "), `${away.message}. ${since} Still trying…`));
  if (failed) show(byId("state"), h("span", { class: "state bad" }, out ? "Signed out" : "Out of reach"));
  show(byId("refreshed"), h("span", { class: failed ? "beat off" : "beat" }), refreshedAt ? `Refreshed ${local(refreshedAt)}` : "Loading…");
}

// --- drawing

function drawTabs() {
  const fleet = seen.fleet;
  const tab = (status, words) => h("button", {
    type: "button", "data-key": status || "all", "data-action": "status", "data-status": status, "aria-pressed": String(view.status === status),
  }, words, h("span", { class: "tally" }, fleet ? tally(fleet, status ? [status] : STATUSES, view.kind).toLocaleString() : "–"));
  show(byId("tabs"), tab("", "All"), STATUSES.map((status) => tab(status, status)));
}

function drawJobs() {
  const at = now();
  if (seen.jobs.length) show(byId("jobs"), ...seen.jobs.map((job) => jobRow(job, at, view.job)));
  else if (FILTERS.some((name) => view[name])) drawEmpty("Nothing matches these filters.", "No jobs");
  else drawEmpty("Enqueue one over HTTP, arq or the command line, and it shows up here.", "No jobs yet");
  byId("newer").disabled = trail.length === 0;
  byId("older").disabled = !seen.next;
  byId("place").textContent = seen.jobs.length ? `Page ${trail.length + 1}` : "";
  show(byId("fresh"), seen.held && h("button", { type: "button", class: "small primary", "data-action": "fresh" }, seen.held.fresh >= PAGE ? `${PAGE}+ new jobs` : `${seen.held.fresh} new`));
}

function drawEmpty(words, title) {
  show(byId("jobs"), h("tr", { "data-key": "", class: "empty" }, h("td", { colspan: 8 }, h("strong", null, title), " ", words)));
}

function drawModels() {
  showModels(seen.models, { unused });
  show(byId("known-models"), ...seen.models.map(({ model }) => h("option", { value: model })));
}

function drawSheet() {
  const sheet = byId("sheet");
  if (!view.job) {
    if (sheet.open) sheet.close();
    return;
  }
  const { detail, missing } = seen;
  const mine = detail?.id === view.job ? detail : null;
  byId("sheet-id").textContent = view.job;
  show(byId("sheet-marks"), mine && [mark(mine.status), h("span", { class: `kind ${mine.kind}` }, mine.kind), mine.degraded && h("span", { class: "mark waiting", title: "Another model than the requested one answered" }, "degraded")]);
  show(byId("sheet-acts"), mine && actionsOf(mine));
  if (mine) show(byId("sheet-body"), ...jobSheet(mine, seen.deliveries, now()));
  else show(byId("sheet-body"), h("p", { class: "empty" }, missing ? `No such job: ${missing}` : "Loading…"));
  if (!sheet.open) sheet.showModal();
  if (sheet.dataset.job !== view.job) byId("sheet-body").scrollTop = 0;
  sheet.dataset.job = view.job;
  for (const row of byId("jobs").children) row.classList.toggle("chosen", row.dataset.job === view.job);
}

// --- what the reader does

function say(words, level = "good") {
  const toast = h("p", { class: `toast ${level}` }, words);
  // A dialog that is open hides everything beside it, also from screen readers.
  const place = byId("sheet").open ? byId("sheet-says") : byId("says");
  place.replaceChildren(toast);
  setTimeout(() => toast.remove(), 6000);
}

async function carryOut(path, words) {
  try {
    await act(path);
    say(words);
  } catch (error) {
    say(error.kind === "away" ? `Not done, as far as is known: ${error.message}` : `Not done: ${error.message}`, "bad");
  }
  rounds = 0;
  refreshSoon();
}

function confirmed({ title, words, yes, danger = false }, then) {
  asking = then;
  byId("ask-title").textContent = title;
  byId("ask-words").textContent = words;
  byId("ask-yes").textContent = yes;
  byId("ask-yes").className = danger ? "danger" : "primary";
  byId("ask").returnValue = "";
  byId("ask").showModal();
}

function cancelJob(job) {
  const under = job.attempts.some((attempt) => attempt.task_id && !attempt.outcome);
  const words = under
    ? "Its task cannot be stopped at the gateway: it runs on and is paid for. A result that comes late is kept at its attempt."
    : "It has no task at the gateway. Nothing more will be submitted for it.";
  confirmed({ title: `Cancel ${job.id}?`, words, yes: "Cancel job", danger: true }, () => carryOut(`v1/jobs/${encodeURIComponent(job.id)}/cancel`, `${job.id} is canceled`));
}

function retryJob(job) {
  const words = "It gets a new round of attempts, which cost as the first ones did. Where a task of its still runs, it waits for that one instead.";
  confirmed({ title: `Retry ${job.id}?`, words, yes: "Retry job" }, () => carryOut(`v1/jobs/${encodeURIComponent(job.id)}/retry`, `${job.id} is open again`));
}

function replay(id) {
  const delivery = seen.deliveries?.find((known) => known.id === id);
  const words = `${delivery?.type ?? "It"} goes to ${delivery?.url ?? "its address"} once more, under the same webhook-id.`;
  confirmed({ title: "Deliver again?", words, yes: "Deliver again" }, () => carryOut(`v1/deliveries/${encodeURIComponent(id)}/replay`, "It is on its way"));
}

function pause(kind) {
  const words = "Jobs of this kind are accepted and wait. Tasks under way are tracked to their end.";
  confirmed({ title: `Pause ${kind}?`, words, yes: `Pause ${kind}` }, () => carryOut(`v1/queues/${kind}/pause`, `${kind} is paused`));
}

function turnPage(to) {
  if (to === "older") {
    trail.push(cursor);
    cursor = seen.next;
  } else {
    cursor = trail.pop() ?? "";
  }
  refreshSoon();
}

function takeHeld() {
  const { jobs, next } = seen.held;
  Object.assign(seen, { jobs, next, held: null });
  drawJobs();
}

const ACTIONS = {
  skip: () => { byId("jobs-title").focus(); byId("jobs-title").scrollIntoView(); },
  open: ({ job }) => writeAddress({ job }, { remember: true }),
  close: () => byId("sheet").close(),
  status: ({ status }) => writeAddress({ status }),
  "by-model": ({ model }) => writeAddress({ model }),
  clear: () => writeAddress({ status: "", kind: "", model: "" }),
  older: () => turnPage("older"),
  newer: () => turnPage("newer"),
  fresh: takeHeld,
  unused: () => { unused = !unused; drawModels(); },
  pause: ({ kind }) => pause(kind),
  resume: ({ kind }) => carryOut(`v1/queues/${kind}/resume`, `${kind} goes on`),
  cancel: () => cancelJob(seen.detail),
  retry: () => retryJob(seen.detail),
  replay: ({ delivery }) => replay(delivery),
  copy: () => navigator.clipboard?.writeText(view.job).then(() => say("The id is copied"), () => say("The browser does not allow copying", "bad")),
};

document.addEventListener("click", (event) => {
  const found = event.target.closest("[data-action]");
  if (!found || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (found.tagName === "TR" && String(getSelection()).length) return; // the reader marks text
  event.preventDefault();
  if (found.dataset.action === "open") opener = found.dataset.job;
  ACTIONS[found.dataset.action](found.dataset);
});

byId("sheet").addEventListener("close", () => {
  if (view.job) writeAddress({ job: "" });
  const row = [...byId("jobs").querySelectorAll("a.id")].find((anchor) => anchor.dataset.job === opener);
  row?.focus({ preventScroll: true });
});
byId("sheet").addEventListener("click", (event) => {
  if (event.target === event.currentTarget) event.currentTarget.close(); // beside it
});
byId("ask").addEventListener("close", () => {
  if (byId("ask").returnValue === "yes") asking?.();
  asking = null;
});
byId("kind").addEventListener("change", (event) => writeAddress({ kind: event.target.value }));
byId("model").addEventListener("change", (event) => writeAddress({ model: event.target.value.trim() }));
byId("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = byId("find-id").value.trim();
  if (id) writeAddress({ job: id }, { remember: true });
});
window.addEventListener("hashchange", () => { readAddress(); refreshSoon(); });
window.addEventListener("popstate", () => { readAddress(); refreshSoon(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refreshSoon(); });

readAddress();
tellReach([]);
refresh();
