"use strict";
const EVERY_MS = 2000, KEPT = 60, WINDOW = 30, ROWS = 6, LONGEST = 70;
const cards = new Map([...document.querySelectorAll("article[data-pipeline]")].map(card =>
  [card.dataset.pipeline, {card, past: [], seen: -1, lines: []}]));
const page = document.querySelector("header");
let answeredAt = null;

function say(level, text, why) {
  page.dataset.level = level;
  page.querySelector(".state").textContent = text;
  page.querySelector(".why").textContent = why;
}

// Figures, out of Prometheus's text

function parsed(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const match = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, key, value] of (match[2] || "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[key] = value;
    found.push({name: match[1], labels, value: Number(match[3])});
  }
  return found;
}

function figuresOf(samples, pipeline) {
  const own = samples.filter(each => each.labels.pipeline === pipeline);
  const named = name => own.filter(each => each.name === name);
  const sum = (name, fits = () => true) => named(name).filter(fits).reduce((total, each) => total + each.value, 0);
  const buckets = named("edgepack_request_seconds_bucket")
    .map(each => [each.labels.le === "+Inf" ? Infinity : Number(each.labels.le), each.value]).sort((a, b) => a[0] - b[0]);
  const requests = "edgepack_requests_total";
  return {at: performance.now(), buckets, requests: sum(requests), rows: sum("edgepack_rows_total"),
    failed: sum(requests, each => each.labels.code >= "500"), unfit: sum(requests, each => /^4/.test(each.labels.code)),
    next: sum("edgepack_spool_next_seq"), pending: sum("edgepack_spool_pending_rows"),
    dropped: sum("edgepack_spool_dropped_rows"), syncs: sum("edgepack_spool_sync_failures"),
    down: named("edgepack_worker_up").filter(each => !each.value).map(each => each.labels.step),
    slower: named("edgepack_provider").filter(each => !each.value).map(each => `${each.labels.step} is not on ${each.labels.provider}: ${each.labels.reason}`)};
}

function quantile(now, before, share) {
  const counts = now.map(([bound, count], index) => [bound, count - (before.length ? before[index][1] : 0)]);
  const total = counts.length ? counts[counts.length - 1][1] : 0;
  if (!total) return null;
  let low = 0, under = 0;
  for (const [bound, count] of counts) {
    if (count >= share * total) {
      if (bound === Infinity) return low;
      return low + (bound - low) * (share * total - under) / Math.max(1, count - under);
    }
    low = bound; under = count;
  }
  return low;
}

// What is wrong, by the last minute

function verdict(now, past) {
  const before = past[0] || now, of = now.requests - before.requests;
  const rise = name => now[name] - before[name];
  const bad = [], warn = [];
  if (now.down.length) bad.push("process down: " + now.down.join(", "));
  if (rise("failed") > 0) bad.push(`${rise("failed")} of ${of} requests failed in the last minute`);
  if (rise("syncs") > 0) bad.push("the disk refuses to sync the log");
  if (rise("unfit") > 0) warn.push(`${rise("unfit")} of ${of} requests did not fit in the last minute`);
  if (rise("dropped") > 0) warn.push(`${rise("dropped")} rows of the log dropped`);
  warn.push(...now.slower);
  const said = [...bad, ...warn];
  const quiet = now.requests ? "healthy" : "ready, no request yet";
  return {level: bad.length ? "bad" : warn.length ? "warn" : "good", text: said.join(" · ") || quiet};
}

// Showing

function shown(seconds) {
  if (seconds === null) return "–";
  return seconds < 0.001 ? (seconds * 1e6).toFixed(0) + " µs" : (seconds * 1e3).toFixed(seconds < 0.1 ? 1 : 0) + " ms";
}

function brief(number) {
  return number < 1e5 ? number.toLocaleString("en") : Intl.NumberFormat("en", {notation: "compact", maximumFractionDigits: 1}).format(number);
}

function put(card, name, text) { card.querySelector(`[data-figure="${name}"]`).textContent = text; }

function draw(card, lines) {
  const most = Math.max(...lines.map(each => each.p99), 1e-6);
  for (const name of ["p50", "p99"]) {
    const points = lines.map((each, index) => `${(index + KEPT - lines.length) * 100 / (KEPT - 1)},${60 - 54 * each[name] / most}`);
    card.querySelector("polyline." + name).setAttribute("points", points.join(" "));
  }
  put(card, "most", shown(most));
}

function clipped(value) {
  const short = (_, each) => typeof each === "number" && !Number.isInteger(each) ? Number(each.toPrecision(4)) : each;
  const text = JSON.stringify(value === undefined ? null : value, short);
  return text.length > LONGEST ? text.slice(0, LONGEST) + "…" : text;
}

async function showRows(entry, pipeline, next) {
  const query = new URLSearchParams({pipeline, limit: ROWS});
  if (next > ROWS) query.set("after_seq", next - ROWS - 1);
  const answer = await fetch("/logs?" + query, {method: "POST", body: "{}"});
  if (!answer.ok) return;
  const body = entry.card.querySelector("tbody"), rows = (await answer.json()).reverse();
  body.replaceChildren(...rows.map(row => {
    const line = document.createElement("tr");
    const time = new Date(row.time).toLocaleTimeString("en-GB");
    const anomalies = Object.entries(row.anomaly || {}).filter(([name, is]) => name !== "count" && is).map(([name]) => name);
    for (const text of [time, clipped(row.in), clipped(row.out), anomalies.join(", ")]) {
      const cell = document.createElement("td"); cell.textContent = text; line.append(cell);
    }
    line.classList.toggle("anomaly", anomalies.length > 0);
    return line;
  }));
  entry.card.querySelector(".empty").hidden = rows.length > 0;
}

function showFigures(entry, now) {
  const {card, past} = entry, last = past[past.length - 1];
  for (const name of ["requests", "rows", "pending", "dropped"]) put(card, name, brief(now[name]));
  put(card, "failed", brief(now.failed + now.unfit));
  for (const [name, count] of [["failed", now.failed + now.unfit], ["dropped", now.dropped]])
    card.querySelector(".figures ." + name).classList.toggle("raised", count > 0);
  const old = last && last.buckets.length === now.buckets.length ? last.buckets : [];
  const p50 = quantile(now.buckets, old, 0.5), p99 = quantile(now.buckets, old, 0.99);
  if (p50 !== null) {
    put(card, "median", shown(p50)); put(card, "p99", shown(p99));
    if (last) { entry.lines = [...entry.lines, {p50, p99}].slice(-KEPT); draw(card, entry.lines); }
  }
  if (last) put(card, "rate", ((now.requests - last.requests) * 1000 / (now.at - last.at)).toFixed(1));
  entry.past = [...past, now].slice(-WINDOW);
  const found = verdict(now, entry.past);
  card.dataset.level = found.level;
  card.querySelector(".verdict").textContent = found.text;
  return found;
}

function summary(health, found) {
  if (health.status !== "ready") return ["bad", "not ready: " + health.reason, "Requests are told to come back."];
  const ill = [...found].filter(([, each]) => each.level !== "good");
  const worst = ill.some(([, each]) => each.level === "bad") ? "bad" : "warn";
  const many = `${found.size} pipeline${found.size === 1 ? "" : "s"}`;
  if (!ill.length) return ["good", "healthy", many + (found.size === 1 ? " answers" : " answer")];
  return [worst, worst === "bad" ? "needs help" : "needs a look", ill.map(([name, each]) => `${name}: ${each.text}`).join(" — ")];
}

async function look() {
  if (document.hidden) return;
  try {
    const [ready, metrics] = await Promise.all([fetch("/readyz"), fetch("/metrics")]);
    const health = await ready.json(), samples = parsed(await metrics.text());
    if (health.pipelines.join() !== [...cards.keys()].join()) { location.reload(); return; }
    const found = new Map();
    for (const [pipeline, entry] of cards) {
      const now = figuresOf(samples, pipeline);
      found.set(pipeline, showFigures(entry, now));
      if (now.next !== entry.seen) { entry.seen = now.next; await showRows(entry, pipeline, now.next); }
    }
    say(...summary(health, found));
    answeredAt = new Date().toLocaleTimeString("en-GB");
    page.querySelector("time").textContent = answeredAt;
  } catch (error) {
    say("bad", "no answer from the agent", answeredAt ? "Last heard of at " + answeredAt : "It has not answered this page yet.");
    for (const {card} of cards.values()) { card.dataset.level = "bad"; card.querySelector(".verdict").textContent = "no answer"; }
  }
}

for (const form of document.querySelectorAll("form")) form.addEventListener("submit", async event => {
  event.preventDefault();
  const output = form.querySelector(".answer"), button = form.querySelector("button");
  const tell = (is, line, text) => {
    output.hidden = false; output.classList.toggle("bad", !is);
    output.querySelector("p").textContent = line; output.querySelector("pre").textContent = text;
  };
  button.disabled = true;
  const start = performance.now();
  try {
    const answer = await fetch(form.dataset.path, {method: "POST", body: form.rows.value,
      headers: {"Content-Type": form.dataset.type}});
    const text = await answer.text(), took = (performance.now() - start).toFixed(1);
    let body = text;
    try { body = JSON.stringify(JSON.parse(text), null, 1).replace(/\[\s+([^[\]{}]*?)\s+\]/g, (_, inner) => `[${inner.replace(/\s+/g, " ")}]`); }
    catch (error) { /* shown as it came */ }
    tell(answer.ok, `${answer.status} in ${took} ms`, body);
  } catch (error) { tell(false, "no answer", String(error)); }
  button.disabled = false;
  look();
});

look();
setInterval(look, EVERY_MS);
document.addEventListener("visibilitychange", look);
