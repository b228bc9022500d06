"""Public checks: what every model and every objective must hold, ready for your own.

Each check raises AssertionError with one line that names what is wrong.
"""

from deepweave.testing.models import check_model
from deepweave.testing.objectives import check_objective

__all__ = ["check_model", "check_objective"]
