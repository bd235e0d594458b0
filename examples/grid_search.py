"""A grid search of scikit-learn over its handwritten digits, whose fits run in containers.

    python examples/grid_search.py      (needs scikit-learn: pip install '.[examples]')
"""

from __future__ import annotations

import time

import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

import corten.joblib

GRID = {"C": [0.1, 1, 10], "gamma": [0.0005, 0.001, 0.002]}


def main() -> None:
    images, digits = load_digits(return_X_y=True)
    corten.joblib.register()
    start = time.perf_counter()
    with joblib.parallel_config(backend="corten", n_jobs=-1, memory="512m"):
        found = GridSearchCV(SVC(), GRID, cv=3).fit(images, digits)
    seconds = time.perf_counter() - start
    print(f"27 fits in containers: {seconds:.2f} s, best {found.best_params_}: {found.best_score_:.4f}")
    here = GridSearchCV(SVC(), GRID, cv=3).fit(images, digits)
    same = (here.best_params_, here.best_score_) == (found.best_params_, found.best_score_)
    print("equal to one process:", same)


if __name__ == "__main__":
    main()
