"""Kidney and kidney-tumour segmentation on CT as a tracked experiment."""

__version__ = "0.1.0"
