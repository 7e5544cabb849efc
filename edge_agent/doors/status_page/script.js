"use strict";
const EVERY_MS = 2000, KEPT = 60, ROWS = 6, LONGEST = 160;
const cards = new Map([...document.querySelectorAll("article")].map(card =>
  [card.dataset.pipeline, {card, before: null, seen: -1, latencies: []}]));
const state = document.querySelector(".state");

function say(text, good) { state.textContent = text; state.classList.toggle("bad", !good); }

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
  const sum = name => own.filter(each => each.name === name).reduce((total, each) => total + each.value, 0);
  const buckets = own.filter(each => each.name === "edgepack_request_seconds_bucket")
    .map(each => [each.labels.le === "+Inf" ? Infinity : Number(each.labels.le), each.value]).sort((a, b) => a[0] - b[0]);
  return {at: performance.now(), requests: sum("edgepack_requests_total"), rows: sum("edgepack_rows_total"), buckets,
    next: sum("edgepack_spool_next_seq"), pending: sum("edgepack_spool_pending_rows"),
    dropped: sum("edgepack_spool_dropped_rows")};
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

function shown(seconds) {
  if (seconds === null) return "–";
  return seconds < 0.001 ? (seconds * 1e6).toFixed(0) + " µs" : (seconds * 1e3).toFixed(seconds < 0.1 ? 2 : 0) + " ms";
}

function put(card, name, text) { card.querySelector(`[data-figure="${name}"]`).textContent = text; }

function draw(card, latencies) {
  const most = Math.max(...latencies, 1e-6);
  const points = latencies.map((value, index) =>
    `${(index + KEPT - latencies.length) * 100 / (KEPT - 1)},${44 - 40 * value / most}`);
  card.querySelector("polyline").setAttribute("points", points.join(" "));
}

function clipped(value) {
  const text = JSON.stringify(value === undefined ? null : value);
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
    const time = new Date(row.time).toLocaleTimeString();
    const anomalies = Object.entries(row.anomaly || {}).filter(([name, is]) => name !== "count" && is).map(([name]) => name);
    for (const text of [time, clipped(row.in), clipped(row.out), anomalies.join(", ")]) {
      const cell = document.createElement("td"); cell.textContent = text; line.append(cell);
    }
    line.classList.toggle("anomaly", anomalies.length > 0);
    return line;
  }));
  entry.card.querySelector(".empty").hidden = rows.length > 0;
}

async function look() {
  if (document.hidden) return;
  try {
    const [ready, metrics] = await Promise.all([fetch("/readyz"), fetch("/metrics")]);
    const health = await ready.json(), samples = parsed(await metrics.text());
    say(ready.ok ? "ready" : "not ready: " + health.reason, ready.ok);
    if (health.pipelines.join() !== [...cards.keys()].join()) { location.reload(); return; }
    for (const [pipeline, entry] of cards) {
      const now = figuresOf(samples, pipeline), before = entry.before;
      put(entry.card, "requests", now.requests.toLocaleString());
      put(entry.card, "rows", now.rows.toLocaleString());
      put(entry.card, "pending", now.pending.toLocaleString());
      put(entry.card, "dropped", now.dropped.toLocaleString());
      const old = before && before.buckets.length === now.buckets.length ? before.buckets : [];
      const half = quantile(now.buckets, old, 0.5);
      if (half !== null) {
        put(entry.card, "median", shown(half)); put(entry.card, "p99", shown(quantile(now.buckets, old, 0.99)));
        entry.latencies = [...entry.latencies, half].slice(-KEPT); draw(entry.card, entry.latencies);
      }
      if (before) put(entry.card, "rate", ((now.requests - before.requests) * 1000 / (now.at - before.at)).toFixed(1));
      entry.before = now;
      if (now.next !== entry.seen) { entry.seen = now.next; await showRows(entry, pipeline, now.next); }
    }
  } catch (error) { say("no answer from the agent", false); }
}

for (const form of document.querySelectorAll("form")) form.addEventListener("submit", async event => {
  event.preventDefault();
  const output = form.querySelector("pre"), button = form.querySelector("button");
  output.hidden = false; output.textContent = "…"; button.disabled = true;
  const start = performance.now();
  try {
    const answer = await fetch(form.dataset.path, {method: "POST", body: form.rows.value,
      headers: {"Content-Type": form.dataset.type}});
    const text = await answer.text(), took = (performance.now() - start).toFixed(1);
    let body = text;
    try { body = JSON.stringify(JSON.parse(text), null, 2); } catch (error) { /* shown as it came */ }
    output.textContent = `${answer.status} in ${took} ms\n${body}`;
  } catch (error) { output.textContent = String(error); }
  button.disabled = false;
  look();
});

look();
setInterval(look, EVERY_MS);
document.addEventListener("visibilitychange", look);
