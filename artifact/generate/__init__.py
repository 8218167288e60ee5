"""Text that a language model continues, without torch or transformers."""
