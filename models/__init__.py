"""Checkpoints: load, describe, fine-tune (torch; nothing but the exporter and the PyTorch runtimes may import this)."""
