"""What an artifact's `predict.py` is made of, and what Steelyard itself serves and measures with.

`artifact.bundle` joins these modules, byte for byte but for their imports of each other, into the one file that is
packed. So they import nothing but the standard library, numpy, tokenizers, onnxruntime and, for images, Pillow.
"""
