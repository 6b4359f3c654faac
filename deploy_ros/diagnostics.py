"""What the policy node shows: diagnostics, the way ahead as a ``Path``, and markers for RViz or Foxglove."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, PoseStamped
from nav_msgs.msg import Path
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from omnibody.deploy_ros import messages
from omnibody.deploy_ros.runner import PolicyRunner
from omnibody.robots.spec import Footprint

WAITING = ("unconfigured", "inactive", "no goal", "goal reached", "disengaged")  # holds that are no fault
ROUTE, PLAN, FOOTPRINT = (0.1, 0.6, 1.0, 1.0), (0.6, 0.6, 0.6, 1.0), (1.0, 0.6, 0.1, 1.0)  # rgba


def diagnostics(name: str, header: Header, hold: str, values: Mapping[str, Any]) -> DiagnosticArray:
    """One status: OK while it drives (``hold`` is empty), WARN while it waits, ERROR while it holds for a fault."""
    waiting = hold.startswith(WAITING)
    level = DiagnosticStatus.WARN if waiting else DiagnosticStatus.ERROR if hold else DiagnosticStatus.OK
    status = DiagnosticStatus(level=level, name=name, message=hold or "driving")
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticArray(header=header, status=[status])


def path(header: Header, points: np.ndarray) -> Path:
    """Points (K, 2) [m] in the header's frame."""
    out = Path(header=header)
    for x, y in points.tolist():
        pose = PoseStamped(header=header)
        messages.fill_pose(pose.pose, x, y, 0.0)
        out.poses.append(pose)
    return out


def markers(runner: PolicyRunner, base: Header, odom: Header) -> MarkerArray:
    """The route as the policy sees it and the footprint in the frame of ``base``, the plan in that of ``odom``."""
    lines = (
        ("route", base, runner.route()[:, 2:], ROUTE),
        ("footprint", base, corners(runner.embodiment.footprint), FOOTPRINT),
        ("plan", odom, runner.way(), PLAN),
    )
    return MarkerArray(markers=[_line(*line) for line in lines])


def corners(footprint: Footprint) -> np.ndarray:
    """The closed outline (5, 2) [m] of a footprint in the base frame."""
    signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1), (1, 1)])
    return 0.5 * signs * np.array([footprint.length, footprint.width])


def _line(name: str, header: Header, points: np.ndarray, colour: tuple[float, ...]) -> Marker:
    marker = Marker(header=header, ns=name, type=Marker.LINE_STRIP, action=Marker.ADD if len(points) else Marker.DELETE)
    marker.pose.orientation.w, marker.scale.x = 1.0, 0.03
    marker.color = ColorRGBA(**dict(zip("rgba", colour, strict=True)))
    marker.points = [Point(x=x, y=y, z=0.0) for x, y in points.tolist()]
    return marker
