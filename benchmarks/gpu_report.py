"""The report of `gpu_suite.py` for people: what each phase found, and at the end what was to be reached, beside what was."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import geometric_mean
from typing import NamedTuple

SHOWN = 12                   # failed checks of a phase that the table names; all are in the JSON


class Target(NamedTuple):
    """What a card of the H100's class is to reach: a number made of the report's rows, and its bound."""

    what: str
    bound: float
    unit: str
    value: Callable[[dict], float | None]       # of the report's rows by phase and name; None where they are not there
    at_most: bool = False


def _measured(phase: str, name: str):
    return lambda rows: rows.get((phase, name), {}).get("value")


def _share(phase: str, *names: str):
    """Per cent of PyTorch's speed, in geometric mean."""
    def value(rows):
        shares = [100 * share for name in names if (share := share_of(rows.get((phase, name), {}))) is not None]
        return geometric_mean(shares) if len(shares) == len(names) else None
    return value


def _passes(direction: str, math: str):
    def value(rows):
        shares = [100 * share for (phase, name), row in rows.items()
                  if phase == "speed_convolutions" and name.startswith(f"{direction} {math} ") and (share := share_of(row)) is not None]
        return geometric_mean(shares) if shares else None
    return value


def _of_copy(name: str):
    def value(rows):
        ours, copy = (rows.get(("speed_memory", one), {}).get("value") for one in (name, "copy"))
        return ours and copy and 100 * ours / copy
    return value


TARGETS = (
    *[Target(f"gemm float32 {n}, strict", 80, "% of cuBLAS", _share("speed_products", f"gemm float32 {n}")) for n in (4096,)],
    *[Target(f"gemm {math} {n}", bound, "TFLOP/s", _measured("speed_products", f"gemm {math} {n}"))
      for math, bound in (("tf32", 200), ("bf16", 400)) for n in (4096, 8192)],
    *[Target(f"convolutions, {direction}, {math}", bound, "% of cuDNN", _passes(direction, math))
      for direction, bound in (("forward", 70), ("backward_input", 60), ("backward_weight", 50)) for math in ("tf32", "bf16")],
    *[Target(name, 85, "% of copy", _of_copy(name)) for name in ("relu", "add", "batch norm, training", "max pool 3x3/2",
                                                                  "SGD with momentum")],
    Target("a launch from a plan", 4, "us", _measured("speed_launches", "from a plan"), True),
    Target("a launch in a graph", 1, "us", _measured("speed_launches", "in a graph"), True),
    *[Target(f"resnet50, {run}, {kind}", 60, "% of PyTorch", _share("speed_models", f"resnet50, {run}, {kind}"))
      for run in ("inference", "training") for kind in ("TF32", "BF16")],
    Target("lenet5, training, TF32", 100, "% of PyTorch", _share("speed_models", "lenet5, training, TF32")),
    *[Target(f"first result of ResNet-50, {cache} cache", bound, "s", _measured("speed_start", f"first result of ResNet-50, {cache} cache"),
             True) for cache, bound in (("empty", 60), ("filled", 2))])


def share_of(row: dict) -> float | None:
    """How much of the peer's speed a measurement reaches, 1 being as fast; None where there is no peer. In time, less is better."""
    value, peer = row.get("value"), row.get("peer")
    if not value or not peer:
        return None
    return peer / value if row["unit"] in ("ms", "us", "s") else value / peer


def table(report: dict) -> str:
    """Checks that failed, every measurement beside its peer, then a line a phase, and what was to be reached."""
    found = report["environment"]
    lines = [f"{found['card']} ({found['arch']}), driver {found['driver']}, Python {found['python']}",
             ", ".join(f"{name} {version}" for name, version in found["packages"].items())]
    for phase in report["phases"]:
        checks = [row for row in phase["rows"] if "ok" in row]
        failed = [row for row in checks if not row["ok"]]
        measured = [row for row in phase["rows"] if "value" in row]
        if phase["error"] or failed or measured:
            lines += ["", f"## {phase['name']}: {phase['status']}, {phase['seconds']:.1f} s"]
            if phase["error"]:
                lines.append(phase["error"].splitlines()[0])
            if checks:
                lines.append(f"{len(checks) - len(failed)} passed, {len(failed)} failed")
            lines += [f"  FAILED {row['name']}: {' '.join(row.get('detail', '').split())[:200]}" for row in failed[:SHOWN]]
            if len(failed) > SHOWN:
                lines.append(f"  and {len(failed) - SHOWN} more, which the JSON names")
            lines += list(_measurements(measured))
    return "\n".join([*lines, "", *_targets(report), "", *_phases(report)])


def _measurements(rows: list[dict]) -> Iterable[str]:
    if rows:
        width = max(len(row["name"]) for row in rows)
        yield f"{'case':<{width}} {'numbanet':>10} {'PyTorch':>10} {'unit':<9} {'share':>6}"
    for row in rows:
        share, peer = share_of(row), row.get("peer")
        yield (f"{row['name']:<{width}} {row['value']:>10.4g} {'' if peer is None else format(peer, '.4g'):>10} {row['unit']:<9} "
               f"{'' if share is None else format(share, '.0%'):>6}{'  ' if row.get('note') else ''}{row.get('note', '')}")


def _targets(report: dict) -> Iterable[str]:
    rows = {(phase["name"], row["name"]): row for phase in report["phases"] for row in phase["rows"]}
    yield f"{'what an H100 is to reach':<44} {'reached':>9} {'wanted':>8}  {'of':<13}"
    for target in TARGETS:
        value = target.value(rows)
        verdict = "not measured" if value is None else "yes" if (value <= target.bound) == target.at_most or value == target.bound else "NO"
        wanted = f"{'<' if target.at_most else '>'} {target.bound:g}"
        yield f"{target.what:<44} {'' if value is None else format(value, '.4g'):>9} {wanted:>8}  {target.unit:<13} {verdict}"


def _phases(report: dict) -> Iterable[str]:
    yield f"{'phase':<20} {'status':<9} {'seconds':>7} {'passed':>7} {'failed':>7} {'measured':>9}"
    for phase in report["phases"]:
        checks = [row["ok"] for row in phase["rows"] if "ok" in row]
        measured = sum("value" in row for row in phase["rows"])
        yield (f"{phase['name']:<20} {phase['status']:<9} {phase['seconds']:>7.1f} {sum(checks):>7} {len(checks) - sum(checks):>7} "
               f"{measured:>9}")
