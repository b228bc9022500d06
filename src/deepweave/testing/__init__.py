"""Public checks: what every model, bijection and objective must hold, ready for your own.

Each check raises AssertionError with one line that names what is wrong.
"""

from deepweave.testing.bijections import check_bijection
from deepweave.testing.models import check_model
from deepweave.testing.objectives import check_objective

__all__ = ["check_bijection", "check_model", "check_objective"]
