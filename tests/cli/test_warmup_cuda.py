"""`numbanet warmup --device cuda`: the cache of cubins, without a GPU."""

from __future__ import annotations

import pytest

from numbanet.cli import main


@pytest.mark.parametrize("words, message", [
    (["--device", "cuda"], "expected --arch"),
    (["--device", "cuda", "--arch", "sm_70"], "sm_80 or newer"),
    (["--device", "cuda", "--arch", "h100"], "a name such as sm_80"),
    (["--device", "cuda", "--arch", "sm_90", "lenet5"], "expected no model"),
    (["--arch", "sm_90"], "are for --device cuda"),
])
def test_what_makes_no_sense_is_refused_before_any_work(capsys, words, message):
    assert main(["warmup", *words]) == 2
    assert message in capsys.readouterr().err


def test_it_fills_the_cache(capsys, tmp_path, monkeypatch):
    from numbanet.backends.cuda import cubin
    from numbanet.backends.cuda.tiles import catalog
    from numbanet.backends.cuda.tiles.reduce import StatisticsMerge
    if cubin.can_compile():
        pytest.skip(cubin.can_compile())
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(catalog, "catalog", lambda maths: {"statistics": StatisticsMerge()})      # the whole takes minutes
    assert main(["warmup", "--device", "cuda", "--arch", "sm_80", "--arch", "sm_90"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["statistics", "sm_80"] and lines[-1].startswith("2 kernels in")
    assert all(len(line) <= 80 for line in lines[:-1])
    assert len(list(tmp_path.rglob("*.cubin"))) == 2
