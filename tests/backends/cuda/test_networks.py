"""Networks on the CUDA backend in Numba's simulator: the report on `networks.py`."""


def test_networks_in_the_simulator(simulated):
    done = simulated("networks.py")
    assert done.returncode == 0 and " passed" in done.text, done.text
