"""Pretrained encoders: loaded, given another embedding, saved."""
