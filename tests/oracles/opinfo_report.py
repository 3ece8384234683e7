"""Prints how many samples of PyTorch's operator database agree, entry by entry: `python -m tests.oracles.opinfo_report [ENTRY...]`."""

import sys
import warnings

from tests.oracles import opinfo
from tests.oracles.opinfo_names import NAMES
from tests.oracles.opinfo_reasons import NOT_RUN


def main(names) -> None:
    warnings.simplefilter("ignore")                         # PyTorch's, of its own deprecated calls
    totals = [0, 0, 0, 0]
    print(f"{'entry':48} {'samples':>11} {'errors':>9}")
    for name in names:
        samples, errors = opinfo.outcomes(name), opinfo.refusals(name)
        counts = [n for found in (samples, errors) for n in (sum(o.failure is None for o in found), len(found))]
        totals = [t + c for t, c in zip(totals, counts)]
        print(f"{name:48} {counts[0]:5}/{counts[1]:5} {counts[2]:4}/{counts[3]:4}")
        for reason in sorted({o.reason or f"UNKNOWN: {o.failure}" for o in (*samples, *errors) if o.failure}):
            print(f"    {reason}")
    shares = ", ".join(f"{passed / total:.1%}" for passed, total in (totals[:2], totals[2:]) if total)
    print(f"{'all':48} {totals[0]:5}/{totals[1]:5} {totals[2]:4}/{totals[3]:4}   ({shares})")
    print("\nnot run:")
    for name, reason in NOT_RUN.items():
        print(f"    {name}: {reason}")


if __name__ == "__main__":
    main(sys.argv[1:] or NAMES)
