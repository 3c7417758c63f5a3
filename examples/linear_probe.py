"""Fit a linear probe of scikit-learn on exported embeddings, with cross-validation.

    python examples/linear_probe.py EMBEDDINGS

First run: python tools/embed.py SPLATS/*/* -o EMBEDDINGS. The class of an object is the name of its folder.
"""
import argparse
from collections import Counter
from pathlib import Path

import numpy as np

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('embeddings', help='.npz of tools/embed.py')
parser.add_argument('--folds', type=int, default=5)
args = parser.parse_args()

try:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
except ImportError:
    raise SystemExit('this example needs scikit-learn; install it with pip install scikit-learn') from None

# Plain arrays: no library of ours is needed from here on.
with np.load(args.embeddings) as content:
    features = content['embeddings']                                       # (n, E) float32 unit vectors
    labels = np.array([Path(path).parent.name for path in content['paths']])

counts = Counter(labels.tolist())
if len(counts) < 2 or min(counts.values()) < 2:
    raise SystemExit(f'{args.embeddings}: folders {dict(counts)}, expected two or more with two or more objects each')
folds = StratifiedKFold(min(args.folds, min(counts.values())), shuffle=True, random_state=0)
probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
accuracies = cross_val_score(probe, features, labels, cv=folds)
print(f'{len(labels)} objects, {len(counts)} classes, {len(accuracies)} folds: accuracy {accuracies.mean():.3f} '
      f'+- {accuracies.std():.3f}, most frequent class {max(counts.values()) / len(labels):.3f}')
