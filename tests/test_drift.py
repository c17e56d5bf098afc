"""Live queries beside those of a plan: no more false alarms than stated, and real changes are seen."""

from pathlib import Path

import numpy as np
import pytest

import compatlearn as cl
from compatlearn.cli.app import run
from compatlearn.errors import ConfigError, DataError, FormatError, IncompatibleError
from compatlearn.evaluation.drift import drift
from compatlearn.evaluation.profile import Profile, load_profile
from compatlearn.upgrade.files import FILES, PROFILE

D_NEW, D_OLD = 6, 5
TURN = np.linalg.qr(np.random.default_rng(9).normal(size=(D_NEW, D_NEW)))[0][:, :D_OLD]


def drawn(n: int, seed: int, *, shift: float = 0.0, stretch: float = 1.0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, D_NEW)) + shift
    return (stretch * rows).astype(np.float32)


def profile_of(seed: int, n: int = 60, metric: str = "cosine") -> Profile:
    pairs, queries = drawn(150, 1000 + seed), drawn(n, seed)
    return Profile.of(pairs, pairs @ TURN, queries, metric, mapped=queries @ TURN)


def blurred(rows: np.ndarray) -> np.ndarray:
    """A map that fails where the first coordinate is large."""
    return np.where(rows[:, :1] > 0.5, -1, 1) * (rows @ TURN)


def test_false_alarms_are_as_rare_as_stated() -> None:
    times, rate = 150, 0.1
    alarms = sum(
        drift(profile_of(seed), drawn(60, 5000 + seed), query_map=lambda rows: rows @ TURN, alarms=rate, seed=seed).changed
        for seed in range(times)
    )
    assert alarms <= times * rate + 2.6 * (times * rate * (1 - rate)) ** 0.5
    assert alarms >= 1  # the tests are not asleep either


@pytest.mark.parametrize(
    ("live", "names"),
    [
        (drawn(300, 7, stretch=1.5), {"length"}),
        (drawn(300, 7, shift=1.0), {"length", "directions"}),
    ],
)
def test_changes_are_seen_and_named(live: np.ndarray, names: set[str]) -> None:
    found = drift(profile_of(3, n=300), live)
    assert names <= {check.name for check in found.checks if check.changed}
    assert found.changed
    assert "measure again" in str(found)


def test_agreement_that_falls_is_seen() -> None:
    profile = profile_of(4, n=300)
    same = drawn(300, 8)
    assert not drift(profile, same, query_map=lambda rows: rows @ TURN).changed
    worse = drift(profile, same, query_map=blurred)
    assert [check.name for check in worse.checks if check.changed] == ["agreement"]
    assert worse.checks[-1].now < worse.checks[-1].before
    better = drift(profile, same, query_map=lambda rows: rows @ TURN).checks[-1]
    assert better.p > 0.01


def test_the_energy_distance_is_the_textbooks() -> None:
    profile, live = profile_of(5, n=40, metric="dot"), drawn(30, 6)
    check = next(check for check in drift(profile, live).checks if check.name == "directions")

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.mean([[np.linalg.norm(a - b) for b in other] for a in one]))

    known = profile.queries
    slow = 2 * apart(known, live) - apart(known, known) - apart(live, live)
    assert check.now == pytest.approx(slow, abs=1e-4)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "dot"])
def test_agreement_is_that_of_two_rankings(metric: str) -> None:
    profile, queries = profile_of(6, metric=metric), drawn(9, 3)
    mapped = queries @ TURN + 0.5
    new = cl.search(queries, profile.pairs, 10, metric=metric).indices
    old = cl.search(mapped.astype(np.float32), profile.pairs_old, 10, metric=metric).indices
    slow = [len(set(one) & set(other)) / 10 for one, other in zip(new.tolist(), old.tolist(), strict=True)]
    assert profile.agreement_of(queries, mapped).tolist() == pytest.approx(slow)


def test_what_cannot_be_compared() -> None:
    profile = profile_of(0)
    with pytest.raises(IncompatibleError, match="queries have 3 dimensions and the plan's 6"):
        drift(profile, drawn(50, 1)[:, :3])
    with pytest.raises(DataError, match="5 queries are too few"):
        drift(profile, drawn(5, 1))
    with pytest.raises(DataError, match="made with 5 queries"):
        drift(profile_of(0, n=5), drawn(50, 1))
    with pytest.raises(DataError, match="1 of 50 queries have NaN"):
        drift(profile, np.r_[drawn(49, 1), np.full((1, D_NEW), np.nan, np.float32)])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        drift(profile, drawn(50, 1), alarms=1.0)


def test_a_profile_comes_back_from_its_file(tmp_path: Path) -> None:
    profile = profile_of(1)
    profile.save(tmp_path / PROFILE)
    again = load_profile(tmp_path / PROFILE)
    for name in ("pairs", "pairs_old", "queries", "lengths", "agreement"):
        np.testing.assert_array_equal(getattr(again, name), getattr(profile, name))  # to the bit: ranks must see ties
    assert (again.limit, again.metric, again.space) == (profile.limit, "cosine", "")
    data = (tmp_path / PROFILE).read_bytes()
    for wrong in (data[:-9], data[:50], b"", b"\x80\x04pickle"):
        (tmp_path / PROFILE).write_bytes(wrong)
        with pytest.raises(FormatError, match="make the plan again"):
            load_profile(tmp_path / PROFILE)
    cl.Adapter("ridge").fit(drawn(30, 1), drawn(30, 1)).save(tmp_path / PROFILE)
    with pytest.raises(FormatError, match="no profile of a plan"):
        load_profile(tmp_path / PROFILE)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, queries = drawn(150, 1002), drawn(300, 2)
    adapter = cl.Adapter("procrustes", metric="cosine").fit(new, new @ TURN)
    adapter.save(tmp_path / FILES["query"])
    Profile.of(new, new @ TURN, queries, "cosine", mapped=adapter(queries)).save(tmp_path / PROFILE)
    for name, live in (("same", drawn(300, 20)), ("other", drawn(300, 20, shift=1.0))):
        cl.Features(live, space="new@1").save(tmp_path / name)
    gate = ["--plan", str(tmp_path), "--require-unchanged", "--queries"]
    assert run(["drift", *gate, str(tmp_path / "same")]) == 0
    assert "no change is seen; false alarms: at most 1%" in capsys.readouterr().out
    assert run(["drift", *gate, str(tmp_path / "other"), "--json"]) == 3
    assert '"changed": true' in capsys.readouterr().out
    assert run(["drift", *gate, str(tmp_path / "nothing")]) == 1
    assert "there is no" in capsys.readouterr().err
    (tmp_path / PROFILE).unlink()
    assert run(["drift", *gate, str(tmp_path / "same")]) == 1
    assert "make the plan again" in capsys.readouterr().err
