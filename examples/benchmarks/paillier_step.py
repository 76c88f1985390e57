"""A training step of the Paillier cut as it is: both roles, two processes, a link encrypted with CURVE.

`paillier.py` prints what this measures. One epoch of `steps` batches is trained; the layouts are those of a
plan for a thousand updates, since slots grow with the updates that a plan allows.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import phe_step
import torch

from protocols import paillier
from protocols.paillier.notes import draws_of
from protocols.paillier.scales import Scales, scales_of
from protocols.paillier.start import draw_factor, draw_rotation
from vfl.data.batches import Rows
from vfl.data.preparation import Features
from vfl.journal import Silent
from vfl.learn.cut import Joint
from vfl.learn.embedding import descend, embed
from vfl.learn.learner import Learner
from vfl.learn.plan import Plan
from vfl.learn.presets import MLP
from vfl.learn.scores import loss_function
from vfl.paillier.keys import PrivateKey
from vfl.paillier.share import Share
from vfl.session import Member, Session
from vfl.wire.line import Role
from vfl.wire.link import Link
from vfl.wire.perform import perform
from vfl.wire.rehearse import rehearse
from vfl.wire.zeromq import KeyPair, Port, make_keys, raw_key

FEATURE, LABEL = "bank", "label"
COLUMNS, UPDATES, WARM_UP_STEPS = 30, 1000, 2
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Setting:
    """Says what to train: W is [d, k]."""

    batch: int
    steps: int
    key_bits: int = 2048
    d: int = 16
    k: int = 16
    updates: int = UPDATES
    noise: bytes | None = None

    @property
    def plan(self) -> Plan:
        """A plan for so many updates, that ends with the first epoch."""
        return Plan(epochs=-(-self.updates // self.steps), patience=0)

    def session(self, me: str, keys: Mapping[str, KeyPair] | None = None) -> Session:
        """Returns the run as one party sees it."""
        members = {
            name: Member(
                "feature" if name == FEATURE else "label",
                self.d if name == FEATURE else None,
                raw_key(keys[name].public) if keys else None,
            )
            for name in (FEATURE, LABEL)
        }
        small = {"key_bits": self.key_bits, "unsafe_small_key": self.key_bits < 2048}
        options = paillier.Config.model_validate({"width": self.k} | small)
        secret = raw_key(keys[me].secret) if keys else None
        return Session(
            me, LABEL, members, options=options, secret_key=secret, noise=self.noise, batch_size=self.batch
        )

    @property
    def scales(self) -> Scales:
        """The integers of this setting."""
        plan = self.plan
        return scales_of(self.session(LABEL), self.batch, plan.epochs * self.steps)

    def rows(self, name: str) -> Rows:
        """Makes an epoch of random rows: the columns, or the labels."""
        n, nobody = self.batch * self.steps, np.empty(0, dtype=np.int64)
        x = torch.randn(n, COLUMNS, generator=torch.Generator().manual_seed(0))
        return Rows(
            np.arange(n, dtype=np.uint64),
            {"train": np.arange(n), "valid": nobody, "test": nobody},
            features=Features(x, None) if name == FEATURE else None,
            y=(x[:, 0] > 0).float() if name == LABEL else None,
            batch_size=self.batch,
            seed=0,
        )

    def learners(self, name: str) -> dict[str, Learner]:
        """Makes a party's network, and its share."""
        torch.manual_seed(1)
        network: torch.nn.Module = MLP(p=COLUMNS, out=self.d, hidden=[])
        if name == LABEL:
            network = Joint("concat", MLP(p=self.k, out=1, hidden=[64]))
        layer = paillier.layers(self.session(name).options, name, {FEATURE: self.d})["share"]
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        return {"network": Learner(network, optimizer), "share": Learner(layer)}


@dataclass
class Clock(Silent):
    """Is a journal that notes when each step ended, and the processor's time."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float | None) -> None:
        """Notes both."""
        self.wall.append(time.perf_counter())
        self.processor.append(time.process_time())


def per_step(times: list[float]) -> float:
    """Returns the mean seconds of a step after warming up."""
    kept = times[min(WARM_UP_STEPS, len(times) // 4) :]
    return (kept[-1] - kept[0]) / (len(kept) - 1)


def role_of(
    name: str, setting: Setting, learners: Mapping[str, Learner], clock: Clock, session: Session
) -> Role[Any]:
    """Returns a party's role."""
    common: dict[str, Any] = {
        "session": session,
        "rows": setting.rows(name),
        "plan": setting.plan,
        "journal": clock,
        "layers": {"share": learners["share"]},
    }
    network = learners["network"]
    if name == FEATURE:
        return lambda line: paillier.ROLES["feature"](line, bottom=network, **common)
    return lambda line: paillier.ROLES["label"](line, own=None, joint=network, task="binary", **common)


# --- two processes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """Is what a step took: seconds of both parties, and true frame bytes both ways."""

    expected_s: float
    wall_s: float
    processor_s: float
    n_bytes: float


@dataclass
class Crew:
    """Is the feature party's process, which plays one setting after another; the label party is this one."""

    keys: dict[str, KeyPair]
    pipe: Connection
    process: BaseProcess

    @classmethod
    def start(cls) -> Crew:
        """Starts it."""
        pipe, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=work, args=(theirs,))
        process.start()
        return cls({name: make_keys() for name in (FEATURE, LABEL)}, pipe, process)

    def play(self, setting: Setting) -> Found:
        """Estimates a step as `vfl check` does, and then trains."""
        session = setting.session(LABEL, self.keys)
        estimate = paillier.step_seconds(session, cores=1, steps=setting.updates)
        clock, learners = Clock(), setting.learners(LABEL)
        port = Port(
            "tcp://127.0.0.1:*", hub=True, keys=self.keys[LABEL], allowed={self.keys[FEATURE].public: FEATURE}
        )
        role = role_of(LABEL, setting, learners, clock, session)
        self.pipe.send((setting, self.keys, port.address))
        link = Link(port, LABEL, LABEL, [FEATURE], paillier.MESSAGES)
        perform(role, link)
        entry = link.ledger.entries[FEATURE, "train"]
        return Found(
            estimate(setting.batch, True),
            per_step(clock.wall),
            per_step(clock.processor) + self.pipe.recv(),
            (entry.sent_bytes + entry.received_bytes) / setting.steps,
        )

    def end(self) -> None:
        """Ends the process."""
        self.pipe.send(None)
        self.process.join()


def work(pipe: Connection) -> None:
    """Is the feature party's process."""
    torch.set_num_threads(1)
    while (order := pipe.recv()) is not None:
        setting, keys, address = order
        port = Port(address, hub=False, keys=keys[FEATURE], allowed={}, hub_key=keys[LABEL].public)
        clock = Clock()
        role = role_of(FEATURE, setting, setting.learners(FEATURE), clock, setting.session(FEATURE, keys))
        perform(role, Link(port, FEATURE, LABEL, [LABEL], paillier.MESSAGES))
        pipe.send(per_step(clock.processor))


# --- the same step with phe -----------------------------------------------------------------------------


def trained(setting: Setting) -> dict[str, Any]:
    """Trains in memory; returns all weights, and W as the sum of its shares."""
    learners = {name: setting.learners(name) for name in (FEATURE, LABEL)}
    roles = {
        name: role_of(name, setting, mine, Clock(), setting.session(name)) for name, mine in learners.items()
    }
    rehearse(roles, paillier.MESSAGES, record=False, hub=LABEL)
    return weights(learners)


def stepped(setting: Setting, key: PrivateKey, meter: phe_step.Meter) -> dict[str, Any]:
    """Trains one step with phe, value by value, from the same weights; returns the same."""
    scales = setting.scales
    learners = {name: setting.learners(name) for name in (FEATURE, LABEL)}
    mine, theirs = (share_of(learners[name]) for name in (FEATURE, LABEL))
    first, second = (draws_of(setting.session(name)) for name in (FEATURE, LABEL))
    drawn = draw_factor(scales, first)
    rotated = draw_rotation(scales, second).astype(object) @ drawn
    noise = scales.start.packing.noise(scales.start_bound, scales.d, scales.k, draws=second)
    for share, integers, draws in ((mine, rotated + noise, first), (theirs, -noise, second)):
        share.begin(integers << scales.start_shift, setting.batch, draws.key())
    (batch,), (labels,) = (list(setting.rows(name).batches("train", 1)) for name in (FEATURE, LABEL))
    bottom, joint = (learners[name]["network"] for name in (FEATURE, LABEL))
    h = embed(bottom, batch)
    h_int, _ = scales.activation.encode(h.detach().numpy())

    def gradient_of(z_int: np.ndarray) -> np.ndarray:
        z_int = z_int + mine.blurred(h_int, scales.k, scales.blur)
        z = torch.from_numpy(scales.z(z_int)).requires_grad_()
        loss = loss_function("binary")(joint(z), labels.y)
        torch.autograd.backward(loss)
        joint.step()
        assert z.grad is not None
        g = scales.gradient_integers(z.grad.numpy())[0]
        blurs.append(theirs.blurred(g, scales.d, scales.blur))
        return g

    used = mine.rounded_down(scales.dropped_bits), theirs.rounded_up(scales.dropped_bits)
    blurs: list[np.ndarray] = []
    learned, returned = phe_step.step(key.phe_key, meter, h_int, used, gradient_of)
    returned = returned + blurs[0]
    theirs.add(-learned)
    descend(bottom, h, torch.from_numpy(scales.embedding_gradient(returned)))
    return weights(learners)


def share_of(learners: Mapping[str, Learner]) -> Share:
    """Returns a party's share of W."""
    share = learners["share"].network
    assert isinstance(share, Share)
    return share


def weights(learners: Mapping[str, Mapping[str, Learner]]) -> dict[str, Any]:
    """Returns all weights, each network's, and W as the sum of its shares."""
    found: dict[str, Any] = {"W": sum(share_of(mine).integers for mine in learners.values()).tolist()}
    for mine in learners.values():
        found |= {name: one.tolist() for name, one in mine["network"].network.state_dict().items()}
    return found
