"""Times split learning in two processes against compute alone, a bare socket and the one-process network.

    python examples/benchmarks/splitnn.py [--steps 600] [--rounds 5] [--batches 64 256 1024]

The feature party holds 30 columns and a bottom 30 -> 64; the label party holds the trunk
64 -> 64 -> 1; Adam on both; float32; one thread a process. Every round measures everything once, one
after the other, so that a slow moment of the machine falls on all; the table shows medians over rounds
and, in brackets, the lowest and highest.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import zmq
from torch import nn

from protocols.splitnn import MESSAGES, Embedding, EmbeddingGrad, EpochEnd, feature_party, label_party
from vfl.data.batches import Rows
from vfl.data.preparation import Features
from vfl.learn.cut import Joint
from vfl.learn.joined import JoinedNetwork
from vfl.learn.learner import Learner
from vfl.learn.plan import Plan
from vfl.learn.presets import MLP
from vfl.session import Member, Session
from vfl.wire.codec import encode, stamp
from vfl.wire.line import Line, Receive, Send
from vfl.wire.link import Link
from vfl.wire.perform import perform
from vfl.wire.zeromq import KeyPair, Port, make_keys

COLUMNS, WIDTH = 30, 64
SESSION = Session("", "label", {"feature": Member("feature", WIDTH), "label": Member("label")})
WARM_UP_STEPS = 50
SPAWN = multiprocessing.get_context("spawn")


@dataclass
class Clock:
    """Is a journal that notes when each step ended."""

    times: list[float]

    def step(self, epoch: int, step: int, steps: int, rows: int, loss: float | None) -> None:
        """Notes the time."""
        self.times.append(time.perf_counter())

    def epoch(self, record: object) -> None:
        """Does nothing."""

    def checkpoint(self, epoch: int, learners: object, *, best: bool) -> None:
        """Does nothing."""

    @property
    def ms_a_step(self) -> float:
        """The mean time of a step after warming up, in milliseconds."""
        kept = self.times[WARM_UP_STEPS:]
        return 1000 * (kept[-1] - kept[0]) / (len(kept) - 1)


def bottom_network() -> nn.Module:
    """Returns the feature party's bottom, 30 -> 64."""
    torch.manual_seed(1)
    return MLP(p=COLUMNS, out=WIDTH, hidden=[])


def trunk_network() -> nn.Module:
    """Returns the label party's trunk, 64 -> 64 -> 1."""
    torch.manual_seed(2)
    return MLP(p=WIDTH, out=1, hidden=[64])


def learner(network: nn.Module) -> Learner:
    """Gives a network Adam."""
    return Learner(network, torch.optim.Adam(network.parameters(), lr=1e-3))


def table(batch: int, steps: int, *, features: bool) -> Rows:
    """Makes one epoch of `steps` batches of random rows."""
    n = batch * steps
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, COLUMNS, generator=generator)
    y = (x[:, 0] > 0).float()
    nobody = np.empty(0, dtype=np.int64)
    return Rows(
        np.arange(n, dtype=np.uint64),
        {"train": np.arange(n), "valid": nobody, "test": nobody},
        features=Features(x, None) if features else None,
        y=None if features else y,
        batch_size=batch,
        seed=0,
    )


def feature_role(
    batch: int, steps: int, ahead: int, clock: Clock
) -> Callable[[Line], Coroutine[Any, Any, None]]:
    """Returns the feature party's role."""
    rows, plan = table(batch, steps, features=True), Plan(epochs=1, ahead=ahead)
    bottom = learner(bottom_network())
    return lambda line: feature_party(
        line, session=SESSION, bottom=bottom, rows=rows, plan=plan, journal=clock
    )


def label_role(batch: int, steps: int, clock: Clock) -> Callable[[Line], Coroutine[Any, Any, Any]]:
    """Returns the label party's role."""
    rows, plan, joint = (
        table(batch, steps, features=False),
        Plan(epochs=1),
        learner(Joint("concat", trunk_network())),
    )
    return lambda line: label_party(
        line,
        session=SESSION,
        own=None,
        joint=joint,
        rows=rows,
        task="binary",
        plan=plan,
        journal=clock,
    )


# --- what is measured ------------------------------------------------------------------------------


def one_process(batch: int, steps: int) -> float:
    """Times the one-process network, in milliseconds a step."""
    rows, labels, clock = table(batch, steps, features=True), table(batch, steps, features=False), Clock([])
    network = JoinedNetwork({"feature": bottom_network()}, lambda hs: torch.cat(hs, dim=1), trunk_network())
    whole, loss_of = learner(network), nn.BCEWithLogitsLoss()
    for batch_x, batch_y in zip(rows.batches("train", 1), labels.batches("train", 1), strict=True):
        assert batch_y.y is not None
        loss = loss_of(whole.network({"feature": batch_x.inputs}).squeeze(1), batch_y.y)
        loss.item()
        loss.backward()
        whole.step()
        clock.step(1, 0, 0, batch, None)
    return clock.ms_a_step


def alone(
    role: Callable[[Line], Coroutine[Any, Any, Any]], answers: Callable[[int], Any], clock: Clock
) -> float:
    """Times one role whose peer answers at once, in milliseconds a step."""
    coroutine, answer, heard = role(Line("me")), None, 0
    try:
        while True:
            request = coroutine.send(answer)
            answer = None
            if isinstance(request, Receive):
                kind = request.kinds[0]
                answer = (request.senders[0], EpochEnd(True, True) if kind is EpochEnd else answers(heard))
                heard += 1
            assert isinstance(request, Send | Receive)
    except StopIteration:
        return clock.ms_a_step


def feature_alone(batch: int, steps: int) -> float:
    """Times the feature party's own computing."""
    clock, grad = Clock([]), torch.randn(batch, WIDTH) / batch
    return alone(feature_role(batch, steps, 0, clock), lambda step: EmbeddingGrad(step, grad), clock)


def label_alone(batch: int, steps: int) -> float:
    """Times the label party's own computing."""
    clock, h = Clock([]), torch.randn(batch, WIDTH)
    marks = [dealt.mark for dealt in table(batch, steps, features=False).batches("train", 1)]
    return alone(label_role(batch, steps, clock), lambda step: Embedding(step, marks[step], h.clone()), clock)


def together(batch: int, steps: int, ahead: int, keys: dict[str, KeyPair] | None) -> float:
    """Times both parties over a real link, each a process, in milliseconds a step."""
    ours, theirs = SPAWN.Pipe()
    other = SPAWN.Process(target=feature_process, args=(theirs, batch, steps, ahead, keys))
    other.start()
    clock = Clock([])
    allowed = {keys["feature"].public: "feature"} if keys else {}
    port = Port("tcp://127.0.0.1:*", hub=True, keys=keys and keys["label"], allowed=allowed)
    ours.send(port.address)
    perform(label_role(batch, steps, clock), Link(port, "label", "label", ["feature"], MESSAGES))
    other.join()
    return clock.ms_a_step


def feature_process(
    pipe: Connection, batch: int, steps: int, ahead: int, keys: dict[str, KeyPair] | None
) -> None:
    """Is the feature party's process."""
    torch.set_num_threads(1)
    hub_key = keys["label"].public if keys else None
    port = Port(pipe.recv(), hub=False, keys=keys and keys["feature"], allowed={}, hub_key=hub_key)
    perform(feature_role(batch, steps, ahead, Clock([])), Link(port, "feature", "label", ["label"], MESSAGES))


def bare_round_trip(batch: int, steps: int, keys: dict[str, KeyPair] | None) -> float:
    """Times the same frames there and back over plain pyzmq sockets, in milliseconds."""
    ours, theirs = SPAWN.Pipe()
    other = SPAWN.Process(target=echo_process, args=(theirs, steps, keys))
    other.start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PAIR)
    if keys:
        socket.curve_secretkey, socket.curve_publickey = (
            keys["label"].secret.encode(),
            keys["label"].public.encode(),
        )
        socket.curve_server = True
    ours.send(socket.bind_to_random_port("tcp://127.0.0.1"))
    frames = stamp(
        encode(Embedding(1, 2**62, torch.randn(batch, WIDTH)), to="label", sender="feature"),
        session=bytes(16),
        sequence=1,
        acknowledged=0,
    )
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        socket.send_multipart(frames)
        socket.recv_multipart()
        times.append(time.perf_counter() - started)
    other.join()
    context.destroy(linger=0)
    return 1000 * statistics.fmean(times[WARM_UP_STEPS:])


def echo_process(pipe: Connection, steps: int, keys: dict[str, KeyPair] | None) -> None:
    """Sends every message back."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PAIR)
    if keys:
        socket.curve_secretkey = keys["feature"].secret.encode()
        socket.curve_publickey = keys["feature"].public.encode()
        socket.curve_serverkey = keys["label"].public.encode()
    socket.connect(f"tcp://127.0.0.1:{pipe.recv()}")
    for _ in range(steps):
        socket.send_multipart(socket.recv_multipart())
    context.destroy(linger=1000)


# --- the table -------------------------------------------------------------------------------------


def measure(batch: int, steps: int, rounds: int) -> dict[str, list[float]]:
    """Measures everything `rounds` times, in turn."""
    keys = {"label": make_keys(), "feature": make_keys()}
    what: dict[str, Callable[[], float]] = {
        "one process": lambda: one_process(batch, steps),
        "feature party alone": lambda: feature_alone(batch, steps),
        "label party alone": lambda: label_alone(batch, steps),
        "bare round trip": lambda: bare_round_trip(batch, steps, None),
        "bare round trip, CURVE": lambda: bare_round_trip(batch, steps, keys),
        "lock-step": lambda: together(batch, steps, 0, None),
        "lock-step, CURVE": lambda: together(batch, steps, 0, keys),
        "one ahead": lambda: together(batch, steps, 1, None),
        "one ahead, CURVE": lambda: together(batch, steps, 1, keys),
    }
    found: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(rounds):
        for name, timed in what.items():
            found[name].append(timed())
    return found


def report(batch: int, found: dict[str, list[float]]) -> None:
    """Prints one batch size's table, as Markdown."""
    print(f"\n### Batch {batch}\n\n| | ms a step | samples/s |\n|---|---|---|")
    for name, times in found.items():
        middle = statistics.median(times)
        rate = "" if "round trip" in name else f"{1000 * batch / middle:,.0f}"
        print(f"| {name} | {middle:.3f} [{min(times):.3f} – {max(times):.3f}] | {rate} |")
    bound = [
        feature + label + 1.25 * trip
        for feature, label, trip in zip(
            found["feature party alone"],
            found["label party alone"],
            found["bare round trip, CURVE"],
            strict=True,
        )
    ]
    lock = [time / limit for time, limit in zip(found["lock-step, CURVE"], bound, strict=True)]
    ahead = [one / time for one, time in zip(found["one process"], found["one ahead, CURVE"], strict=True)]
    print(
        f"\nLock-step over CURVE ÷ (both parties' computing + 1.25 × the bare CURVE round trip): "
        f"{_spread(lock)}; target ≤ 1. One ahead over CURVE ÷ one process, samples/s: {_spread(ahead)}; "
        f"target ≥ 1 at batch 256."
    )


def _spread(ratios: list[float]) -> str:
    return f"**{statistics.median(ratios):.2f}** [{min(ratios):.2f} – {max(ratios):.2f}]"


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600, help="steps of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="how often to measure everything")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"torch {torch.__version__}, pyzmq {zmq.__version__} (libzmq {zmq.zmq_version()}); "
        f"{arguments.steps} steps, {arguments.rounds} rounds"
    )
    for batch in arguments.batches:
        report(batch, measure(batch, arguments.steps, arguments.rounds))


if __name__ == "__main__":
    main()
