"""Export of models that read one thing and write another: an encoder's graph and a decoder's."""
