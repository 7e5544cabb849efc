"""Which interpreter a request gets, and how many are kept, whatever comes."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.tflite_interpreters import Interpreters, Shapes

FIRST: Shapes = ((1,),)


@dataclass(eq=False)
class Interpreter:
    shapes: Shapes = FIRST


class Pool:
    """Interpreters of a model that takes any number of rows below a thousand, and counts what it was asked for."""

    def __init__(self, most: int) -> None:
        self.made = self.resized = 0
        self.of = Interpreters(self.make, self.resize, FIRST, most)

    def make(self) -> Interpreter:
        self.made += 1
        return Interpreter()

    def resize(self, interpreter: Interpreter, shapes: Shapes) -> None:
        self.resized += 1
        if shapes[0][0] >= 1000:
            raise ValueError("too many rows")
        interpreter.shapes = shapes

    def ask(self, rows: int, *, keep: bool = True) -> Interpreter:
        with self.of.of(((rows,),), keep=keep) as interpreter:
            assert interpreter.shapes == ((rows,),)
            return interpreter


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(1, 1010), st.booleans()), max_size=60))
def test_whatever_comes_the_shapes_are_right_and_no_more_are_kept_than_may_be(
    most: int, requests: list[tuple[int, bool]]
) -> None:
    pool = Pool(most)
    for rows, keep in requests:
        if rows >= 1000:
            with pytest.raises(ValueError, match="too many rows"):
                pool.ask(rows)
        else:
            pool.ask(rows, keep=keep)
        assert len(pool.of.kept) <= most


@given(st.lists(st.sampled_from([1, 7, 256]), min_size=3, max_size=40))
def test_as_many_shapes_as_may_be_kept_are_made_once_and_never_again(requests: list[int]) -> None:
    pool = Pool(3)
    for rows in requests:
        pool.ask(rows)
    assert pool.made == len(set(requests))
    assert pool.resized == len(set(requests) - {1})


def test_the_one_that_rested_longest_takes_new_shapes() -> None:
    pool = Pool(2)
    for rows in (3, 5, 3, 9):
        pool.ask(rows)
    assert pool.of.kept == (((3,),), ((9,),))


def test_one_that_failed_is_not_given_back() -> None:
    pool = Pool(2)
    with pytest.raises(RuntimeError), pool.of.of(FIRST):
        raise RuntimeError("the model gave up")
    assert pool.of.kept == ()
    assert pool.ask(1) and pool.made == 2


def test_requests_at_the_same_time_each_have_their_own_and_those_too_many_are_let_go() -> None:
    pool, together = Pool(2), threading.Barrier(5)
    found: list[Interpreter] = []

    def ask() -> None:
        with pool.of.of(FIRST) as interpreter:
            found.append(interpreter)
            together.wait(30)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 5
    assert len(pool.of.kept) == 2


def test_after_closing_none_is_kept_and_a_request_still_finds_one() -> None:
    pool = Pool(2)
    pool.ask(1)
    pool.of.close()
    assert pool.of.kept == () and pool.ask(4).shapes == ((4,),)
