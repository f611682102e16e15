"""Calibration: boards, a camera's intrinsics, where it stands (hand-eye), how late it is."""
