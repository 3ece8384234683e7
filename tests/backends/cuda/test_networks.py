"""Networks on the CUDA backend, executed: the report on `networks.py`."""


def test_networks_where_ptx_is_executed(beside):
    done = beside("networks.py")
    assert done.returncode == 0 and " passed" in done.text, done.text
