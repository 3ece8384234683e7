"""`report.html`: a run on one page that needs nothing else, its pictures inside."""

from __future__ import annotations

import base64
import html

from numbanet.data.loader import WAITING
from numbanet.files import write_text

REMEDY = "--workers loads ahead where cores are free, packed pictures (numbanet data pack) load faster"

PICTURES = (("curves.png", "Loss and error"), ("confusion.png", "What is taken for what"), ("mistakes.png", "The worst mistakes"),
            ("found.png", "What it finds"),
            ("filters.png", "Filters of the first layer, over time"), ("layers.png", "Inside the layers, over time"))
STYLE = """body{font:15px/1.5 system-ui,sans-serif;color:#202028;max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.15rem .8rem .15rem 0;text-align:right;border-bottom:1px solid #e0e0e6}
td:first-child,th:first-child{text-align:left}
img{max-width:100%;border:1px solid #e0e0e6}
pre{background:#f6f6f8;padding:.6rem;overflow:auto}"""


def write_report(run, judgement=None, layers: list[dict] | None = None, skipped: dict[str, str] | None = None) -> None:
    """Write the page of a RunDirectory; pictures that are not there are left out.

    Parameters
    ----------
    run : RunDirectory
    judgement : Judgement, optional
    layers : the history of LayerStatistics, optional
    skipped : pictures that were left out, by path, and why, optional
    """
    history = run.read_metrics()
    parts = [f"<h1>{html.escape(run.path.name)}</h1>"]
    if judgement is not None:
        parts.append(_table(["test images", f"{judgement.count:,}"], [[name, f"{value:.4f}"] for name, value in judgement.values.items()]))
    for name, title in PICTURES:
        if (run.path / name).is_file():
            data = base64.b64encode((run.path / name).read_bytes()).decode()
            parts.append(f'<h2>{title}</h2><img alt="{title}" src="data:image/png;base64,{data}">')
    if layers:
        parts.append(f"<h2>The layers after epoch {layers[-1]['epoch']}</h2>" + _layers(layers[-1]["layers"]))
    if skipped:
        parts.append(f"<h2>Pictures that were left out: {len(skipped):,}</h2>")
        parts.append(_table(["picture", "why"], [list(item) for item in skipped.items()]))
    if history:
        parts.append(f"<p>{html.escape(waiting(history))}</p>")
        names = list(history[0])
        parts.append("<h2>Epochs</h2>" + _table(names, [[f"{row.get(name, float('nan')):.5g}" for name in names] for row in history]))
    for name, title in (("config.yaml", "Asked for"), ("environment.json", "Environment")):
        if (run.path / name).is_file():
            parts.append(f"<h2>{title}</h2><pre>{html.escape((run.path / name).read_text(encoding='utf-8'))}</pre>")
    write_text(run.path / "report.html", f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(run.path.name)}'
               f"</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n")


def waiting(history: list[dict]) -> str:
    """What part of the training time went by in waiting for data, in words, with a remedy where it is much."""
    seconds, waited = (sum(row.get(name, 0.0) for row in history) for name in ("seconds", "waited"))
    share = waited / seconds if seconds > 0 else 0.0
    text = f"{seconds:.1f} s of training, of which {waited:.1f} s ({100 * share:.0f}%) were spent waiting for data"
    return text + (f"; {REMEDY}" if share > WAITING else "")


def _table(head: list[str], rows: list[list[str]]) -> str:
    line = lambda cells, tag: "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _layers(layers: dict[str, dict]) -> str:
    show = lambda value, percent=False: "" if value is None else f"{100 * value:.1f}%" if percent else f"{value:.3g}"
    return _table(["layer", "mean", "spread", "dead or saturated", "gradient norm", "update / weight"],
                  [[path, show(v["mean"]), show(v["std"]), show(v["stuck"], True), show(v["gradient"]), show(v["ratio"])]
                   for path, v in layers.items()])
