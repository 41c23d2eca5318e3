"""Two strategies through the Python API: a run each, then a table of their accuracies.

python compare.py
"""

import pandas as pd

import aal

curves = {}
for strategy in ("entropy", "random"):
    run = aal.run("small.yaml", assignment_type="DA", query_strategy=strategy, out=f"runs/{strategy}")
    curves[strategy] = run.curve.set_index("labels")["test_accuracy"]
    print(f"{strategy}: annotators waited {run.summary['annotator_wait_s']['mean']:.2f} s for a query in the mean")
print(pd.DataFrame(curves))
