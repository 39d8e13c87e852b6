"""Pretrained encoders: load one, swap its embedding, save it."""
