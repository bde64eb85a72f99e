"""Stage 1, first half: tune the content encoder when it is due.

Reads ``catalog/ds`` and ``histories/ds`` without the held-out days. Writes ``encoder/ds``: the language model, the
learnt item token and the settings. On a day when nothing is due it says so and ends in seconds.

The demo tunes MiniLM end to end for a few steps on the 1,000 items with the most events: half a minute on two cores.
"""

from __future__ import annotations

from jobs.platform import cli, plots, tracking
from jobs.platform.datasets import dataset
from jobs.platform.parts import keep
from jobs.platform.profile import Profile, load_profile
from jobs.platform.tracked_runs import StageRun
from jobs.platform.training import MODELS, Progress, facts_of, training_histories, version_of, why_due
from jobs.platform.warehouse import Partition, Warehouse

SECTIONS = ("encoder", "encoder_training")


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
    retrain: cli.RetrainOption = None,
) -> None:
    """Tune the content encoder on a recommendation loss when it is due.

    Writes encoder.
    """
    settings = load_profile(profile)
    wh = Warehouse(warehouse)
    newest = wh.latest("encoder", until=ds, strict=True)
    why = why_due(wh, newest, ds, settings, retrain, *SECTIONS)
    refresh = cli.refresh_id_or_default(refresh_id, ds)
    with tracking.stage("train_encoder", ds=ds, refresh_id=refresh) as run:
        run.tags({"hymirec.due": why or "no"})
        if not why:
            assert newest is not None
            keep(wh, newest, ds)
            print(f"encoder: kept that of {newest.info['trained']} ({newest.info['version']}), not due")
            return
        run.params({"encoder": settings.encoder, "encoder_training": settings.encoder_training})
        written = train(wh, ds, settings, run)
    print(f"encoder: trained ({why}), version {written.info['version']}")


def train(wh: Warehouse, ds: str, profile: Profile, run: StageRun) -> Partition:
    """Tune the encoder and write encoder/ds."""
    import torch
    from tqdm import tqdm

    from hymirec_model.content_encoder import ContentEncoder
    from hymirec_model.devices import training_device
    from hymirec_model.encoder_training import tune_encoder
    from hymirec_model.weights import resolve

    catalog = wh.partition("catalog", ds)
    run.inputs([dataset(wh, part) for part in (catalog, wh.partition("histories", ds))], "training")
    texts = [str(text) for text in wh.read(catalog, ["text"])["text"].to_pylist()]
    histories = training_histories(wh, ds, profile)
    torch.manual_seed(profile.encoder_training.seed)
    encoder = ContentEncoder.from_pretrained(profile.encoder, resolve(profile.encoder.weights, MODELS))
    config = profile.encoder_training
    head, whole = Progress(run, "head", config.head_steps, prefix="head_"), Progress(run, "end to end", config.steps)

    def report(step: int, metrics: dict[str, float]) -> None:
        if step > 0:
            whole(step, metrics)
        else:
            head(config.head_steps + step + 1, metrics)

    with tqdm(total=config.pool_items, desc="texts", unit="text", mininterval=2.0) as bar:
        tune_encoder(encoder, texts, histories, profile.item_space, config, report, bar.update, training_device())
    run.figure(plots.loss_curves({"head": head.losses, "end to end": whole.losses}), "loss_encoder.png")
    with wh.write_partition("encoder", ds) as part:
        encoder.cpu().save(part.local)
        part.info |= {"version": version_of(part.local), **facts_of(ds, profile, *SECTIONS)}
    return wh.partition("encoder", ds)


if __name__ == "__main__":
    cli.run(main)
