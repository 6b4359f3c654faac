"""Managed lifecycle node that drives one robot: messages in, `PolicyRunner`, commands and diagnostics out.

``python -m omnibody.deploy_ros.policy_node --ros-args -p robot:=carrier -p checkpoint:=<folder or .onnx>``; with
``autostart`` it configures and activates itself. It exits with 130 after SIGINT, 143 after SIGTERM and 1 after an
exception; a zero command goes out first.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMsg
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, LaserScan
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from omnibody.deploy_ros import messages
from omnibody.deploy_ros.runner import STALE_PERIODS, Command, Hold, PolicyRunner
from omnibody.policies.checkpoint import load_policy
from omnibody.policies.compass.export import OnnxPolicy
from omnibody.robots.errors import UserError, unknown
from omnibody.robots.table import load_robot

PARAMETERS: dict[str, Any] = {"robot": "carrier", "checkpoint": "", "backend": "torch", "autostart": True}
BACKENDS: dict[str, Callable[[Path], Any]] = {"torch": load_policy, "onnx": OnnxPolicy}
SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
OK, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PolicyNode(LifecycleNode):
    """See the module's words; the parameters are ``PARAMETERS``."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        for name, default in PARAMETERS.items():
            self.declare_parameter(name, default)
        self._runner: PolicyRunner | None = None
        self._active, self._engaged = False, True
        self._answer: Command | Hold = Hold("inactive")
        self._ticked = 0.0
        self._twist = self.create_publisher(Twist, "cmd_vel", COMMAND)
        self._stamped = self.create_publisher(TwistStamped, "cmd_vel_stamped", COMMAND)
        self._route = self.create_publisher(PathMsg, "route", COMMAND)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", COMMAND)
        self.create_subscription(Odometry, "odom", self._guarded("pose", self._odom), SENSOR)
        self.create_subscription(Image, "depth", self._guarded("depth", self._depth), SENSOR)
        self.create_subscription(LaserScan, "scan", self._guarded("scan", self._scan), SENSOR)
        self.create_subscription(PoseStamped, "goal_pose", self._guarded("", self._goal), COMMAND)
        self.create_subscription(PathMsg, "plan", self._guarded("", self._plan), COMMAND)
        self.create_subscription(Bool, "estop", self._guarded("", self._estop), COMMAND)
        self.create_service(SetBool, "engage", self._engage)
        self.create_service(Trigger, "stop", self._stop)
        # Not the ROS clock: a simulator that dies takes /clock with it, and the robot must still stop.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=self._steady)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load body and policy; what does not fit leaves the node unconfigured."""
        robot, checkpoint, backend, _ = (self.get_parameter(name).value for name in PARAMETERS)
        try:
            if backend not in BACKENDS:
                raise unknown("backend", str(backend), BACKENDS)
            self._runner = PolicyRunner(BACKENDS[backend](Path(checkpoint)), load_robot(robot))
        except UserError as error:
            self.get_logger().error(f"not configured: {error}")
            self._answer = Hold(f"not configured: {error}")
            return FAILURE
        self._ticking = [
            self.create_timer(self._runner.period, self._tick),
            self.create_timer(self._runner.period, self._watch, clock=self._steady),
        ]
        return OK

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to command."""
        self._active, self._ticked = True, time.monotonic()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop."""
        self._active = False
        self.halt("inactive")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the policy."""
        for timer in self._ticking:
            self.destroy_timer(timer)
        self._runner = None
        return OK

    def halt(self, reason: str) -> None:
        """Send a zero command now."""
        self._answer = Hold(reason)
        if self._runner is not None:
            self._runner.safety.stopped()
        self._send(np.zeros(3))

    def _tick(self) -> None:
        if not self._active or self._runner is None:
            return
        self._ticked = time.monotonic()
        answer = self._runner.tick(self.get_clock().now().nanoseconds * 1e-9) if self._engaged else Hold("disengaged")
        if not isinstance(answer, Command):
            self.halt(answer.reason)
            return
        self._answer = answer
        self._send(answer.twist)
        self._route.publish(self._route_message(self._runner))

    def _watch(self) -> None:
        if self._active and self._runner and time.monotonic() - self._ticked > STALE_PERIODS * self._runner.period:
            self.halt("stale: clock")

    def _send(self, twist: np.ndarray) -> None:
        stamped = TwistStamped()
        stamped.header.stamp, stamped.header.frame_id = self.get_clock().now().to_msg(), "base_link"
        messages.fill_twist(stamped.twist, twist)
        self._twist.publish(stamped.twist)
        self._stamped.publish(stamped)

    def _route_message(self, runner: PolicyRunner) -> PathMsg:
        points = runner.route()[:, 2:]
        out = PathMsg()
        out.header.stamp, out.header.frame_id = self.get_clock().now().to_msg(), runner.embodiment.ros.base_frame
        for x, y in points.tolist():
            pose = PoseStamped(header=out.header)
            pose.pose.position.x, pose.pose.position.y = x, y
            out.poses.append(pose)
        return out

    def _guarded(self, key: str, take: Callable[[PolicyRunner, Any], None]) -> Callable[[Any], None]:
        """A callback that turns a bad message into a fault of its reading ``key``, or only a log line."""

        def callback(message: Any) -> None:
            if self._runner is None:
                return
            try:
                take(self._runner, message)
            except UserError as error:
                self.get_logger().error(str(error), throttle_duration_sec=1.0)
                if key:
                    self._runner.fault(key, str(error))

        return callback

    def _odom(self, runner: PolicyRunner, message: Odometry) -> None:
        pose, twist = messages.odometry(message)
        runner.observe("pose", pose, messages.stamp(message))
        runner.observe("velocity", twist, messages.stamp(message))

    def _depth(self, runner: PolicyRunner, message: Image) -> None:
        runner.observe("depth", messages.depth(message, runner.embodiment.camera), messages.stamp(message))

    def _scan(self, runner: PolicyRunner, message: LaserScan) -> None:
        runner.observe("scan", np.stack(messages.scan(message), axis=1), messages.stamp(message))

    def _goal(self, runner: PolicyRunner, message: PoseStamped) -> None:
        runner.set_goal(messages.goal_pose(message))

    def _plan(self, runner: PolicyRunner, message: PathMsg) -> None:
        runner.set_route(messages.path(message))

    def _estop(self, runner: PolicyRunner, message: Bool) -> None:
        runner.estop = message.data
        if message.data:
            self.halt("estop")

    def _engage(self, request: Any, response: Any) -> Any:
        self._engaged, response.success = request.data, True
        if not request.data:
            self.halt("disengaged")
        return response

    def _stop(self, request: Any, response: Any) -> Any:
        self._engaged, response.success, response.message = False, True, "stopped; call engage to go on"
        self.halt("disengaged")
        return response

    def _report(self) -> None:
        """Diagnostics: ERROR while it holds for a fault, WARN while it waits."""
        reason = self._answer.reason if isinstance(self._answer, Hold) else ""
        waiting = reason in ("inactive", "no goal", "goal reached", "disengaged")
        level = DiagnosticStatus.WARN if waiting else DiagnosticStatus.ERROR if reason else DiagnosticStatus.OK
        counts = {**self._runner.counts, **self._runner.safety.counts} if self._runner else {}
        status = DiagnosticStatus(level=level, name=self.get_name(), message=reason or "driving")
        status.values = [KeyValue(key=key, value=str(value)) for key, value in counts.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main() -> int:
    """Run the node until a signal or an exception; returns the exit code."""
    torch.set_num_threads(1)
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    caught: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda came, _: caught.append(came))
    node, code = PolicyNode(), 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.get_parameter("autostart").value and node.trigger_configure() == OK:
            node.trigger_activate()
        while not caught:
            executor.spin_once(timeout_sec=0.05)
        code = 128 + caught[0]
    finally:
        node.halt("exit")
        time.sleep(0.1)  # lets a reliable writer hand over its last message
        node.destroy_node()
        rclpy.shutdown()
    return code


if __name__ == "__main__":
    sys.exit(main())
