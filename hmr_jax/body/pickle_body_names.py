"""Stand-ins for what pickles of bodies hold beside numpy's arrays: scipy and chumpy."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hmr_jax.body.pickle_names import (
    ITEM_BYTES,
    NUMPY_NAMES,
    Global,
    Resolve,
    StandIn,
    brief,
    checked_shape,
)


class _Chumpy(StandIn):
    """chumpy keeps an array in ``x`` and lazy expressions of others elsewhere."""

    def resolve(self, resolve):
        state = _state_dict(self.state, resolve)
        if "x" in state:
            return np.asarray(resolve(state["x"]))
        if "a" in state and "idxs" in state:  # chumpy.reordering.Select
            flat = np.asarray(resolve(state["a"])).ravel()
            index = np.asarray(resolve(state["idxs"]))
            resolve.spend(index.size * max(flat.itemsize, ITEM_BYTES))
            if index.dtype.kind not in "iu":
                index = index.astype(np.int64)
            if index.size and not 0 <= index.min() <= index.max() < flat.size:
                raise ValueError(
                    f"chumpy selection: expected indices below {flat.size}, "
                    f"got {index.min()}..{index.max()}"
                )
            taken = flat[index.ravel()]
            shape = resolve(state.get("preferred_shape", index.shape))
            return taken.reshape(tuple(int(n) for n in np.atleast_1d(shape)))
        raise ValueError(
            f"chumpy object: expected an array 'x' or a selection 'a', 'idxs'; it has "
            f"{brief(sorted(map(str, state))) if state else 'nothing'}"
        )


class _Sparse(StandIn):
    compressed_axis = 1

    def resolve(self, resolve):
        state = _sparse_state(self.state, ("data", "indices", "indptr"), resolve)
        rows, columns = state["shape"]
        data, indices, indptr = (state[k] for k in ("data", "indices", "indptr"))
        count = (rows, columns)[self.compressed_axis]
        other = (rows, columns)[1 - self.compressed_axis]
        indptr = np.asarray(indptr, np.int64)  # differences of unsigned ones wrap
        lengths = np.diff(indptr)
        if (
            *(len(indptr) != count + 1, len(indptr) and indptr[0] != 0),
            *((lengths < 0).any(), len(data) != len(indices)),
            len(indptr) and indptr[-1] != len(data),
            len(indices) and not 0 <= indices.min() <= indices.max() < other,
        ) != (False,) * 6:
            raise ValueError(
                f"sparse matrix of shape {(rows, columns)}: its indices disagree"
            )
        resolve.spend(count * other * data.dtype.itemsize)
        dense = np.zeros((count, other), data.dtype)
        np.add.at(dense, (np.repeat(np.arange(count), lengths), indices), data)
        return dense if self.compressed_axis == 0 else dense.T.copy()


class _SparseRows(_Sparse):
    compressed_axis = 0


class _SparsePlaces(StandIn):
    """scipy's COO: values with their rows and columns, also as ``coords``."""

    def resolve(self, resolve):
        state = _sparse_state(self.state, ("data",), resolve)
        shape, data = state["shape"], state["data"]
        places = state.get("coords") or (state.get("row"), state.get("col"))
        if len(places) != 2 or any(
            getattr(p, "shape", None) != data.shape or p.dtype.kind != "i"
            for p in places
        ):
            raise ValueError(f"sparse matrix of shape {shape}: no place for each value")
        for place, size in zip(places, shape, strict=True):
            if place.size and not 0 <= place.min() <= place.max() < size:
                raise ValueError(f"sparse matrix of shape {shape}: places outside it")
        resolve.spend(math.prod(shape) * data.dtype.itemsize)
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, tuple(places), data)
        return dense


def _sparse_state(state: Any, names: tuple[str, ...], resolve: Resolve) -> dict:
    """A matrix's state with its ``shape``, and the arrays that must be there."""
    found = {k: resolve(v) for k, v in _state_dict(state, resolve).items()}
    shape = found.get("_shape", found.get("shape"))
    missing = [k for k in names if not isinstance(found.get(k), np.ndarray)]
    if missing or not isinstance(shape, tuple) or len(shape) != 2:
        raise ValueError(f"sparse matrix without {', '.join(missing) or 'shape'}")
    if found["data"].dtype.kind not in "biufc":
        raise ValueError(f"sparse matrix of {found['data'].dtype}, expected numbers")
    return found | {"shape": checked_shape(tuple(int(n) for n in shape))}


def _state_dict(state: Any, resolve: Resolve) -> dict:
    """The attributes in a pickled state, which may also be (attributes, slots)."""
    parts = state if isinstance(state, tuple) else (state,)
    merged: dict = {}
    for part in parts:
        if part is not None and not isinstance(part, dict):
            raise ValueError(f"expected attributes by name, got {type(part).__name__}")
        resolve.spend(ITEM_BYTES * len(part or ()))
        merged.update(part or {})
    return merged


def _sparse_names() -> dict[Global, Any]:
    table: dict[Global, Any] = {}
    kinds = {"csc": _Sparse, "csr": _SparseRows, "coo": _SparsePlaces}
    for kind, record in kinds.items():
        for module in (f"scipy.sparse.{kind}", f"scipy.sparse._{kind}", "scipy.sparse"):
            table[module, f"{kind}_matrix"] = record
            table[module, f"{kind}_array"] = record
    return table


BODY_NAMES: Mapping[Global, Any] = {
    **NUMPY_NAMES,
    **_sparse_names(),
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _Chumpy,
}
"""What the published SMPL and MANO files contain."""
