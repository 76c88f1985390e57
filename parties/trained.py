"""What a finished run leaves for prediction, in one party's folder: documents and the best weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from parties.assembly import PlacedSite
from vfl.config.job import Fact, Job
from vfl.config.load import load_job, load_site, write_document
from vfl.config.site import is_file
from vfl.data.labels import LabelCode
from vfl.data.preparation import Preparation
from vfl.errors import ConfigError, StorageError
from vfl.learn.checkpoint import load_checkpoint

JOB_FILE, SITE_FILE, RESULT_FILE = "job.toml", "site.toml", "result.json"
BEST, LAST = "best", "last"


@dataclass(frozen=True)
class Trained:
    """Is one party as its run left it."""

    job: Job
    placed: PlacedSite
    weights: Mapping[str, Mapping[str, Tensor]]
    preparation: Preparation | None
    code: LabelCode | None
    saved: Mapping[str, Any]
    """What else its part kept beside the weights."""
    session: str
    """The name of the training that the weights come from, one for all its parties."""
    epoch: int | None
    """The epoch of that training whose weights these are."""
    absent: tuple[str, ...] = ()
    """The parties that vanished while it trained; their part is not in it."""
    has_new_rows: bool = False
    """Whether its table is another than the one that it trained on."""

    @property
    def facts(self) -> dict[str, Fact]:
        """What all parts of one trained network have in common."""
        return {"training session": self.session, "best epoch": self.epoch}


def write_documents(folder: Path, job: Job, placed: PlacedSite) -> None:
    """Writes the resolved job and site into a party's folder, so that it stands for itself."""
    write_document(folder / JOB_FILE, job)
    # Relative paths begin at the site's folder, and this copy stands elsewhere.
    secret = placed.site.secret_key and os.path.join(placed.folder, placed.site.secret_key)
    moved: dict[str, Any] = {"secret_key": secret}
    for key in ("table", "ratings", "catalogue"):
        entry = getattr(placed.site, key)
        if entry is not None and is_file(entry.source):
            moved[key] = entry.model_copy(update={"source": os.path.join(placed.folder, entry.source)})
    write_document(folder / SITE_FILE, placed.site.model_copy(update=moved))
    (folder / SITE_FILE).chmod(0o600)  # it holds the seed of this party's weights


def session_of(folder: Path) -> str:
    """Tells in which training a party's best weights were made; empty where there are none."""
    try:
        return str(load_checkpoint(folder, BEST).state["session"])
    except StorageError:
        return ""


def load_trained(folder: Path) -> Trained:
    """Reads a party's folder back.

    Raises:
        ConfigError: if the folder is not what a finished run leaves.
        StorageError: if its checkpoint is damaged.
    """
    if not (folder / JOB_FILE).is_file():
        raise ConfigError(
            f"{folder}: is no party's folder of a finished run; name runs/NAME or runs/NAME/PARTY"
        )
    if not (folder / RESULT_FILE).is_file():
        raise ConfigError(
            f"{folder}: has no {RESULT_FILE}: its training did not finish; name a run that did, or train anew"
        )
    job, site = load_job(folder / JOB_FILE), load_site(folder / SITE_FILE)
    best = load_checkpoint(folder, BEST)
    absent = best.state.get("absent", [])  # their part of the network is not in these weights
    present = {name: party for name, party in job.parties.items() if name not in absent}
    on_absence = (
        "abort" if job.on_absence == "continue" else job.on_absence
    )  # nobody can miss in a prediction
    job = job.model_copy(update={"parties": present, "on_absence": on_absence})
    saved: dict[str, Any] = best.state["saved"]
    preparation, code = saved.get("preparation"), saved.get("label")
    return Trained(
        job=job,
        placed=PlacedSite(site, Path(best.state["site_folder"])),
        weights=best.tensors,
        preparation=Preparation.from_json(preparation) if preparation else None,
        code=LabelCode.from_json(code) if code else None,
        saved=saved,
        session=best.state["session"],
        epoch=best.state["epoch"],
        absent=tuple(absent),
    )
