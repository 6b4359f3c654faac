"""Managed lifecycle node that drives one robot: messages in, `PolicyRunner`, commands and diagnostics out.

``python -m omnibody.deploy_ros.policy_node --ros-args -p robot:=carrier -p checkpoint:=<folder or .onnx>``; with
``autostart`` it configures and activates itself. Topics have the names of the body's ``ros`` interface; remap them
with ``-r odom:=/my/odom``. It commands on the arrival of the readings, at the policy's rate. It exits with 130 after
SIGINT, 143 after SIGTERM and 1 after an exception; a zero command goes out first.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMsg
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, LaserScan
from std_msgs.msg import Bool, Header
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from omnibody.deploy_ros import diagnostics, messages
from omnibody.deploy_ros.inputs import Inputs
from omnibody.deploy_ros.runner import STALE_PERIODS, Command, Hold, PolicyRunner
from omnibody.policies.checkpoint import load_policy
from omnibody.policies.policy import Policy
from omnibody.robots.errors import UserError, unknown
from omnibody.robots.table import load_robot

if TYPE_CHECKING:
    from omnibody.deploy_ros.recorder import Recorder

PARAMETERS: dict[str, Any] = {
    "robot": "carrier",
    "checkpoint": "",
    "backend": "torch",
    "rate_hz": 0.0,  # 0: the rate of the policy's training; another one only when asked for
    "record": "",  # a folder that gets a new rosbag2 of all that is heard and commanded while the node is configured
    "autostart": True,
}
SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
RECORD = QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT)  # hears every publisher
BACKENDS = ("torch", "onnx")
SIMULATOR_PATIENCE = 1.0  # a simulated clock that stood so long has stopped, not only been slow [s]
POLLS = 4  # a period: how often it looks whether readings are overdue
OK, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PolicyNode(LifecycleNode):
    """See the module's words; the parameters are ``PARAMETERS``."""

    def __init__(self) -> None:
        super().__init__("policy_node")
        for name, default in PARAMETERS.items():
            self.declare_parameter(name, default)
        self._runner: PolicyRunner | None = None
        self._recorder: Recorder | None = None
        self._active = False
        self._answer: Command | Hold = Hold("unconfigured")
        self._status = self.create_publisher(DiagnosticArray, "/diagnostics", COMMAND)
        self.create_service(SetBool, "engage", self._engage)
        self.create_service(Trigger, "stop", self._stop)
        # Not the ROS clock: a simulator that dies takes /clock with it, and the robot must still stop.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=self._steady)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load body and policy; what does not fit leaves the node unconfigured."""
        robot, checkpoint, backend, rate_hz, record, _ = (self.get_parameter(name).value for name in PARAMETERS)
        try:
            runner = PolicyRunner(_policy(backend, Path(checkpoint)), load_robot(robot), rate_hz or None)
            self._recorder = _recorder(record, runner.embodiment.name)
            self._open(runner)
        except Exception as error:  # whatever is wrong, the node must live to say so: rclpy would keep it to itself
            message = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self._say(Hold("unconfigured", message))
            return FAILURE
        self._say(Hold("inactive"))
        return OK

    def _open(self, runner: PolicyRunner) -> None:
        self._runner, ros = runner, runner.embodiment.ros
        self._inputs = inputs = Inputs(runner)
        self._twist = self.create_publisher(Twist, ros.cmd_vel, COMMAND)
        self._stamped = self.create_publisher(TwistStamped, f"{ros.cmd_vel}_stamped", COMMAND)
        self._route = self.create_publisher(PathMsg, "route", COMMAND)
        self._markers = self.create_publisher(MarkerArray, "markers", COMMAND)
        # Messages that wait together are taken in this order: the readings that make a tick come last.
        heard: list[tuple[Any, str, str, Callable[[Any], None], QoSProfile]] = [
            (Bool, "estop", "", self._estop, COMMAND),
            (PoseStamped, "goal_pose", "", inputs.goal_pose, COMMAND),
            (PathMsg, "plan", "", inputs.serialized_plan, COMMAND),
            (LaserScan, "scan", "scan", inputs.scan, SENSOR),
            (Image, ros.depth, "depth", inputs.depth, SENSOR),
            (Odometry, ros.odom, "pose", inputs.odom, SENSOR),
        ]
        self._listening = [
            self.create_subscription(kind, topic, self._guarded(key, take), qos, raw=kind is PathMsg)
            for kind, topic, key, take, qos in heard
        ]
        if self._recorder is not None:
            also = ((Twist, ros.cmd_vel), (DiagnosticArray, "/diagnostics"))
            for kind, topic in (*also, *((kind, topic) for kind, topic, *_ in heard)):
                self._listening.append(self._recorder.listen(self, kind, topic, RECORD))
        self._poll = self.create_timer(runner.period / POLLS, self._try_tick)
        simulated = self.get_parameter("use_sim_time").value
        patience = SIMULATOR_PATIENCE if simulated else STALE_PERIODS * runner.period
        self._watch = self.create_timer(patience, self._clock_stopped, clock=self._steady)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to command."""
        self._active = True
        self._watch.reset()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop."""
        self.halt(Hold("inactive"))
        self._active = False
        return super().on_deactivate(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop for good."""
        return self.on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the policy."""
        for timer in (self._poll, self._watch):
            self.destroy_timer(timer)
        for subscription in self._listening:
            self.destroy_subscription(subscription)
        for publisher in (self._twist, self._stamped, self._route, self._markers):
            self.destroy_publisher(publisher)
        self.end_recording()
        self._runner = None
        self._say(Hold("unconfigured"))
        return OK

    def end_recording(self) -> None:
        """Close the bag, if there is one."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def halt(self, hold: Hold) -> None:
        """Send a zero command now, if it may command at all."""
        if self._runner is not None and self._active:
            self._runner.safety.stopped()
            self._send(np.zeros(3))
            self._say(hold)

    def _try_tick(self) -> None:
        now = self.get_clock().now().nanoseconds * 1e-9
        if self._runner is None or not self._active or not self._runner.due(now):
            return
        answer = self._runner.tick(now)
        self._watch.reset()
        if isinstance(answer, Hold):
            self.halt(answer)
            return
        self._send(answer.twist)
        self._say(answer)
        self._show(self._runner)

    def _clock_stopped(self) -> None:
        if self._runner is not None and self._active:
            self._runner.interrupted()
            self.halt(Hold("stale: clock"))

    def _send(self, twist: np.ndarray) -> None:
        assert self._runner is not None
        stamped = TwistStamped(header=self._header(self._runner.embodiment.ros.base_frame))
        messages.fill_twist(stamped.twist, twist)
        self._twist.publish(stamped.twist)
        self._stamped.publish(stamped)

    def _show(self, runner: PolicyRunner) -> None:
        base = self._header(runner.embodiment.ros.base_frame)
        if self._route.get_subscription_count():
            self._route.publish(diagnostics.path(base, runner.route()[:, 2:]))
        if self._markers.get_subscription_count():
            self._markers.publish(diagnostics.markers(runner, base, self._header(self._inputs.frame)))

    def _header(self, frame: str) -> Header:
        return Header(stamp=self.get_clock().now().to_msg(), frame_id=frame)

    def _say(self, answer: Command | Hold) -> None:
        """Remember the answer; a change of state is one line of JSON in the log."""
        last, self._answer = self._answer, answer
        what, detail = (answer.what, answer.detail) if isinstance(answer, Hold) else ("driving", "")
        if what != (last.what if isinstance(last, Hold) else "driving") or what == "unconfigured":
            self.get_logger().info(json.dumps({"state": what, "detail": detail}))
            self._report()

    def _guarded(self, key: str, take: Callable[[Any], None]) -> Callable[[Any], None]:
        """A callback that turns a bad message into a fault of its reading ``key``, or only a log line."""

        def callback(message: Any) -> None:
            try:
                take(message)
            except UserError as error:
                self.get_logger().error(str(error), throttle_duration_sec=1.0)
                if key and self._runner is not None:
                    self._runner.fault(key, str(error))
            if key:
                self._try_tick()

        return callback

    def _estop(self, message: Bool) -> None:
        assert self._runner is not None
        self._runner.estop = message.data
        if message.data:
            self.halt(Hold("estop"))

    def _engage(self, request: Any, response: Any) -> Any:
        response.success = self._runner is not None
        if self._runner is None:
            response.message = "unconfigured"
            return response
        self._runner.engaged = request.data
        if not request.data:
            self.halt(Hold("disengaged"))
            response.message = "stopped; call engage to go on"
        return response

    def _stop(self, request: Any, response: Any) -> Any:
        return self._engage(SetBool.Request(data=False), response)

    def _report(self) -> None:
        hold = self._answer.reason if isinstance(self._answer, Hold) else ""
        counts = {**self._runner.counts, **self._runner.safety.counts} if self._runner else {}
        counts |= self._recorder.status() if self._recorder else {}
        name = self.get_fully_qualified_name()[1:]  # /diagnostics is one topic for a whole fleet
        self._status.publish(diagnostics.diagnostics(name, self._header(""), hold, counts))


def _recorder(folder: str, name: str) -> Recorder | None:
    if not folder:
        return None
    from omnibody.deploy_ros.recorder import Recorder  # a second of imports that driving does not need

    return Recorder(Path(folder), name)


def _policy(backend: str, source: Path) -> Policy:
    if backend == "torch":
        return load_policy(source)
    if backend != "onnx":
        raise unknown("backend", backend, BACKENDS)
    from omnibody.policies.compass.export import OnnxPolicy  # a second of imports that torch does not need

    return OnnxPolicy(source)


def main() -> NoReturn:
    """Run the node until a signal or an exception, and leave with the exit code that says which."""
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
    except Exception:
        traceback.print_exc()
    node.halt(Hold("exit"))
    time.sleep(0.1)  # lets a reliable writer hand over its last message
    node.end_recording()
    node.destroy_node()
    rclpy.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to save, and torch takes seconds to fold up on a busy computer


if __name__ == "__main__":
    main()
