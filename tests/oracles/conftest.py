"""Counts the samples of the operator database and prints the totals at the end of the run."""

import pytest

_COUNTS = {"samples": [], "errors": []}


@pytest.fixture(scope="session")
def opinfo_counts():
    return _COUNTS


def pytest_terminal_summary(terminalreporter):
    for what, verb in (("samples", "agree"), ("errors", "are refused")):
        if outcomes := _COUNTS[what]:
            passed, known = sum(o.failure is None for o in outcomes), sum(o.reason is not None for o in outcomes)
            terminalreporter.write_line(f"PyTorch's operator database: {passed} of {len(outcomes)} {what} {verb} "
                                        f"({passed / len(outcomes):.1%}), {known} differ for a stated reason")
