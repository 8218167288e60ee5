"""Run a batch on one engine and device. One file per engine; what really ran is read back, nothing falls back."""
