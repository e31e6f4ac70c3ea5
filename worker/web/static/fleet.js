// Owns what the page shows of the fleet: notices, figures, kinds, queues, workers, models. Data in, trees out.

import { count, h, mark, plural, show, span, visible, when } from "./dom.js";

const OPEN = ["queued", "submitting", "processing", "waiting"];
const LATE_S = 30; // a queue that is behind by more is worth a notice
const FAILING_TOLD = 3; // destinations of webhooks, a notice each
const NAME_CHARS = 120;
const QUEUE_NAMES = { arq: "Intake", track: "Look-ups", deliver: "Webhooks" };
const HOLD_WORDS = {
  insufficient_balance: "the account's balance is used up",
  unauthorized: "the gateway refuses the API key",
};

const byId = (id) => document.getElementById(id);
const sum = (numbers) => numbers.reduce((total, number) => total + (number ?? 0), 0);

/** Count the jobs of statuses, over all kinds or in one. */
export function tally(fleet, statuses, kind = "") {
  const kinds = kind ? [fleet.jobs[kind] ?? {}] : Object.values(fleet.jobs);
  return sum(kinds.map((jobs) => sum(statuses.map((status) => jobs[status]))));
}

/** Show how the fleet stands. */
export function showFleet(fleet, now) {
  showNotices(fleet, now);
  showFigures(fleet);
  showKinds(fleet);
  showQueues(fleet);
  showWorkers(fleet, now);
}

const ageOf = (iso, now) => span((now - new Date(iso)) / 1000);

function notice(level, key, title, ...words) {
  return h("li", { class: `notice ${level}`, "data-key": key }, h("strong", null, title), h("span", null, ...words));
}

/** Say what keeps jobs from moving, the worst first. */
function noticesOf(fleet, now) {
  const found = [];
  if (!fleet.workers.some((worker) => worker.alive)) {
    found.push(notice("bad", "workers", "No worker is alive", "Nothing is submitted, looked up or delivered. Start one: onysoft-worker work"));
  }
  if (fleet.hold) {
    const { reason, since, next_probe_at: probe } = fleet.hold;
    found.push(notice("bad", "hold", "Submissions are held", `${reason}: ${HOLD_WORDS[reason] ?? "the gateway refuses this account"}, `,
      ...(since ? ["since ", when(since), ` (${ageOf(since, now)})`] : []), ...(probe ? [", next probe ", when(probe)] : [])));
  }
  const memory = fleet.redis_memory;
  if (!memory.begins_submissions) {
    found.push(notice("bad", "full", "Redis is full", "It is at its maxmemory: no submission begins until there is room, and new jobs are refused; what was submitted ends"));
  } else if (!memory.takes_jobs) {
    found.push(notice("bad", "full", "Redis is nearly full", "New jobs are refused; those there are go on. Raise its maxmemory, or lower RETENTION_S"));
  }
  if (fleet.rate_limited_until && new Date(fleet.rate_limited_until) > now) {
    found.push(notice("warn", "rate", "Rate limited", "The requests of this minute are used up; submissions go on at ", when(fleet.rate_limited_until)));
  }
  for (const { kind, paused_since: since } of fleet.queues) {
    if (kind && since) {
      found.push(notice("warn", `paused-${kind}`, `${kind} is paused`, "No submissions since ", when(since), ` (${ageOf(since, now)}); tasks under way are tracked on`));
    }
  }
  for (const { name, kind, oldest_s: oldest, paused_since: paused } of fleet.queues) {
    if (oldest > LATE_S && !paused && !(kind && fleet.hold)) {
      found.push(notice("warn", `late-${name}`, `${nameOf(name, kind)} are behind`, `The oldest has been due for ${span(oldest)}`));
    }
  }
  found.push(...webhookNotices(fleet, now));
  if (fleet.cooldowns.length) {
    const [first, ...more] = fleet.cooldowns;
    found.push(notice("info", "cooling", `${plural(fleet.cooldowns.length, "model")} at the limit`, `${first.model} until `, when(first.until), more.length ? ` and ${more.length} more` : ""));
  }
  return found;
}

function nameShort(destination) {
  const shown = visible(destination);
  return shown.length > NAME_CHARS ? `${shown.slice(0, NAME_CHARS)}…` : shown;
}

/** Say which destinations of webhooks fail, and that webhooks were given up. */
function webhookNotices(fleet, now) {
  const failing = fleet.failing_destinations;
  const found = failing.slice(0, FAILING_TOLD).map((row) => notice("warn", `failing-${row.destination}`, "A webhook destination fails",
    h("span", { class: "address" }, nameShort(row.destination)), `: ${plural(row.failures, "failure")} in a row since `, when(row.failing_since),
    ` (${ageOf(row.failing_since, now)}); ${plural(row.waiting, "webhook")} waiting, next try `, when(row.next_try_at)));
  if (failing.length > FAILING_TOLD) {
    const more = plural(failing.length - FAILING_TOLD, "more destination fails", "more destinations fail");
    found.push(notice("warn", "failing-more", `And ${more}`, "onysoft-worker queues names them"));
  }
  const { dead = 0 } = fleet.webhooks;
  if (dead) {
    const gone = dead === 1 ? "1 webhook was given up" : `${count(dead)} webhooks were given up`;
    found.push(notice("info", "dead", gone, "onysoft-worker webhooks list --state dead says why; each can be delivered again"));
  }
  return found;
}

function nameOf(name, kind) {
  if (kind) return `Submissions of ${kind}`;
  return QUEUE_NAMES[name] ?? name;
}

function showNotices(fleet, now) {
  const found = noticesOf(fleet, now);
  show(byId("notices"), ...(found.length ? found : [notice("good", "clear", "All clear", "Submissions go out; look-ups and webhooks are on time")]));
  const worst = ["bad", "warn"].find((level) => found.some((item) => item.classList.contains(level))) ?? "good";
  const words = { bad: "Needs attention", warn: "Limited", good: "Operational" }[worst];
  show(byId("state"), h("span", { class: `state ${worst}` }, words));
}

function figure(key, name, value, words, level = "") {
  return h("div", { class: `figure ${level}`, "data-key": key },
    h("dt", null, name), h("dd", { class: "value" }, value), h("dd", { class: "words" }, words));
}

function showFigures(fleet) {
  const alive = fleet.workers.filter((worker) => worker.alive);
  const submits = fleet.queues.filter((queue) => queue.kind);
  const oldest = Math.max(0, ...submits.map((queue) => queue.oldest_s));
  const [completed, failed, canceled] = ["completed", "failed", "canceled"].map((status) => tally(fleet, [status]));
  const ended = completed + failed;
  const { pending = 0, delivered = 0, dead = 0 } = fleet.webhooks;
  show(byId("figures"),
    figure("workers", "Workers alive", count(alive.length),
      `${count(sum(alive.map((worker) => worker.in_flight)))} of ${count(sum(alive.map((worker) => worker.concurrency)))} in flight`, alive.length ? "" : "bad"),
    figure("backlog", "Backlog age", span(oldest), `${plural(sum(submits.map((queue) => queue.due)), "submission")} due`, oldest > LATE_S ? "warn" : ""),
    figure("open", "Open jobs", count(tally(fleet, OPEN)),
      `${count(tally(fleet, ["processing"]))} running, ${count(tally(fleet, ["waiting"]))} waiting`),
    figure("completed", "Completed", count(completed), ended ? `${((100 * completed) / ended).toFixed(1)} % of the ended` : "none has ended yet"),
    figure("failed", "Failed", count(failed), `${count(canceled)} canceled`),
    figure("webhooks", "Webhooks pending", count(pending), `${count(delivered)} delivered, ${count(dead)} dead`, dead ? "warn" : ""));
}

const cell = (number, name, extra = "") => h("td", { class: `number ${number ? "" : "zero"} ${extra}`, "data-name": name }, count(number));

function showKinds(fleet) {
  const rows = fleet.queues.filter((queue) => queue.kind).map((queue) => {
    const jobs = fleet.jobs[queue.kind] ?? {};
    const paused = Boolean(queue.paused_since);
    return h("tr", { "data-key": queue.kind, class: paused ? "paused" : "" },
      h("th", { scope: "row" }, h("span", { class: `kind ${queue.kind}` }, queue.kind)),
      OPEN.map((status) => cell(jobs[status], status)),
      cell(jobs.completed, "completed", "ended"), cell(jobs.failed, "failed", "ended"),
      h("td", { class: `number ${queue.oldest_s > LATE_S ? "late" : queue.due ? "" : "zero"}`, "data-name": "oldest due" }, queue.due ? span(queue.oldest_s) : "–"),
      h("td", { class: "act" }, h("button", {
        type: "button", class: paused ? "small primary" : "small", "data-action": paused ? "resume" : "pause", "data-kind": queue.kind,
        "aria-label": `${paused ? "Resume" : "Pause"} ${queue.kind}`,
      }, paused ? "Resume" : "Pause")));
  });
  show(byId("kinds"), ...rows);
}

function showQueues(fleet) {
  const rows = ["track", "deliver", "arq"].map((name) => fleet.queues.find((queue) => queue.name === name)).filter(Boolean)
    .map((queue) => h("tr", { "data-key": queue.name },
      h("th", { scope: "row" }, QUEUE_NAMES[queue.name]),
      h("td", { class: `number ${queue.depth ? "" : "zero"}` }, count(queue.depth)),
      h("td", { class: `number ${queue.due ? "" : "zero"}` }, count(queue.due)),
      h("td", { class: `number ${queue.oldest_s > LATE_S ? "late" : queue.due ? "" : "zero"}` }, queue.due ? span(queue.oldest_s) : "–")));
  show(byId("queues"), ...rows);
}

function showWorkers(fleet, now) {
  const rows = fleet.workers.map((worker) => h("li", { "data-key": worker.id, class: worker.alive ? "" : "gone" },
    h("div", { class: "line" }, h("span", { class: "name", title: worker.id }, `${worker.host}:${worker.pid}`), mark(worker.alive ? "ok" : "failing", worker.alive ? "alive" : "gone")),
    h("div", { class: "line words" },
      worker.alive ? h("span", null, `up ${ageOf(worker.started_at, now)}`) : h("span", null, "last seen ", when(worker.seen_at)),
      worker.alive && h("span", null, `${count(worker.in_flight)} of ${count(worker.concurrency)} in flight`))));
  show(byId("workers"), ...(rows.length ? rows : [h("li", { class: "empty", "data-key": "none" }, "No worker has said that it is there.")]));
}

const ATTENTION = ["failing", "cooling", "ok", "unused"]; // what needs a look comes first

/** Show how the models fare; those nobody has used are folded away. */
export function showModels(models, { unused }) {
  const order = (model) => [ATTENTION.indexOf(model.status), model.kinds[0] ?? "~", model.chain ?? "~", model.position ?? 0];
  const sorted = [...models].sort((a, b) => compare(order(a), order(b)));
  const used = sorted.filter((model) => model.status !== "unused");
  const idle = sorted.length - used.length;
  const shown = unused ? sorted : used;
  show(byId("models"), ...(shown.length ? shown.map(modelRow) : [h("li", { class: "empty", "data-key": "none" }, "No model has been used yet.")]));
  show(byId("models-more"), idle > 0 && h("button", { type: "button", class: "quiet", "data-action": "unused", "aria-expanded": String(unused) },
    unused ? "Hide unused models" : `Show ${plural(idle, "unused model")}`));
}

function compare(a, b) {
  for (let i = 0; i < a.length; i += 1) {
    if (a[i] < b[i]) return -1;
    if (a[i] > b[i]) return 1;
  }
  return 0;
}

function modelRow(model) {
  const tried = sum(Object.values(model.attempts));
  const good = model.attempts.succeeded ?? 0;
  const judged = tried - (model.attempts.abandoned ?? 0); // given up by us, not failed by it
  const rate = judged > 0 ? good / judged : null;
  const codes = Object.entries(model.failures).sort((a, b) => b[1] - a[1]).map(([code, times]) => `${code} ${times}x`).join(", ");
  const place = model.chain ? `${model.chain}, ${model.position === 1 ? "first" : `alternate ${model.position - 1}`}` : "in no chain";
  const times = model.generation_s;
  return h("li", { "data-key": model.model, title: codes || null },
    h("div", { class: "line" }, h("button", { type: "button", class: "name plain", "data-action": "by-model", "data-model": model.model, title: `Show the jobs of ${model.model}` }, model.model), mark(model.status)),
    h("div", { class: "line words" }, h("span", null, model.status === "cooling" && model.cooldown_until ? ["until ", when(model.cooldown_until)] : place),
      model.failures_in_a_row > 0 && h("span", { class: "late" }, `${plural(model.failures_in_a_row, "failure")} in a row`)),
    model.status !== "unused" && h("div", { class: "line words rate" },
      h("progress", { max: 1, value: rate ?? 0, class: rate !== null && rate < 0.8 ? "low" : "", "aria-label": "success rate" }),
      h("span", { class: "percent" }, rate === null ? "–" : `${Math.round(100 * rate)} %`),
      h("span", { class: "times" }, times ? `p50 ${span(times.p50)}, p95 ${span(times.p95)}` : `${plural(tried, "attempt")}`)));
}
