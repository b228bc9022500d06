"""Readings of any module or function: what goes on inside, and why it says what it says."""

from deepweave.explain.signals import Signal, rank, signals

__all__ = ["Signal", "rank", "signals"]
