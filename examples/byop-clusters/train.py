"""Makes feature_extractor.pkl, kmeans.pkl and golden.json anew, of the digits that scikit-learn carries.

uv venv /tmp/labels && uv pip install --python /tmp/labels -r clusters/requirements.txt
/tmp/labels/bin/python train.py
"""

import json
import pickle
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

HERE = Path(__file__).parent
GOLDEN = 40


def main() -> None:
    """Train both models and write them with golden rows; every third row lacks its brightness."""
    images = load_digits().images.astype(np.int64)
    flat = images.reshape(len(images), -1)
    extractor = PCA(12, random_state=0, svd_solver="full").fit(flat)
    clusters = KMeans(10, n_init=4, random_state=0).fit(extractor.transform(flat))
    for name, model in (("feature_extractor", extractor), ("kmeans", clusters)):
        (HERE / "clusters" / f"{name}.pkl").write_bytes(pickle.dumps(model, protocol=4))
    rows = []
    for number, image in enumerate(images[:GOLDEN]):
        brightness = None if number % 3 == 0 else round(0.8 + 0.01 * number, 2)
        features = extractor.transform(image.reshape(1, -1) * (1.0 if brightness is None else brightness))
        rows.append(
            {
                "in.image": image.tolist(),
                "in.brightness": brightness,
                "out.cluster": int(clusters.predict(features)[0]),
                "out.distance": float(str(np.float32(clusters.transform(features).min()))),
            }
        )
    (HERE / "golden.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
