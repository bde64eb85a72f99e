"""Fetch and convert the pretrained weights that a profile names, so that no task of the DAG has to wait for them.

Reads nothing from a warehouse. Writes to var/models, or to the hub's cache for weights that a hub serves.
"""

from __future__ import annotations

from jobs.platform import cli
from jobs.platform.profile import load_profile
from jobs.platform.training import MODELS


def main(profile: cli.ProfileOption = "demo") -> None:
    """Fetch and convert the pretrained weights that a profile names."""
    from hymirec_model.weights import resolve

    settings = load_profile(profile)
    for name in (settings.encoder.weights, settings.recommender.weights):
        print(f"weights: {name} from {resolve(name, MODELS)}")


if __name__ == "__main__":
    cli.run(main)
