"""The same fine-tuning on several devices and precisions, in turns, so that they can be compared."""
