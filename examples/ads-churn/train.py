"""Remakes churn/model.joblib, and golden.json with the answers of churn/score.py run by itself.

pip install scikit-learn pandas joblib && python train.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

HERE = Path(__file__).resolve().parent
MEMBERS, ASKED = 600, 40


def members() -> tuple[pd.DataFrame, np.ndarray]:
    """Members of a gym, and whether they left."""
    random = np.random.default_rng(11)
    months = random.integers(1, 60, MEMBERS)
    table = pd.DataFrame(
        {
            "plan": random.choice(["basic", "family", "gold"], MEMBERS),
            "months": months,
            "visits": random.integers(0, 9, MEMBERS) * months,
            "monthly_fee": random.normal(40, 12, MEMBERS).round(2),
        }
    )
    risk = 2.5 - 0.03 * months - 0.8 * table["visits"] / months + 0.03 * table["monthly_fee"]
    return table, (risk + random.normal(0, 0.5, MEMBERS) > 0).to_numpy()


def main() -> None:
    table, left = members()
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["plan"]),
        (StandardScaler(), ["months", "monthly_fee", "visits_a_month"]),
    )
    seen = table.assign(visits_a_month=table["visits"] / table["months"])
    joblib.dump(make_pipeline(columns, LogisticRegression()).fit(seen, left), HERE / "churn/model.joblib")
    sys.path.insert(0, str(HERE / "churn"))
    import score

    asked = table.iloc[:ASKED]
    answers = score.predict(asked.to_dict("list"))["prediction"]
    rows = [
        {**{f"in.{name}": value for name, value in row.items()}, "out.prediction": answer}
        for row, answer in zip(asked.to_dict("records"), answers, strict=True)
    ]
    (HERE / "golden.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")


if __name__ == "__main__":
    main()
