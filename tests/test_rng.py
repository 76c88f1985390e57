from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import MT19937, PCG64, mtrand

from vfl.errors import RoleError, StorageError
from vfl.learn.checkpoint import load_checkpoint, pack_state, save_checkpoint, unpack_state
from vfl.rng import RngStream, derive_seed


def draw(normals: int = 1) -> list[float]:
    """Draws from every generator of the process; an odd count leaves numpy a kept normal."""
    return [
        *torch.rand(3).tolist(),
        torch.randn(1).item(),
        *np.random.standard_normal(normals).tolist(),
        float(np.random.randint(1 << 30)),
        random.random(),
        random.gauss(0, 1),
    ]


def seed_everything() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)


def test_a_stream_draws_the_same_whatever_the_caller_draws_between() -> None:
    alone, taken_in_turns = RngStream(1), RngStream(1)
    with alone:
        expected = [draw(), draw(), draw()]
    seen = []
    for _ in range(3):
        with taken_in_turns:
            seen.append(draw())
        draw(2)
        torch.manual_seed(9)
        np.random.seed(9)
    assert seen == expected


@pytest.mark.parametrize("normals", [1, 2])
def test_the_caller_draws_as_if_no_stream_had_been_entered(normals: int) -> None:
    seed_everything()
    expected = [draw(normals) for _ in range(3)]
    seed_everything()
    seen, stream = [], RngStream(1)
    for _ in range(3):
        with stream:
            draw(normals)
        seen.append(draw(normals))
        with stream:
            draw(2)
    assert seen == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=12))
def test_streams_that_take_turns_in_any_order_draw_as_each_would_alone(turns: list[tuple[int, int]]) -> None:
    mixed, alone = [RngStream(seed) for seed in range(3)], [RngStream(seed) for seed in range(3)]
    seen: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for who, normals in turns:
        with mixed[who]:
            seen[who] += draw(normals)
    for who, stream in enumerate(alone):
        with stream:
            assert seen[who] == [x for turn, normals in turns if turn == who for x in draw(normals)]


def test_a_stream_draws_what_torch_and_python_draw_from_the_same_seed() -> None:
    torch.manual_seed(5)
    random.seed(5)
    expected = [torch.rand(4).tolist(), random.uniform(0, 1)]
    with RngStream(5):
        assert [torch.rand(4).tolist(), random.uniform(0, 1)] == expected


def test_streams_may_be_nested_in_one_another() -> None:
    with RngStream(1):
        expected = [draw(), draw()]
    with RngStream(1):
        seen = [draw()]
        with RngStream(2):
            draw()
        seen.append(draw())
    assert seen == expected


def test_a_role_suspended_in_no_grad_leaks_nothing_and_gets_it_back() -> None:
    stream = RngStream(0)
    hold = torch.no_grad()
    with stream:
        hold.__enter__()
    assert torch.is_grad_enabled()
    with stream:
        assert not torch.is_grad_enabled()
        hold.__exit__(None, None, None)
    with torch.no_grad():
        with stream:
            assert torch.is_grad_enabled()
        assert not torch.is_grad_enabled()


def test_a_role_suspended_in_inference_mode_is_told_to_use_no_grad() -> None:
    stream, hold = RngStream(0), torch.inference_mode()
    with pytest.raises(RoleError, match=r"torch\.no_grad"), stream:
        hold.__enter__()
    hold.__exit__(None, None, None)
    assert torch.is_grad_enabled()
    with torch.inference_mode(), stream:  # the caller's own is no fault of the role's
        torch.rand(1)


def test_the_callers_state_comes_back_after_an_exception() -> None:
    state, stream = torch.get_rng_state(), RngStream(0)
    with pytest.raises(ZeroDivisionError), stream:
        torch.rand(1).item() / 0
    assert torch.equal(torch.get_rng_state(), state)
    with stream:  # and the stream can be entered again
        torch.rand(1)


def test_a_stream_entered_twice_is_an_error() -> None:
    stream = RngStream(0)
    with stream, pytest.raises(RoleError, match="entered twice"):
        stream.__enter__()


@pytest.mark.parametrize("entered", [False, True])
def test_a_stream_goes_on_from_a_checkpoint_bit_for_bit(entered: bool, tmp_path: Path) -> None:
    stream, resumed = RngStream(1), RngStream(99)
    with stream:
        draw()  # an odd number of normals: one is kept
        live = stream.state_dict()
    state = live if entered else stream.state_dict()
    tensors, packed = pack_state(state)
    save_checkpoint(tmp_path, {"rng": tensors}, packed)
    loaded = load_checkpoint(tmp_path)
    state = unpack_state(loaded.tensors["rng"], loaded.state)
    with stream:
        expected = draw(3)
    if entered:
        with resumed:
            resumed.load_state_dict(state)
            assert draw(3) == expected
    else:
        resumed.load_state_dict(state)
        with resumed:
            assert draw(3) == expected


def test_asking_for_the_state_inside_a_stream_changes_nothing() -> None:
    with RngStream(1):
        expected = [draw(), draw()]
    stream = RngStream(1)
    with stream:
        seen = [draw()]
        stream.state_dict()
        assert [*seen, draw()] == expected


def test_a_caller_with_another_bit_generator_gets_it_back() -> None:
    default = mtrand.get_bit_generator()
    try:
        mtrand.set_bit_generator(PCG64(1))
        np.random.standard_normal()
        expected = np.random.standard_normal(3)
        mtrand.set_bit_generator(PCG64(1))
        np.random.standard_normal()
        with RngStream(0):
            assert isinstance(mtrand.get_bit_generator(), MT19937)
            draw()
        assert np.array_equal(np.random.standard_normal(3), expected)
    finally:
        mtrand.set_bit_generator(default)


def test_a_role_with_another_bit_generator_cannot_be_checkpointed() -> None:
    stream = RngStream(0)
    with stream:
        mtrand.set_bit_generator(PCG64(1))
    with pytest.raises(RoleError, match="PCG64"):
        stream.state_dict()


def test_a_state_that_is_none_is_refused_and_the_stream_is_as_it_was() -> None:
    stream = RngStream(1)
    good = stream.state_dict()
    for broken in ({}, {**good, "python_words": torch.zeros(3)}, {**good, "torch": torch.zeros(5)}):
        with pytest.raises(StorageError, match="random state"):
            stream.load_state_dict(broken)
    with stream, RngStream(1):
        expected = draw()
    with stream:
        assert draw() == expected


@settings(deadline=None)
@given(st.integers(-(2**70), 2**70), st.lists(st.text(max_size=4), max_size=3))
def test_a_derived_seed_is_63_bits_and_always_the_same(seed: int, purpose: list[str]) -> None:
    derived = derive_seed(seed, *purpose)
    assert 0 <= derived < 2**63
    assert derived == derive_seed(seed, *purpose)


def test_derived_seeds_differ_by_seed_and_by_every_word() -> None:
    asked = [(0,), (1,), (0, ""), (0, "ab"), (0, "a", "b"), (0, "b", "a"), (0, "ab", ""), (0, "", "ab")]
    assert len({derive_seed(seed, *words) for seed, *words in asked}) == len(asked)
    assert derive_seed(0, "dropout", "bank") == 4719082715691744450  # pinned: runs stay reproducible


def test_entering_a_stream_is_cheap() -> None:
    stream, fastest = RngStream(0), float("inf")
    for _ in range(50):
        begin = time.perf_counter()
        with stream:
            pass
        fastest = min(fastest, time.perf_counter() - begin)
    assert fastest < 500e-6  # about 40 µs; a tenth of a small training step even on a busy machine
