"""MuJoCo's C functions in loops over many worlds that run without Python's lock.

A call from Python per world drops and re-takes the lock each time, and two threads that do so wait for each other: a
fifth of a step at 16 worlds of go2. Here one call steps, or casts the cameras of, all worlds of a thread. Worlds are
given by the addresses of their ``mjModel`` and ``mjData``, which the caller keeps alive; arrays are C-contiguous.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import llvmlite.binding
import mujoco
import numpy as np
from numba import njit, types

_path = next(Path(mujoco.__file__).parent.glob("libmujoco*"))
_library = ctypes.CDLL(str(_path))  # the copy that the mujoco package has loaded already
for _name in ("mj_step", "mj_forward", "mj_multiRay"):
    llvmlite.binding.add_symbol(_name, ctypes.cast(getattr(_library, _name), ctypes.c_void_p).value)
llvmlite.binding.add_symbol("omnibody_copy", ctypes.cast(ctypes.memmove, ctypes.c_void_p).value)

_address, _count, _byte = types.int64, types.int32, types.uint8
# Symbols by name, unlike ctypes' own functions, let numba keep the compiled loops on disk.
_mj_step = types.ExternalFunction("mj_step", types.void(_address, _address))
_mj_forward = types.ExternalFunction("mj_forward", types.void(_address, _address))
_mj_multi_ray = types.ExternalFunction(
    "mj_multiRay",
    types.void(
        _address, _address, _address, _address, _address, _byte, _count, _address, _address, _address, _count,
        types.float64,
    ),
)  # fmt: skip
_copy = types.ExternalFunction("omnibody_copy", _address(_address, _address, types.int64))
NUM_ADDRESSES = 6
JIT = {"cache": True, "nogil": True}


def addresses(model: mujoco.MjModel, data: mujoco.MjData, sensor: np.ndarray) -> tuple[int, ...]:
    """A row of ``worlds``: where mjModel, mjData, ctrl, qpos, qvel and one value of sensordata lie."""
    arrays = (data.ctrl, data.qpos, data.qvel, sensor)
    return model._address, data._address, *(array.ctypes.data for array in arrays)


@njit(**JIT)
def push(worlds, control, substeps, qpos, qvel, touched):  # type: ignore[no-untyped-def]
    """Step ``worlds`` (n, 6), rows of ``addresses``, ``substeps`` times under ``control`` (n, nu).

    Written are ``qpos`` (n, nq), ``qvel`` (n, nv) and ``touched`` (n,), the sensor's value after the last step.
    """
    for k in range(len(worlds)):
        _copy(worlds[k, 2], control.ctypes.data + k * _width(control), _width(control))
        for _ in range(substeps):
            _mj_step(worlds[k, 0], worlds[k, 1])
    _fetch(worlds, qpos, qvel, touched)


@njit(**JIT)
def move(worlds, qpos, qvel, touched):  # type: ignore[no-untyped-def]
    """Put ``worlds`` into the states ``qpos`` (n, nq), ``qvel`` (n, nv); ``touched`` as in ``push``."""
    for k in range(len(worlds)):
        _copy(worlds[k, 3], qpos.ctypes.data + k * _width(qpos), _width(qpos))
        _copy(worlds[k, 4], qvel.ctypes.data + k * _width(qvel), _width(qvel))
        _mj_forward(worlds[k, 0], worlds[k, 1])
    _fetch(worlds, qpos, qvel, touched)


@njit(**JIT)
def _width(array):  # type: ignore[no-untyped-def]
    """Bytes of a row."""
    return array.size // len(array) * array.itemsize


@njit(**JIT)
def _fetch(worlds, qpos, qvel, touched):  # type: ignore[no-untyped-def]
    for k in range(len(worlds)):
        _copy(qpos.ctypes.data + k * _width(qpos), worlds[k, 3], _width(qpos))
        _copy(qvel.ctypes.data + k * _width(qvel), worlds[k, 4], _width(qvel))
        _copy(touched.ctypes.data + k * _width(touched), worlds[k, 5], _width(touched))


@njit(**JIT)
def cast(worlds, origins, rays, groups, cutoff, geoms, distances):  # type: ignore[no-untyped-def]
    """Cast ``rays`` (n, R, 3), unit vectors in the world, from ``origins`` (n, 3) [m] in ``worlds`` (n, 6).

    ``groups`` (mjNGROUP,) uint8 says which geom groups are seen, those of fixed bodies included. Written are ``geoms``
    (n, R) int32, -1 without a hit within ``cutoff`` [m], and ``distances`` (n, R) [m].
    """
    for k in range(len(worlds)):
        _mj_multi_ray(
            worlds[k, 0],
            worlds[k, 1],
            origins.ctypes.data + k * _width(origins),
            rays.ctypes.data + k * _width(rays),
            groups.ctypes.data,
            1,
            -1,
            geoms.ctypes.data + k * _width(geoms),
            distances.ctypes.data + k * _width(distances),
            0,
            rays.shape[1],
            cutoff,
        )


@njit(**JIT)
def look(  # type: ignore[no-untyped-def]
    worlds, classes, position, quaternion, offset, rays, groups, cosine, max_range, depth, semantics
):
    """See ``worlds`` (n, 6) from cameras at ``offset`` (n, 3) [m] in bases at ``position`` (n, 3) [m], ``quaternion``
    (n, 4) wxyz.

    ``rays`` (n, R, 3) are unit vectors in the base, ``cosine`` (R,) of their angle to the optical axis, ``classes``
    (n, G) of the geoms, ``groups`` as in ``cast``. Written are ``depth`` (n, R) float32 [m] along the axis and
    ``semantics`` (n, R) uint8: ``max_range`` and class 0 without a hit within ``max_range`` [m].
    """
    n, num = rays.shape[:2]
    origins, turned = np.empty((n, 3)), np.empty((n, num, 3))
    geoms, distances = np.empty((n, num), np.int32), np.empty((n, num))
    for k in range(n):
        w, x, y, z = quaternion[k, 0], quaternion[k, 1], quaternion[k, 2], quaternion[k, 3]
        matrix = (
            (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)),
            (2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)),
            (2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)),
        )
        for i in range(3):
            a, b, c = matrix[i]
            origins[k, i] = position[k, i] + a * offset[k, 0] + b * offset[k, 1] + c * offset[k, 2]
            for r in range(num):
                turned[k, r, i] = a * rays[k, r, 0] + b * rays[k, r, 1] + c * rays[k, r, 2]
    # A ray at the image corner may be longer than max_range and still hit within that depth.
    cast(worlds, origins, turned, groups, max_range / cosine.min(), geoms, distances)
    for k in range(n):
        for r in range(num):
            along = distances[k, r] * cosine[r]
            seen = geoms[k, r] >= 0 and along <= max_range
            depth[k, r] = along if seen else max_range
            semantics[k, r] = classes[k, geoms[k, r]] if seen else 0
