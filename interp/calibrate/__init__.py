"""Calibration: the toolkit's measures scored on model organisms whose truth is known (`python -m interp.calibrate`)."""
