#!/usr/bin/env python3
"""Evidently's drift statistics on raw values, for the figure `drift`.

    python3 tests/reference/drift_peer.py RAW.npz > ROWS        # pip install evidently "pandas<3"

RAW.npz is what `drift --raw RAW.npz` writes: `reference/COLUMN`, one array of values, and `SCENARIO/COLUMN`, an array of
[run, window, inference]. Columns are numbers but for `class`. A row is a JSON object: scenario, column, statistic, the
library's own threshold, and for every run and window its score and whether it calls that drift.
"""

import json
import sys
import warnings

warnings.filterwarnings("ignore")

import numpy as np
import pandas as pd
from evidently.legacy.calculations import stattests
from evidently.legacy.core import ColumnType

NUMBERS = [
    ("psi", stattests.psi_stat_test, 0.1),
    ("jensen_shannon", stattests.jensenshannon_stat_test, 0.1),
    ("wasserstein", stattests.wasserstein_stat_test, 0.1),
    ("kolmogorov_smirnov", stattests.ks_stat_test, 0.05),
]
CLASSES = [
    ("psi", stattests.psi_stat_test, 0.1),
    ("jensen_shannon", stattests.jensenshannon_stat_test, 0.1),
    ("chi_square", stattests.chi_stat_test, 0.05),
]


def main(path):
    raw = np.load(path)
    reference = {key.split("/", 1)[1]: pd.Series(raw[key]) for key in raw.files if key.startswith("reference/")}
    for key in raw.files:
        scenario, column = key.split("/", 1)
        if scenario == "reference":
            continue
        kind, tests = (ColumnType.Categorical, CLASSES) if column == "class" else (ColumnType.Numerical, NUMBERS)
        for name, test, threshold in tests:
            scores, drifted = [], []
            for run in raw[key]:
                results = [test(reference[column], pd.Series(window), kind, threshold) for window in run]
                scores.append([float(r.drift_score) for r in results])
                drifted.append([bool(r.drifted) for r in results])
            row = {"scenario": scenario, "column": column, "statistic": name, "threshold": threshold}
            print(json.dumps({**row, "scores": scores, "drifted": drifted}))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
