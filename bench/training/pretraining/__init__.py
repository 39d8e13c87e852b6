"""Pretraining: an encoder trained from random weights with its embedding in place. What carries it out is in `stage`.

A plan needs the version alone.
"""

VERSION = 3  # raised whenever a change here or in the training changes a pretrained model
