"""Prints the most similar clips of each clip, by the mean of their frames' features."""

import sys

import numpy as np

from recsys.data.clip_store import ClipStore
from recsys.data.storage import join

store = ClipStore(join(sys.argv[1], "clips.lance"))
names = [uri.rsplit("/", 1)[-1] for uri in store.uris()]
vectors = store.take(np.arange(len(store))).astype(np.float32).mean(1)
vectors -= vectors.mean(0)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
likeness = vectors @ vectors.T
np.fill_diagonal(likeness, -1)
for name, row in zip(names, likeness, strict=True):
    nearest = np.argsort(-row)[:3]
    print(name, "→", ", ".join(f"{names[i]} ({row[i]:.2f})" for i in nearest))
