"""The status page: what is served, and a form to try it with a real row. It loads nothing from elsewhere."""

from __future__ import annotations

from flask import render_template_string

from columns.records import encode_records
from edge_agent.serving import ActivePipeline, Serving
from edgepack.errors import EdgepackError

_LONGEST_EXAMPLE = 20_000  # characters that a form still shows well; an image's row is larger

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>edgepack agent</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style nonce="{{ nonce }}">
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; }
th { font-weight: 600; border-bottom: 1px solid #8888; }
code, textarea, pre { font: .85rem/1.4 ui-monospace, monospace; }
textarea { width: 100%; box-sizing: border-box; }
pre { background: #8882; padding: .8rem; overflow: auto; max-height: 24rem; white-space: pre-wrap; }
button { font: inherit; padding: .3rem 1.2rem; } h2 { margin-top: 2rem; }
</style></head><body>
<h1>edgepack agent</h1>
<p role="status">{{ "Ready." if not waiting_for else "Not ready: " ~ waiting_for ~ "." }}</p>
{% for pipeline in pipelines %}
<h2>{{ pipeline.name }}</h2>
<table><tr><th>version</th><td><code>{{ pipeline.version }}</code></td></tr>
<tr><th>bundle</th><td><code>{{ pipeline.manifest }}</code></td></tr>
{% for model in pipeline.models %}
<tr><th>model</th><td>{{ model.name }} <code>{{ model.sha[:12] }}</code></td></tr>
{% endfor %}
{% for field in pipeline.loaded.input %}<tr><th>in</th><td><code>{{ field }}</code></td></tr>{% endfor %}
{% for field in pipeline.loaded.output %}<tr><th>out</th><td><code>{{ field }}</code></td></tr>{% endfor %}
</table>
<form data-path="/pipelines/{{ pipeline.name }}">
<p><label>Rows
<textarea name="rows" rows="6" spellcheck="false">{{ examples[pipeline.name] }}</textarea></label></p>
<p><button>Try it</button></p><pre hidden></pre></form>
{% endfor %}
<p><a href="/metrics">metrics</a> · <a href="/openapi.json">OpenAPI</a></p>
<script nonce="{{ nonce }}">
for (const form of document.querySelectorAll("form")) form.addEventListener("submit", async event => {
  event.preventDefault();
  const shown = form.querySelector("pre");
  shown.hidden = false; shown.textContent = "…";
  try {
    const answer = await fetch(form.dataset.path, {method: "POST", body: form.rows.value,
      headers: {"Content-Type": "application/json; format=pandas-records"}});
    shown.textContent = JSON.stringify(await answer.json(), null, 2);
  } catch (error) { shown.textContent = String(error); }
});
</script></body></html>
"""


def status_page(serving: Serving, nonce: str) -> str:
    """The page as HTML; `nonce` is what its policy lets style and script run by."""
    pipelines = serving.pipelines
    return render_template_string(
        _PAGE,
        nonce=nonce,
        waiting_for=serving.waiting_for,
        pipelines=pipelines,
        examples={pipeline.name: example_row(pipeline) for pipeline in pipelines},
    )


def example_row(pipeline: ActivePipeline) -> str:
    """The first golden row as a body that `POST /infer` takes; a gap where it is too long for a form."""
    try:
        golden = pipeline.loaded.bundle.golden().inputs
    except (OSError, EdgepackError):
        return "[]"
    text = encode_records(golden.slice(0, 1), ".").decode()
    return text if len(text) <= _LONGEST_EXAMPLE else "[]"
