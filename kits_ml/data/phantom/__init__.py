"""Synthetic CT cases that are worth training on, in the KiTS layout."""

from kits_ml.data.phantom.distributions import CaseParameters, draw_parameters
from kits_ml.data.phantom.rendering import PhantomCase, generate_case
from kits_ml.data.phantom.writing import write_case, write_cases

__all__ = ["CaseParameters", "PhantomCase", "draw_parameters", "generate_case", "write_case", "write_cases"]
