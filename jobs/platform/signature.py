"""What a registered model takes and gives, in the file MLmodel by which MLflow shows it.

The file names no loader: MLflow cannot open the model, and no pickle comes into it. A release does, see
`Release.recommend_events`, whose parameters these are.
"""

from __future__ import annotations

from collections.abc import Iterable


def mlmodel(parts: Iterable[str]) -> str:
    """Content of the file MLmodel.

    Parameters
    ----------
    parts : iterable of str
        Folders of the model.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    event = [Property("item_id", DataType.string), Property("seconds_since_1970", DataType.double)]
    place = [Property(name, DataType.string) for name in ("item_id", "title")] + [Property("score", DataType.double)]
    params = [
        ParamSpec("n", DataType.long, 20),
        ParamSpec("exclude_seen", DataType.boolean, True),
        ParamSpec("diversity", DataType.double, 0.0),
    ]
    signature = ModelSignature(
        inputs=Schema([ColSpec(Array(Object(event)), "events")]),
        outputs=Schema([ColSpec(Array(Object(place)), "recommended_items")]),
        params=ParamSchema(params),
    )
    made = Model(
        signature=signature,
        flavors={"hymirec": {"parts": sorted(parts)}},
        metadata={"opens with": "jobs.platform.releases.Release.open(warehouse).recommend_events(events)"},
    )
    return str(made.to_yaml())
