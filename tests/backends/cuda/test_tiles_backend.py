"""Primitives and networks by tile programs on an emulated GPU: the report on `tiled.py`."""


def test_primitives_by_tile_programs(beside):
    done = beside("tiled.py")
    assert done.returncode == 0 and " passed" in done.text, done.text
