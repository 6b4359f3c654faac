"""The seven elements of the desk: one joint each, with a handle, and a value at which they are done.

Travels are those of the relay kitchen's elements (Gupta et al. 2019, arXiv 1910.11956), as far as they are one joint:
knobs -0.88 and -0.92, switch -0.69, oven -0.75 and door 1.45 rad, slide 0.37 m; the drawer stands in for the kettle.
There an element is done within 0.3 of its value, about a third of most travels; here within 0.3 of its own travel.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from omnibody.robots.spec import Vector3

TOLERANCE = 0.3  # of the travel
SLACK = 0.1  # of the travel, that a joint goes beyond either end


@dataclass(frozen=True)
class Element:
    """A hinge at ``pivot`` [m], or a slide where that is None, about or along ``axis``.

    ``handle`` [m] is where its handle is at 0, and ``full`` [rad or m] the value at which it is done. ``inertia`` is
    the joint's [kg m^2 or kg], ``friction`` [N m or N] what holds it where it is left.
    """

    name: str
    axis: Vector3
    handle: Vector3
    full: float
    inertia: float
    friction: float
    pivot: Vector3 | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """The joint's range."""
        ends = (-SLACK * self.full, (1.0 + SLACK) * self.full)
        return min(ends), max(ends)

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Add the element: its handle is the site of its name."""
        origin = np.array(self.handle if self.pivot is None else self.pivot)
        handle = np.array(self.handle) - origin
        slides = self.pivot is None
        body = spec.worldbody.add_body(name=self.name, pos=origin)
        kind = mujoco.mjtJoint.mjJNT_SLIDE if slides else mujoco.mjtJoint.mjJNT_HINGE
        low, high = self.limits
        body.add_joint(
            name=self.name,
            type=kind,
            axis=self.axis,
            range=[low, high],
            limited=mujoco.mjtLimited.mjLIMITED_TRUE,
            frictionloss=self.friction,
            armature=self.inertia,
        )
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.02, 0, 0], pos=handle, mass=0.02)
        if not slides:
            body.add_geom(type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[0, 0, 0, *handle], size=[0.008, 0, 0], mass=0.02)
        body.add_site(name=self.name, pos=handle)


ELEMENTS = (
    Element("drawer", (0, -1, 0), (-0.28, 0.22, 0.10), 0.25, 0.3, 1.0),
    Element("slide", (1, 0, 0), (-0.30, 0.48, 0.46), 0.37, 0.3, 1.0),
    Element("door", (0, 0, 1), (0.20, 0.48, 0.44), 1.45, 0.015, 0.1, pivot=(0.42, 0.48, 0.44)),
    Element("oven", (0, 0, 1), (-0.20, 0.32, 0.28), -0.75, 0.015, 0.1, pivot=(-0.42, 0.32, 0.28)),
    Element("switch", (-1, 0, 0), (0.00, 0.42, 0.36), -0.69, 0.003, 0.05, pivot=(0.00, 0.50, 0.30)),
    Element("left_knob", (0, -1, 0), (0.08, 0.12, 0.20), -0.88, 0.003, 0.05, pivot=(0.08, 0.12, 0.10)),
    Element("right_knob", (0, -1, 0), (0.32, 0.12, 0.20), -0.92, 0.003, 0.05, pivot=(0.32, 0.12, 0.10)),
)
NAMES = tuple(element.name for element in ELEMENTS)
FULL = np.array([element.full for element in ELEMENTS])

_AXIS = np.array([element.axis for element in ELEMENTS], np.float64)
_SLIDES = np.array([element.pivot is None for element in ELEMENTS])
_HANDLE = np.array([element.handle for element in ELEMENTS])
_PIVOT = np.array([element.handle if element.pivot is None else element.pivot for element in ELEMENTS])
_ARM = _HANDLE - _PIVOT
_ALONG = np.where(_SLIDES[:, None], _AXIS, 0.0)  # per metre
_SIDEWAYS = np.where(_SLIDES[:, None], 0.0, np.cross(_AXIS, _ARM))  # times the sine
_FIXED = _PIVOT + _AXIS * (_AXIS * _ARM).sum(1, keepdims=True)
_TURNED = _HANDLE - _FIXED  # times the cosine; 0 of a slide


def handles(values: np.ndarray) -> np.ndarray:
    """Where the handles are at joint ``values`` (..., 7) [rad or m]: (..., 7, 3) [m]."""
    angle = values[..., None]
    return _FIXED + _ALONG * angle + _TURNED * np.cos(angle) + _SIDEWAYS * np.sin(angle)


def done(values: np.ndarray) -> np.ndarray:
    """Which elements are done at joint ``values`` (..., 7): bool (..., 7)."""
    return np.abs(values - FULL) < TOLERANCE * np.abs(FULL)
