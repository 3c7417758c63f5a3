"""Files of the published few-shot folds, as Point-BERT's generator makes them."""
import pickle

import numpy as np


def write_folds(folder, classes=((7, 3), (0, 39), (3, 7)), queries=20, points=32):
    """Folds of 2 ways and 1 shot, of random points."""
    folder.mkdir(parents=True)
    for fold, originals in enumerate(classes):
        rng, parts = np.random.default_rng(fold), {}
        for part, count in (('train', 1), ('test', queries)):
            parts[part] = [(rng.normal(size=(points, 6)).astype(np.float32), label, np.int32(original))
                           for label, original in enumerate(originals) for _ in range(count)]
        (folder / f'{fold}.pkl').write_bytes(pickle.dumps(parts, 4))
