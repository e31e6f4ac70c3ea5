// Owns what the page shows of jobs: a row of the list, and one job with everything that happened to it.

import { count, folded, h, link, mark, plural, span, when } from "./dom.js";

export const ENDED = new Set(["completed", "failed", "canceled"]);

const secondsBetween = (from, to) => (new Date(to) - new Date(from)) / 1000;
const tookOf = (job, now) => secondsBetween(job.created_at, job.completed_at ?? now);

/** Make the row of a job. */
export function jobRow(job, now, chosen) {
  return h("tr", { "data-key": job.id, "data-action": "open", "data-job": job.id, class: job.id === chosen ? "chosen" : "" },
    h("td", { class: "c-status" }, mark(job.status)),
    h("td", { class: "c-id" }, h("a", { class: "id", href: `#${new URLSearchParams({ job: job.id })}`, "data-action": "open", "data-job": job.id, title: job.id }, job.id)),
    h("td", { class: "c-kind" }, h("span", { class: `kind ${job.kind}` }, job.kind)),
    h("td", { class: "c-model", title: job.model }, job.model),
    h("td", { class: "c-tries number" }, count(job.attempts.length)),
    h("td", { class: "c-what" }, whatOf(job)),
    h("td", { class: "c-made number" }, when(job.created_at)),
    h("td", { class: "c-took number" }, span(tookOf(job, now))));
}

/** Say in half a line what a job is at, or how it went. */
function whatOf(job) {
  const { failure, result } = job;
  switch (job.status) {
    case "waiting":
      return [job.next_action_at && ["until ", when(job.next_action_at), " "], h("span", { class: "code" }, failure?.code ?? "")];
    case "failed":
      return [h("span", { class: "code" }, failure?.code ?? "failed"), failure?.message ? ` ${failure.message}` : ""];
    case "completed": {
      const made = result?.urls?.length ? plural(result.urls.length, "file") : "text";
      return job.degraded ? `${made}, instead of ${job.requested_model}` : made;
    }
    case "processing":
      return `${plural(job.attempts.at(-1)?.polls ?? 0, "look-up")} so far`;
    default:
      return job.status === "canceled" && job.attempts.some((attempt) => attempt.late_result) ? "a result came late" : "";
  }
}

function facts(...rows) {
  return h("dl", { class: "facts" }, rows.filter(Boolean).map(([name, ...value]) => h("div", { "data-key": name }, h("dt", null, name), h("dd", null, ...value))));
}

function part(key, title, ...content) {
  return h("section", { "data-key": key }, h("h3", null, title), ...content);
}

function failureBox(failure, level = "") {
  const said = [failure.http_status && `HTTP ${failure.http_status}`, failure.gateway_code && `gateway code ${failure.gateway_code}`].filter(Boolean).join(", ");
  return h("div", { class: `failure ${level}` },
    h("div", { class: "line" }, h("strong", null, h("span", { class: "code" }, failure.code)), h("span", { class: "words" }, `${failure.category}, ${failure.action.replaceAll("_", " ")}`)),
    failure.message && h("p", { class: "message" }, failure.message),
    h("p", { class: "words" }, "rule ", h("span", { class: "code" }, failure.rule), said && `; ${said}`));
}

/** Show a job with all there is to know: `detail` is the job with its timeline, `deliveries` null while they load. */
export function jobSheet(detail, deliveries, now) {
  const { failure, result } = detail;
  return [
    facts(
      ["Model", h("span", { class: "code" }, detail.model), detail.model !== detail.requested_model && h("span", { class: "words" }, ` instead of ${detail.requested_model}`)],
      ["Fallbacks", detail.fallbacks.length ? detail.fallbacks.join(", ") : "none"],
      ["Made", when(detail.created_at)],
      detail.completed_at ? ["Ended", when(detail.completed_at)] : ["Changed", when(detail.updated_at)],
      ["Time", span(tookOf(detail, now))],
      detail.next_action_at && !ENDED.has(detail.status) ? ["Next step", when(detail.next_action_at)] : ["Deadline", when(detail.deadline_at)],
      ["Task", detail.task_id ? h("span", { class: "code" }, detail.task_id) : "–"]),
    failure && part("failure", detail.status === "failed" ? "Why it failed" : "Why it waits", failureBox(failure, detail.status === "failed" ? "" : "later")),
    result && part("result", "Result", resultParts(result)),
    part("attempts", `Attempts (${detail.attempts.length})`,
      detail.attempts.length ? h("ol", { class: "attempts" }, detail.attempts.map((attempt) => attemptItem(attempt, now))) : h("p", { class: "empty" }, "Nothing has been submitted yet.")),
    part("deliveries", "Webhook deliveries", deliveryParts(deliveries)),
    part("timeline", "Timeline", h("ol", { class: "timeline" }, detail.timeline.map(timelineItem))),
    detail.metadata && part("metadata", "Metadata", h("pre", null, JSON.stringify(detail.metadata, null, 2))),
    result?.raw && h("details", { "data-key": "raw" }, h("summary", null, "The gateway's own answer"), h("pre", null, JSON.stringify(result.raw, null, 2))),
  ];
}

function resultParts(result) {
  return [
    result.urls?.length > 0 && h("ul", { class: "links" }, result.urls.map((url) => h("li", null, link(url)))),
    result.text && h("blockquote", null, result.text),
    result.expires_at && h("p", { class: "words" }, "The links are expected to work until ", when(result.expires_at)),
  ];
}

function attemptItem(attempt, now) {
  const took = span(secondsBetween(attempt.started_at, attempt.ended_at ?? now));
  const cost = attempt.cost && (typeof attempt.cost === "object" ? [attempt.cost.amount, attempt.cost.currency].filter((x) => x !== undefined).join(" ") : attempt.cost);
  const late = attempt.late_result;
  return h("li", { "data-key": String(attempt.number) },
    h("div", { class: "line" }, h("strong", { class: "code" }, `${attempt.number}. ${attempt.model}`), mark(attempt.outcome ?? "processing", (attempt.outcome ?? "under way").replaceAll("_", " "))),
    h("div", { class: "words" }, when(attempt.started_at), `, ${took}, ${plural(attempt.polls, "look-up")}`,
      cost !== null && cost !== undefined && cost !== "" && `, cost ${cost}`, attempt.task_id && [", task ", h("span", { class: "code" }, attempt.task_id)]),
    attempt.failure && failureBox(attempt.failure),
    late && h("div", { class: "late-result" }, `Its task ended late, ${late.status}, at `, when(late.at), h("ul", { class: "links" }, late.urls.map((url) => h("li", null, link(url))))));
}

function deliveryParts(deliveries) {
  if (deliveries === null) return h("p", { class: "empty" }, "Loading…");
  if (!deliveries.length) return h("p", { class: "empty" }, "None: the job has no webhook, or nothing to tell yet.");
  return h("ul", { class: "deliveries" }, deliveries.map((delivery) => h("li", { "data-key": delivery.id },
    h("div", { class: "line" }, h("strong", { class: "code" }, delivery.type), mark(delivery.state)),
    h("div", { class: "address words" }, delivery.url),
    delivery.attempts.length > 0 && h("ol", { class: "tries" }, delivery.attempts.map((attempt) => h("li", null,
      when(attempt.at), h("span", { class: "code" }, attempt.status ? String(attempt.status) : "no answer"), h("span", null, `${count(attempt.duration_ms)} ms`), h("div", { class: "said" }, folded(attempt.answer))))),
    h("div", { class: "line" },
      h("span", { class: "words" }, delivery.next_attempt_at ? ["next attempt ", when(delivery.next_attempt_at)] : plural(delivery.attempts.length, "attempt")),
      h("button", { type: "button", class: "small", "data-action": "replay", "data-delivery": delivery.id }, "Deliver again")))));
}

function timelineItem(entry, place) {
  const { at, event, message, ...rest } = entry;
  const told = Object.entries(rest).filter(([name, value]) => value !== null && value !== undefined && name !== "attempt" && !String(name).endsWith("_at"))
    .map(([name, value]) => h("span", { class: "pair" }, h("span", { class: "name" }, name.replaceAll("_", " ")), " ", h("span", { class: "code" }, typeof value === "object" ? JSON.stringify(value) : value)));
  return h("li", { "data-key": `${at} ${event} ${place}`, class: event.replace(/[^a-z]+/g, "-") },
    when(at), h("div", null, h("strong", null, event, entry.attempt ? ` #${entry.attempt}` : ""), told.length > 0 && h("div", { class: "pairs" }, told), message && h("div", { class: "message" }, message)));
}

/** Say what may be done to a job. */
export function actionsOf(job) {
  const button = (action, words, kind) => h("button", { type: "button", class: kind, "data-action": action, "data-job": job.id, "data-key": action }, words);
  if (!ENDED.has(job.status)) return [button("cancel", "Cancel job", "danger")];
  return job.status === "completed" ? [] : [button("retry", "Retry job", "primary")];
}
