"""From a checkpoint to verified ONNX variants: one trace, every precision derived from it (torch, onnx)."""
