"""Apply an adapter with NumPy alone, in front of a service: one file, which imports nothing else of this package."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf, prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32]  # (d,) or (n, d)

__all__ = ["Map", "MapError", "load"]

FORMAT, LAYOUT = "compatlearn-adapter", "1"
MAKE = "make one with `compatlearn adapt`"
BLOCK = 2048  # rows mapped at a time
LONGEST, SHORTEST = 1e10, 1e-15  # lengths whose squares float32 holds, on their way through a map too
# −2 atanh(erf(x/√2))/x as a polynomial in x², |x| < 5.5: gelu within 1e-7
FACTORS = (-1.59576843, -0.0726685671, 6.626001404e-5, 1.1048030931e-4, -7.9382179e-6, 2.66892757e-7, -3.6112314662e-9)
*GELU, EDGE, STEEP, ONE = (np.array(value, np.float32) for value in (*FACTORS, 5.5**2, 80, 1))  # quicker than scalars


class MapError(ValueError):
    """A file that is not a whole adapter, or a query that a map cannot take; the message is one line."""


@dataclass(frozen=True)
class Map:
    """A fitted map. It holds read-only arrays and nothing that changes, so that threads can share it.

    Attributes:
        method: what was fitted.
        direction: "query": new vectors become old ones; "gallery": old ones become new ones.
        metric: that ranks the index: "euclidean", "cosine" or "dot".
        space_new: the new model; "" is unknown.
        space_old: the old model; "" is unknown.
        d_in: dimensions of what it takes.
        d_out: dimensions of what it gives.
        unit_inputs: what it is given is scaled to unit length first.
    """

    method: str
    direction: str
    metric: str
    space_new: str
    space_old: str
    d_in: int
    d_out: int
    unit_inputs: bool
    _apply: Callable[[Vectors], Vectors] = field(repr=False, compare=False)

    def __call__(self, vectors: Any) -> Vectors:
        """Map one vector or a batch.

        Args:
            vectors: (d_in,) or (n, d_in) float16, float32 or float64, an array or lists, finite, no longer than 1e10.

        Returns:
            (d_out,) or (n, d_out) float32, a new array.

        Raises:
            MapError: another shape or type, NaN, infinity, or a length that float32 cannot square.
        """
        rows = _rows(vectors, self.d_in, "the query")
        rows = _unit(rows) if self.unit_inputs else rows
        if rows.ndim == 1 or len(rows) <= BLOCK:
            return self._apply(rows)
        return np.concatenate([self._apply(rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK)])

    def fused(self, new: Any, old: Any, weight: float) -> Vectors:
        """Both vectors of a query in one: the one of the space that is searched, plus weight times the mapped other one.

        For direction "query" that is old + weight · mapped new, which the rung `fused` asks the index with; for "gallery"
        new + weight · mapped old. Under the cosine both are of unit length first, and so is the result; under other metrics
        the sum is divided by 1 + weight.

        Args:
            new: (d_new,) or (n, d_new) by the new model.
            old: (d_old,) or (n, d_old) the same queries by the old model.
            weight: of the mapped vector, at least 0.

        Returns:
            (d_out,) or (n, d_out) float32.

        Raises:
            MapError: as a call; another number of queries, a weight out of range, or under the cosine a length of zero.
        """
        if not 0 <= weight < inf:
            raise MapError(f"the weight of the mapped query must be finite and at least 0; got {weight}")
        given, own, name = (new, old, "the old query") if self.direction == "query" else (old, new, "the new query")
        mapped, rows = self(given), _rows(own, self.d_out, name)
        if rows.shape != mapped.shape:
            raise MapError(f"give the same queries by both models; {name} is {rows.shape}, the mapped one {mapped.shape}")
        rows, mapped = self._directed(rows, name), self._directed(mapped, "the mapped query")
        fused: Any = (rows + np.float32(weight) * mapped) / np.float32(1 + weight)
        return self._directed(fused, "the fused query")

    def _directed(self, rows: Vectors, name: str) -> Vectors:
        if self.metric == "cosine" and not rows.any(axis=-1).all():
            raise MapError(f"{name} has length zero, which under the cosine has no direction")
        return _unit(rows) if self.metric == "cosine" else rows


def load(path: str | os.PathLike[str]) -> Map:
    """Read the file of an adapter.

    Args:
        path: the .safetensors file that `Adapter.save` or `compatlearn adapt` wrote.

    Returns:
        The map.

    Raises:
        MapError: it cannot be read, is no adapter, is cut short, was changed, or is of another version.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:  # noqa: PTH123
            return _map(*_parse(file.read()))
    except OSError as error:
        raise MapError(f"cannot read {name}: {error.strerror or error}; {MAKE}") from error
    except MapError as error:
        raise MapError(f"{name} {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise MapError(f"{name} is not a whole adapter ({type(error).__name__}: {error}); {MAKE}") from error


def digest(texts: Mapping[str, str], arrays: Mapping[str, Any]) -> str:
    """BLAKE2b of everything in a file but the digest itself; the order of its parts does not matter.

    Args:
        texts: the header's own entries; one called "digest" is left out.
        arrays: name → float32 array.

    Returns:
        32 hexadecimal digits.
    """
    import hashlib  # late: it loads OpenSSL

    known = [sorted({**texts, "digest": ""}.items()), [(name, list(arrays[name].shape)) for name in sorted(arrays)]]
    state = hashlib.blake2b(json.dumps(known, separators=(",", ":")).encode(), digest_size=16)
    for name in sorted(arrays):
        state.update(np.ascontiguousarray(arrays[name], "<f4").data)
    return state.hexdigest()


def _parse(data: bytes) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The header's entries and the arrays, in the memory of the file; all bytes are accounted for."""
    begin = 8 + int.from_bytes(data[:8], "little")
    if data[8:9] != b"{":
        raise MapError(f"is no safetensors file ({len(data)} bytes); {MAKE}")
    if len(data) < begin:
        raise MapError(f"is cut short ({len(data)} bytes; its header ends at {begin}); copy it again")
    header = json.loads(data[8:begin])
    texts = header.pop("__metadata__", {})
    if texts.get("format") != FORMAT:
        raise MapError(f"is no adapter ({texts.get('format') or 'its header has no format'}); {MAKE}")
    places, end = sorted((*entry["data_offsets"], name) for name, entry in header.items()), 0
    for start, stop, name in places:
        shape, kind = header[name]["shape"], header[name]["dtype"]
        if kind != "F32" or start != end or min(shape, default=0) < 0 or stop - start != 4 * prod(shape):
            raise MapError(f"has {stop - start} bytes at {start} for {name}, {kind} of shape {shape}: they do not fit; {MAKE}")
        end = stop
    if len(data) != begin + end:
        fault = "is cut short" if len(data) < begin + end else "has bytes behind its end"
        raise MapError(f"{fault} ({len(data)} bytes instead of {begin + end}); copy it again")
    flat = np.frombuffer(data, "<f4", end // 4, begin) if end else np.zeros(0, "<f4")
    return texts, {name: flat[a // 4 : b // 4].reshape(header[name]["shape"]) for a, b, name in places}


def _map(texts: dict[str, str], arrays: dict[str, np.ndarray]) -> Map:
    layout = texts.get("layout", "none")
    if layout != LAYOUT:
        remedy = "save it again with compatlearn" if layout == "none" else "update compatlearn"
        raise MapError(f"is of a version that this one cannot read (layout {layout} instead of {LAYOUT}); {remedy}")
    if digest(texts, arrays) != texts.get("digest"):
        raise MapError("was changed after it was written: its digest is another; copy it again")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise MapError(f"has NaN or infinity in {name}; {MAKE}")
    if texts["direction"] not in ("query", "gallery"):
        raise MapError(f"maps {texts['direction']} vectors, which this version cannot; update compatlearn")
    sizes = json.loads(texts["sizes"])
    apply = (_kernel if sizes.get("kind") == "kernel" else _network)(arrays, sizes)
    own = {name: texts[name] for name in ("method", "direction", "metric", "space_new", "space_old")}
    return Map(**own, d_in=sizes["d_new"], d_out=sizes["d_old"], unit_inputs=texts["unit_inputs"] == "true", _apply=apply)


def _network(given: Mapping[str, np.ndarray], sizes: Mapping[str, Any]) -> Callable[[Vectors], Vectors]:
    d_in, d_out, hidden, blocks = (sizes[name] for name in ("d_new", "d_old", "hidden", "blocks"))
    inner = {"branch": (d_in, hidden)} if hidden else {}
    inner |= {f"blocks.{i}": (d_out, max(d_out // 2, 1)) for i in range(blocks)}
    layers = {"linear": (d_out, d_in)} | {f"{name}.0": (units, width) for name, (width, units) in inner.items()}
    layers |= {f"{name}.2": (d_out, units) for name, (_, units) in inner.items()}
    shapes = {f"{name}.weight": shape for name, shape in layers.items()} | {"centre": (d_in,), "spread": (), "length": ()}
    fixed = _fixed(given, shapes | {f"{name}.bias": shape[:1] for name, shape in layers.items()})
    found = [[fixed[f"{name}.{part}"] for part in ("0.weight", "0.bias", "2.weight", "2.bias")] for name in inner]
    return partial(_network_map, fixed, found[:1] if hidden else [], found[1:] if hidden else found, sizes["unit"])


def _network_map(given: Mapping[str, Vectors], branch: Any, blocks: Any, unit: bool, x: Vectors) -> Vectors:
    """y = A x + b + V gelu(U x), x = (n − centre)/spread, then y ← y + V' gelu(U' y) for each block; length · y is given."""
    x = (x - given["centre"]) / given["spread"]
    y = x @ given["linear.weight"]
    y += given["linear.bias"]
    for layers in branch:
        y += _perceptron(x, *layers)
    for layers in blocks:
        y += _perceptron(y, *layers)
    return _unit(y) if unit else y * given["length"]


def _perceptron(x: Vectors, up: Vectors, up_bias: Vectors, down: Vectors, down_bias: Vectors) -> Vectors:
    """V gelu(U x + u) + v, gelu(x) = x Φ(x) = x / (1 + exp(−2 atanh(erf(x/√2)))): NumPy has no erf."""
    x = x @ up
    x += up_bias
    square = np.minimum(x * x, EDGE)
    power = square * GELU[-1]
    for factor in GELU[-2:0:-1]:
        power += factor
        power *= square
    power += GELU[0]
    power *= x
    np.exp(np.minimum(power, STEEP, out=power), out=power)
    power += ONE
    return np.divide(x, power, out=power) @ down + down_bias


def _kernel(given: Mapping[str, np.ndarray], sizes: Mapping[str, Any]) -> Callable[[Vectors], Vectors]:
    d_in, d_out, pairs, drawing = (sizes[name] for name in ("d_new", "d_old", "pairs", "drawing"))
    shapes = {"centre": (d_in,), "whitener": (d_in, d_in), "slope": (d_in, d_out), "mean": (d_out,), "weights": (pairs, d_out)}
    shapes |= {"features": (pairs, d_in), "targets": (pairs if drawing is None else drawing, d_out)}
    options = (sizes[name] for name in ("temperature", "directions", "neighbours", "draw", "unit"))
    return partial(_kernel_map, _fixed(given, shapes), *options)


def _kernel_map(given: Any, heat: float, directions: bool, neighbours: int, draw: float, unit: bool, rows: Vectors) -> Vectors:
    """y = mean + slope · x + Σ k(x, xᵢ) aᵢ, drawn towards the mean of the targets nearest to it."""
    n, pairs, targets = np.atleast_2d(rows), given["features"], given["targets"]
    x = n - given["centre"]
    own = _unit(x @ given["whitener"]) if directions else n @ given["whitener"]
    squares = 2.0 if directions else (own * own).sum(axis=1)[:, None] + (pairs * pairs).sum(axis=1)
    kernel = np.exp(np.maximum(squares - 2 * own @ pairs.T, 0) / np.float32(-2 * heat))
    y = kernel @ given["weights"] + (x @ given["slope"] + given["mean"])
    y, count, w = _unit(y) if unit else y, min(neighbours, len(targets)), np.float32(draw)
    if count > 0 and draw != 0:
        near = y @ targets.T - (0 if unit else (targets * targets).sum(axis=1) / 2)
        mean = targets[np.argpartition(-near, count - 1, axis=1)[:, :count]].mean(axis=1)
        y = _unit(y + w * _unit(mean)) if unit else (y + w * mean) / (ONE + w)
    return y.reshape(*rows.shape[:-1], -1)


def _unit(rows: Vectors) -> Vectors:
    """Rows of unit length; one of length zero stays as it is."""
    if rows.ndim == 1:
        length = np.sqrt(rows.dot(rows))
        return rows / length if length > SHORTEST else _unit(rows[None])[0]
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scaled: Any = rows / np.where(largest > 0, largest, ONE)  # else squares may vanish
    return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), ONE)


def _rows(vectors: Any, width: int, name: str) -> Vectors:
    """Checked rows, as float32."""
    try:
        rows: Any = np.asarray(vectors)
    except ValueError as error:
        raise MapError(f"{name} is not an array: {error}; give every row the same length") from error
    if rows.dtype.char not in "efd" and (rows.dtype.kind not in "iu" or hasattr(vectors, "dtype")):  # JSON writes 1.0 as 1
        raise MapError(f"{name} must be float16, float32 or float64; got {rows.dtype}")
    if rows.ndim not in (1, 2) or rows.shape[-1] != width or not rows.size:
        raise MapError(f"{name} must be ({width},) or (n, {width}), n at least 1; got {rows.shape}: use the model of the map")
    rows = rows if rows.dtype.char in "fd" else rows.astype(np.float32)
    with np.errstate(all="ignore"):
        total = rows.reshape(-1).dot(rows.reshape(-1))
    if not total < LONGEST**2:  # one pass that shows any fault, or only that there are many rows
        bad = np.flatnonzero(~np.isfinite(np.atleast_2d(rows)).all(axis=1))
        if len(bad):
            where = f" in {len(bad)} of {len(rows)} rows (first: {bad[0]})" if rows.ndim == 2 else ""
            raise MapError(f"{name} has NaN or infinity{where}; embed it again")
        if np.abs(rows).max() > LONGEST / width**0.5:
            raise MapError(f"{name} is too long for float32 (numbers up to {np.abs(rows).max():.3g}); scale it")
    return rows.astype(np.float32, copy=False)


def _fixed(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The arrays, if they are those; layers of a network turned, so that rows are multiplied from the left."""
    found = {name: array.shape for name, array in arrays.items()}
    for name in sorted(name for name in {*found, *shapes} if found.get(name) != shapes.get(name)):
        raise MapError(f"has {name} of shape {found.get(name)} instead of {shapes.get(name)}; {MAKE}")
    fixed = {name: np.array(array.T if name.endswith(".weight") else array, "f4", order="C") for name, array in arrays.items()}
    for array in fixed.values():
        array.setflags(write=False)
    return fixed
