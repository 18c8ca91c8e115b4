#!/usr/bin/env python3
"""The 8 x 8 handwritten digits that scikit-learn ships, as bytes.

    pip install scikit-learn
    python make_digits.py

Writes `digits.bin` beside this script: 1,797 records of 65 bytes, the label (0 to 9) and then 64 grey
values (0 to 16), row by row, in the order of `sklearn.datasets.load_digits`.

They are the test part of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository, 1998, doi:10.24432/C50P49, licence CC BY 4.0.
"""
import os

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()
records = np.column_stack([digits.target, digits.data]).astype(np.uint8)
assert (records[:, 1:] == digits.data).all() and records.shape == (1797, 65)
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "digits.bin")
records.tofile(path)
