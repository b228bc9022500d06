"""``python -m deepweave``: the command line."""

from __future__ import annotations

from deepweave.cli import main

if __name__ == "__main__":
    main()
