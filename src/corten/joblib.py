"""scikit-learn's and joblib's `n_jobs` in containers.

    import joblib, corten.joblib

    corten.joblib.register()
    with joblib.parallel_config(backend="corten", n_jobs=2, memory="512m"):
        GridSearchCV(...).fit(X, y)
"""

from __future__ import annotations

from corten.errors import Unsupported


def register() -> None:
    """Make joblib's backend "corten" known. `Unsupported`: there is no joblib."""
    try:
        from corten.compute import joblib_backend
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "joblib":
            raise
        raise Unsupported("corten.joblib needs joblib: pip install joblib (scikit-learn brings it)") from None
    joblib_backend.register()
