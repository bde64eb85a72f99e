"""Stage 1, second half: train the item space when it is due, and give every item its vector.

Reads ``text_vectors``, ``catalog/ds`` and ``histories/ds`` without the held-out days. Writes ``item_space/ds`` (head
and residuals) when it was trained, and ``item_vectors/ds`` always: new items get a vector from their text, and from
their image where they have one.

It is due when the encoder is new, when images come, go or have another length, when there is none yet, when its
settings or the width of its user side (``recommender.light_width``) changed, or by age. The demo takes
about 20 seconds on two cores.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from hymirec_model.config import ItemSpaceConfig
from jobs.platform import cli, columns, tracking
from jobs.platform.datasets import dataset
from jobs.platform.errors import JobError
from jobs.platform.item_images import content_hashes, read_images
from jobs.platform.model_choice import champion_serves
from jobs.platform.parts import keep, space_version
from jobs.platform.profile import Profile, load_profile
from jobs.platform.text_states import read_states
from jobs.platform.tracked_runs import StageRun
from jobs.platform.training import Progress, facts_of, training_histories, version_of, why_due
from jobs.platform.warehouse import Partition, Warehouse

if TYPE_CHECKING:
    from hymirec_model.item_space import Halves, ItemSpace
    from hymirec_model.user_side import UserSide

SETTINGS = ("item_space", "recommender.light_width")
ROW_GROUP = 32_768  # items that a task of encode_items takes at once


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
    retrain: cli.RetrainOption = None,
) -> None:
    """Train the item space when it is due, and compute the vectors of all items.

    Writes item_vectors, and item_space when it was trained.
    """
    settings = load_profile(profile)
    wh = Warehouse(warehouse)
    encoder = wh.latest("encoder", until=ds) or wh.partition("encoder", ds)
    newest = wh.latest("item_space", until=ds, strict=True)
    why = why_due(wh, newest, ds, settings, retrain, *SETTINGS)
    if newest is not None and newest.info["encoder"] != encoder.info["version"]:
        if (retrain or settings.retrain) == "never":
            raise JobError(
                f"retrain is never, but encoder {encoder.info['version']} has no item space; allowed: auto, always"
            )
        why = "the encoder is new"
    images = read_images(wh, ds)
    length = 0 if images is None else images.shape[1]
    if newest is not None and not why and not champion_serves(wh, ds):
        before = known_image_length(wh.local_copy(newest))
        if before != length:
            why = f"image vectors have {length or 'no'} numbers, the item space knows {before or 'none'}"
            if (retrain or settings.retrain) == "never":
                raise JobError(f"retrain is never, but {why}; allowed: auto, always")
    refresh = cli.refresh_id_or_default(refresh_id, ds)
    with tracking.stage("train_item_space", ds=ds, refresh_id=refresh) as run:
        run.tags({"hymirec.due": why or "no"})
        run.params({"item_space": settings.item_space})
        written = make_vectors(wh, ds, settings, encoder, None if why else newest, run, images)
        run.metrics({"items": written.rows or 0})
    action = f"trained ({why})" if why else "kept, not due"
    print(f"item space: {action}; {written.rows:,} vectors of {written.info['dim']} dimensions")


def known_image_length(folder: Path) -> int:
    """Length of the image vectors that a stored item space reads, 0 for none."""
    return int(json.loads((folder / "config.json").read_text()).get("image", 0))


def make_vectors(
    wh: Warehouse,
    ds: str,
    profile: Profile,
    encoder: Partition,
    kept: Partition | None,
    run: StageRun,
    images: Halves | None,
) -> Partition:
    """Write item_vectors/ds, and item_space/ds unless an earlier one is ``kept``."""
    from hymirec_model.item_space import ItemSpace

    states, state_of_item = read_states(wh, ds, encoder)
    if kept is None:
        space, user_side = train(wh, ds, profile, states, state_of_item, run, images)
        with wh.write_partition("item_space", ds) as part:
            space.save(part.local)
            user_side.save(part.local)
            part.info |= {"encoder": encoder.info["version"], "version": version_of(part.local)}
            part.info |= facts_of(ds, profile, *SETTINGS)
        kept = wh.partition("item_space", ds)
    else:
        keep(wh, kept, ds)
    space = ItemSpace.load(wh.local_copy(kept))
    if images is not None and images.shape[1] != space.image:
        images = None  # a champion that knows no such images serves the day by text
    vectors = space.vectors(states, state_of_item, images=images).astype(np.float16)
    table = wh.read(wh.partition("catalog", ds), ["item_index", "item_id", "text_hash"])
    if images is not None:  # an item whose image changed needs new codes, as one whose text did
        table = table.set_column(2, "text_hash", content_hashes(table["text_hash"], images))
    table = table.append_column("vector", columns.fixed_lists(vectors))
    with wh.write_partition("item_vectors", ds) as part:
        part.write_table(pa.table(table), row_group_size=ROW_GROUP)
        part.info |= {"space_version": space_version(encoder, kept), "dim": vectors.shape[1]}
        part.info |= {"content": columns.content(vectors)}
    return wh.partition("item_vectors", ds)


def train(
    wh: Warehouse,
    ds: str,
    profile: Profile,
    states: np.ndarray,
    state_of_item: np.ndarray,
    run: StageRun,
    images: Halves | None,
) -> tuple[ItemSpace, UserSide]:
    """Train an item space, and the user side that goes with it, on the log before the held-out days."""
    import torch

    from hymirec_model.devices import training_device
    from hymirec_model.encoder_training import train_item_space
    from hymirec_model.item_space import ItemSpace
    from hymirec_model.user_side import UserSide

    config: ItemSpaceConfig = profile.item_space
    histories = training_histories(wh, ds, profile)
    run.inputs([dataset(wh, wh.partition(name, ds)) for name in ("catalog", "histories")], "training")
    torch.manual_seed(config.seed)
    space = ItemSpace(config, states.shape[1], len(state_of_item), 0 if images is None else images.shape[1])
    space.initialise(states, state_of_item, histories, images)
    user_side = UserSide(config.dim, profile.recommender.light_width, config.recency)
    progress = Progress(run, "item space", config.steps)
    device = training_device()
    train_item_space(space, user_side, states, state_of_item, histories, config, progress, device, images)
    return space.cpu(), user_side.cpu()


if __name__ == "__main__":
    cli.run(main)
