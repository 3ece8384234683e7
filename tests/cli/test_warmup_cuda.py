"""`numbanet warmup --device cuda`: the cache of cubins, without a GPU."""

from __future__ import annotations

import pytest

from numbanet.cli import main


@pytest.mark.parametrize("words, message", [
    (["--device", "cuda"], "expected --arch"),
    (["--device", "cuda", "--arch", "sm_70"], "sm_80 or newer"),
    (["--device", "cuda", "--arch", "h100"], "a name such as sm_80"),
    (["--device", "cuda", "--arch", "sm_90", "lenet5", "--all"], "received both"),
    (["--device", "cuda", "--arch", "sm_90", "lenet5", "--math", "tf32"], "received both"),
    (["--device", "cuda", "--arch", "sm_90", "lenet6"], "lenet5"),
    (["--arch", "sm_90"], "are for --device cuda"),
])
def test_what_makes_no_sense_is_refused_before_any_work(capsys, words, message):
    assert main(["warmup", *words]) == 2
    assert message in capsys.readouterr().err


def test_it_fills_the_cache(capsys, tmp_path, monkeypatch):
    from numbanet.backends.cuda import cubin, dry
    from numbanet.backends.cuda.tiles import catalog
    from numbanet.backends.cuda.tiles.reduce import SplitEpilogue
    if cubin.can_compile():
        pytest.skip(cubin.can_compile())
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(catalog, "catalog", lambda maths: {"splits": SplitEpilogue("float32", "matrix")})      # the whole takes minutes
    launches = dry.plain_launches()
    assert len(launches) > 50 and all(isinstance(types, tuple) for _, types in launches)
    monkeypatch.setattr(dry, "plain_launches", lambda: launches[:1])
    assert main(["warmup", "--device", "cuda", "--arch", "sm_80", "--arch", "sm_90"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["splits_float32_matrix", "sm_80"] and lines[2].split()[0] == launches[0].name
    assert lines[-1].startswith("4 kernels in")
    assert all(len(line) <= 80 for line in lines[:-1])
    assert len(list(tmp_path.rglob("*.cubin"))) == 4


def test_a_model_on_a_device_that_computes_nothing_names_its_kernels():
    """Those of inference and training, eager and compiled; with tiles, those that `choose.py` takes on that architecture."""
    pytest.importorskip("numba_cuda")
    import numbanet
    from numbanet.cli.warmup import _of_models
    plain = {one.name for one in _of_models(["lenet5"], "sm_90")}
    assert {"convolution_direct.conv2d_forward_direct", "matrix.matrix_product", "optimizer.sgd_kernel", "optimizer.adam_kernel",
            "pooling.max_pool2d_without_positions"} <= plain
    numbanet.cuda.set_tiles(True)
    try:
        tiled = {one.name for one in _of_models(["resnet18"], "sm_80")}
    finally:
        numbanet.cuda.set_tiles(None)
    assert sum(name.startswith("tile_tf32") for name in tiled) > 8 and any(name.startswith("splits_float32") for name in tiled)


def test_kernels_are_compiled_by_several_processes(tmp_path, monkeypatch):
    from numbanet.backends.cuda import cubin
    from numbanet.backends.cuda.dry import compile_all, plain_launches
    if cubin.can_compile():
        pytest.skip(cubin.can_compile())
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    wanted = [one for one in plain_launches() if one.name.startswith("pointwise.unary_")][:4]
    compiled = []
    monkeypatch.setattr(cubin, "compile_ptx", lambda *arguments: compiled.append(arguments))
    made = list(compile_all(wanted, "sm_80", 2))
    assert [one for one, _ in made] == wanted and all(code.code[:4] == b"\x7fELF" and not code.spills for _, code in made)
    assert compiled == [], "the workers did it"
